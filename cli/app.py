"""The entry point ``archreg``: top-level options, and signals turned into exceptions."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry import __version__
from registry.cli.command_table import CommandGroup
from registry.cli.error_output import Terminated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["app", "main"]

app = typer.Typer(
    name="archreg",
    cls=CommandGroup,
    # Completion and rich help each cost more at start-up than a whole look-up may.
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The database is --db URL, else the environment variable ARCHREG_DB, else archreg.db in the working folder.",
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    sys.stdout.write(f"archreg {__version__}\n")
    raise typer.Exit


@app.callback()
def _top(
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="URL", help="Database, for any command; it may also follow the command."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", envvar="ARCHREG_DEBUG", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """A database of trained networks, each known by the spectrum of its weights.

    Ask it what a model is equivalent to, and what the smallest equivalent is. Weights are all it needs: no data, no
    forward pass, no GPU.
    """


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _open_closed() -> None:
    """Write to nowhere where standard output or error is closed, before a database is given the number of one."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115 - till the end


def _freeze() -> None:
    """Spare the search for cycles at the very end, a tenth of a second: the system takes all memory back.

    But where torch is loaded: extensions of its would print what they then find alive.
    """
    if "torch" not in sys.modules:
        gc.freeze()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``archreg`` and exit the process.

    Parameters
    ----------
    arguments
        Words of the command line after the program's name; the process's own if None.

    Raises
    ------
    SystemExit
        Always: 0 done, 1 an error, 2 wrong usage, 3 some of several references failed, 130 interrupted, 143 terminated.
    """
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A stored name must never fail to print because the terminal's encoding lacks a letter.
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    if arguments is None:  # the process is this command's own
        # It makes few cycles and ends soon: seldom is a search for them worth its time.
        gc.set_threshold(50_000, 20, 50)
        atexit.register(_freeze)
    app(args=None if arguments is None else list(arguments), prog_name="archreg")


if __name__ == "__main__":
    main()
