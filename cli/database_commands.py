"""Commands on the database: ``db upgrade``, ``db current``, ``db check``."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli import json_output, tables
from registry.cli.options import AsJson, Database, open_registry
from registry.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelSummary, OlderModels

__all__ = ["app", "check", "current", "upgrade"]

NAMED = 5  # models that are named

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _database() -> None:
    """Upgrade or check the database."""


@app.command(epilog="\b\nExamples:\n  archreg db upgrade\n  archreg db upgrade --db postgresql://host/models")
def upgrade(
    from_revision: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REVISION",
            help="Revision of the tables, if the database does not record it. It is checked before it is set.",
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Upgrade the schema to this version.

    An existing database keeps its contents.
    """
    with open_registry(db) as registry:
        revision = registry.upgrade(from_revision=from_revision)
        outdated, older, again = registry.outdated(), registry.older(), registry.to_read_again()
    if as_json:
        answer = {"revision": revision, "outdated": outdated, "older": _named(older.models)}
        json_output.write(answer | {"read_again": _named(again)})
    else:
        tables.say(f"The database is at revision {revision}.")
        _advise(outdated, older, again)


@app.command(epilog="\b\nExamples:\n  archreg db current")
def current(db: Database = None, as_json: AsJson = False) -> None:
    """Show the schema revision."""
    with open_registry(db) as registry:
        revision = registry.current()
    if as_json:
        json_output.write({"revision": revision})
    else:
        none = "There is no registry yet. Create it: archreg ingest REF, or on Postgres: archreg db upgrade"
        tables.say(revision or none)


@app.command(epilog="\b\nExamples:\n  archreg db check\n  archreg db check --json")
def check(db: Database = None, as_json: AsJson = False) -> None:
    """Check the database for damage.

    It reports a schema that differs, rows without a model and fingerprints of the wrong length. Exit code 1 if any is
    found. It lists models of an older matrix rule, which are sound, but are compared with no others, and the commands
    that measure them anew.
    """
    with open_registry(db) as registry:
        problems = registry.check()
        # Damage is reported, even if other things cannot be read.
        outdated, older, again = (
            (None, None, None) if problems else (registry.outdated(), registry.older(), registry.to_read_again())
        )
    if as_json:
        answer = {"problems": problems, "outdated": outdated, "older": None if older is None else _named(older.models)}
        json_output.write(answer | {"read_again": None if again is None else _named(again)})
    else:
        tables.say(*(map(tables.sentence, problems) if problems else ("The database is sound.",)))
        _advise(outdated, older, again)
    if problems:
        raise typer.Exit(StorageError.exit_code)


def _named(models: Sequence[ModelSummary]) -> list[dict[str, str]]:
    """Name, matrix rule and location of models."""
    return [{"name": each.name, "matrix_rule": each.matrix_rule, "location": each.location} for each in models]


def _advise(outdated: int | None, older: OlderModels | None, again: Sequence[ModelSummary] | None) -> None:
    if outdated:
        models = tables.counted(outdated, "model")
        tables.hint(f"Some answers leave out {models} of an older version. Update: archreg refingerprint")
    if again:
        tables.hint(
            f"Relations are unknown, and training classes by spectra alone, of {tables.counted(len(again), 'model')}: "
            f"{_some(again)}.",
            f"Read their weights again, by the command that ingested them: {_command(again)}",
        )
    if older is None or not older.models:
        return
    counts = Counter(model.matrix_rule for model in older.models)
    told = ", ".join(f"{tables.counted(count, 'model')} of {rule}" for rule, count in sorted(counts.items()))
    tables.hint(
        f"{told}: {_some(older.models)}. The present matrix rule is {older.rule}; models of different rules are not "
        "compared.",
        "Measure them anew by the command that ingested them, which keeps their names and metadata: "
        f"{_command(older.models)}",
    )


def _some(models: Sequence[ModelSummary]) -> str:
    names = ", ".join(model.name for model in models[:NAMED])
    return names + (f" and {tables.whole(len(models) - NAMED)} more" if len(models) > NAMED else "")


def _command(models: Sequence[ModelSummary]) -> str:
    """A command that measures models anew: of one whose place is known, else in general."""
    known = next((model for model in models if model.location), None)
    if known is None:
        return "archreg ingest FILE_OR_FOLDER (archreg runs shows earlier commands)"
    key = ["--key", known.entry] if known.entry else []
    return shlex.join(["archreg", "ingest", known.location, "--name", known.name, *key])
