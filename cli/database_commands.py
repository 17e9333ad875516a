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
    from registry.types import OlderModels

__all__ = ["app", "check", "current", "upgrade"]

NAMED = 5  # models of an older matrix rule that are named

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
        outdated, older = registry.outdated(), registry.older()
    if as_json:
        json_output.write({"revision": revision, "outdated": outdated, "older": _named(older)})
    else:
        tables.say(f"The database is at revision {revision}.")
        _advise(outdated, older)


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
        outdated, older = (None, None) if problems else (registry.outdated(), registry.older())
    if as_json:
        json_output.write({"problems": problems, "outdated": outdated, "older": _named(older)})
    else:
        tables.say(*(map(tables.sentence, problems) if problems else ("The database is sound.",)))
        _advise(outdated, older)
    if problems:
        raise typer.Exit(StorageError.exit_code)


def _named(older: OlderModels | None) -> list[dict[str, str]] | None:
    """Name, matrix rule and location of the models of an older matrix rule."""
    if older is None:
        return None
    return [{"name": each.name, "matrix_rule": each.matrix_rule, "location": each.location} for each in older.models]


def _advise(outdated: int | None, older: OlderModels | None) -> None:
    if outdated:
        models = tables.counted(outdated, "model")
        tables.hint(f"Some answers leave out {models} of an older version. Update: archreg refingerprint")
    if older is None or not older.models:
        return
    counts = Counter(model.matrix_rule for model in older.models)
    told = ", ".join(f"{tables.counted(count, 'model')} of {rule}" for rule, count in sorted(counts.items()))
    names = ", ".join(model.name for model in older.models[:NAMED])
    more = f" and {tables.whole(len(older.models) - NAMED)} more" if len(older.models) > NAMED else ""
    tables.hint(
        f"{told}: {names}{more}. The present matrix rule is {older.rule}; models of different rules are not compared.",
        f"Measure them anew by the command that ingested them, which keeps their names and metadata: {_command(older)}",
    )


def _command(older: OlderModels) -> str:
    """A command that measures models anew: of one whose place is known, else in general."""
    known = next((model for model in older.models if model.location), None)
    if known is None:
        return "archreg ingest FILE_OR_FOLDER (archreg runs shows earlier commands)"
    key = ["--key", known.entry] if known.entry else []
    return shlex.join(["archreg", "ingest", known.location, "--name", known.name, *key])
