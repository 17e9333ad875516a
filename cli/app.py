"""Entry point ``archreg``: top-level options and signal handling."""

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
    # Completion and rich help each take longer to start than a whole search may.
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
        typer.Option("--db", metavar="URL", help="Database; may also follow the command."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", envvar="ARCHREG_DEBUG", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """A database of trained networks, identified by the spectra of their weights.

    It finds which models are equivalent to a model, and the smallest of them. It needs the weights only: no data, no
    forward pass, no GPU.
    """


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _open_closed() -> None:
    """Redirect closed standard streams to the null device, so that no database file gets their descriptors."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115 - till the end


def _freeze() -> None:
    """Skip the garbage collection at exit, which takes a tenth of a second.

    Not if torch is loaded: its extensions print warnings about objects that are still alive.
    """
    if "torch" not in sys.modules:
        gc.freeze()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``archreg`` and exit the process.

    Parameters
    ----------
    arguments
        Arguments after the program's name; those of the process if None.

    Raises
    ------
    SystemExit
        Always, with the exit code: 0 done, 1 error, 2 usage, 3 some of several failed, 4 a requirement does not
        hold, 130 interrupted, 143 terminated.
    """
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A stored name must never fail to print because the terminal's encoding lacks a letter.
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    if arguments is None:  # the process runs this command only
        # It makes few reference cycles and ends soon, so frequent collections waste time.
        gc.set_threshold(50_000, 20, 50)
        atexit.register(_freeze)
    app(args=None if arguments is None else list(arguments), prog_name="archreg")


if __name__ == "__main__":
    main()
