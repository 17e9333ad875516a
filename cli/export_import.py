"""Moving a registry: ``export`` and ``import``."""

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
SHOWN = 20  # failures told one by one; --json has all
EVERY = 5.0  # seconds between lines where standard error is no terminal

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; failures alone.")]


@with_options(filters=filters)
def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="SQLite file to write.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Stored models; all that pass the filters by default.")
    ] = None,
    no_spectra: Annotated[
        bool, typer.Option("--no-spectra", help="Fingerprints alone: smaller, but nothing to fingerprint anew from.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    quiet: Quiet = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Write models with fingerprints, spectra and metadata, but no weights, to one SQLite file.

    The file is a registry itself: any command takes it by --db. All calibrations go with it; the journal of ingests and
    stored classes do not. It appears whole or not at all.
    """
    with open_registry(db) as registry, _progress(quiet=quiet) as told:
        done = registry.export(
            output, names=names or (), spectra=not no_spectra, overwrite=force, progress=told, **filters
        )
    _tell(done, {"added": "exported"}, as_json=as_json)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="SQLite file that archreg export wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Let the file win: names move, metadata and calibrations are replaced.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would become of the models; change nothing.")
    ] = False,
    quiet: Quiet = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Bring the models of an exported file, or of any registry in a SQLite file, into this registry.

    Known weights get the names and whatever else is missing of them; importing again changes nothing, so after an
    interruption, run the same command again. The file is not trusted: every model is checked, and one that is not sound
    is left out. Exit code 3 says that some were.
    """
    with open_registry(db) as registry, _progress(quiet=quiet) as told:
        done = registry.import_from(file, replace=replace, dry_run=dry_run, progress=told)
    words = {"added": "added", "merged": "known already, and something new of them", "known": "known already"}
    _tell(done, words, as_json=as_json, would="would be: " if dry_run else "")


def _tell(done: Transfer, words: dict[str, str], *, as_json: bool, would: str = "") -> None:
    for failure in done.failed[:SHOWN]:
        report(RegistryError(failure.message, failure.remedy or None), about=failure.reference)
    if len(done.failed) > SHOWN:
        tables.hint(f"and {tables.whole(len(done.failed) - SHOWN)} more failed: see --json")
    if as_json:
        json_output.write({**json_output.plain(done), "failed": len(done.failed), "failures": done.failed})
    else:
        counts = {text: getattr(done, status) for status, text in words.items()}
        told = [f"{tables.whole(count)} {text}" for text, count in counts.items() if count]
        told += [tables.counted(done.calibrations, "calibration")] * bool(done.calibrations)
        told += [f"{tables.whole(len(done.failed))} failed"] * bool(done.failed)
        tables.say(f"{done.file}: {would}{', '.join(told) or 'no models'}")
    if done.failed:
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """What tells how many models are done: a bar on a terminal, a line now and then elsewhere."""
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
