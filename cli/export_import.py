"""Commands ``export`` and ``import``."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables
from registry.cli.error_output import report
from registry.cli.options import AsJson, Database, filters, open_registry, with_options
from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.types import Transfer

__all__ = ["export", "import_file"]

SOME_FAILED = 3
SHOWN = 20  # failures printed one by one; --json has all
EVERY = 5.0  # seconds between lines if standard error is not a terminal

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only, no progress.")]


@with_options(filters=filters)
def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Output SQLite file.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Stored models. Default: all that match the filters.")
    ] = None,
    no_spectra: Annotated[
        bool,
        typer.Option("--no-spectra", help="Fingerprints without spectra: smaller, but refingerprint cannot use them."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Write models with fingerprints, spectra and metadata, but without weights, to one SQLite file.

    The file is a registry: every command accepts it as --db. It includes all calibrations, but not the journal or the
    kept equivalence classes. It is written atomically.
    """
    with open_registry(db) as registry, _progress(quiet=quiet) as told:
        done = registry.export(
            output, names=names or (), spectra=not no_spectra, overwrite=force, progress=told, **filters
        )
    _tell(done, {"added": "exported"}, as_json=as_json)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="SQLite file written by archreg export, or published:.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="In a conflict, use the names, metadata and calibrations of the file.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the result for each model; change nothing.")] = False,
    quiet: Quiet = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Import the models of an exported file, or of any registry in a SQLite file.

    Known weights receive the missing names and values. Importing again changes nothing; after an interruption, run the
    same command again. The file is not trusted: every model is checked, and a damaged model is left out. Exit code 3:
    some models were left out.
    """
    with open_registry(db) as registry, _progress(quiet=quiet) as told:
        done = registry.import_from(file, replace=replace, dry_run=dry_run, progress=told)
    words = {"added": "added", "merged": "known and completed", "known": "already known"}
    _tell(done, words, as_json=as_json, dry=dry_run)


def _tell(done: Transfer, words: dict[str, str], *, as_json: bool, dry: bool = False) -> None:
    for failure in done.failed[:SHOWN]:
        report(RegistryError(failure.message, failure.remedy or None), about=failure.reference)
    if len(done.failed) > SHOWN:
        tables.hint(f"{tables.whole(len(done.failed) - SHOWN)} more models failed. Show them: --json")
    if as_json:
        json_output.write({**json_output.plain(done), "failed": len(done.failed), "failures": done.failed})
    else:
        counts = {text: getattr(done, status) for status, text in words.items()}
        told = [f"{tables.whole(count)} {text}" for text, count in counts.items() if count]
        told += [tables.counted(done.calibrations, "calibration")] * bool(done.calibrations)
        told += [f"{tables.whole(len(done.failed))} failed"] * bool(done.failed)
        file = done.file.removesuffix(":")  # published: is not followed by another colon
        tables.say(f"{file}{' (dry run)' if dry else ''}: {', '.join(told) or 'no models'}.")
    if done.failed:
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A function that reports progress: a bar on a terminal, else a line every few seconds."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("models"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True, highlight=False)) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines()


def _lines() -> Callable[[int, int], None]:
    began = told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= EVERY and done < total:
            told = now
            rate = done / (now - began)
            left = tables.whole(round((total - done) / rate))
            tables.hint(f"{tables.whole(done)}/{tables.counted(total, 'model')}, {rate:.0f} a second, {left} s left")

    return tell
