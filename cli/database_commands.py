"""Commands on the database: ``db upgrade``, ``db current``, ``db check``."""

from __future__ import annotations

from typing import Annotated

import typer

from registry.cli import json_output, tables
from registry.cli.options import AsJson, Database, open_registry
from registry.errors import StorageError

__all__ = ["app", "check", "current", "upgrade"]

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
        outdated = registry.outdated()
    if as_json:
        json_output.write({"revision": revision, "outdated": outdated})
    else:
        tables.say(f"The database is at revision {revision}.")
        _advise(outdated)


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
    found.
    """
    with open_registry(db) as registry:
        problems = registry.check()
        outdated = None if problems else registry.outdated()  # damage is reported, even if other things cannot be read
    if as_json:
        json_output.write({"problems": problems, "outdated": outdated})
    else:
        tables.say(*(map(tables.sentence, problems) if problems else ("The database is sound.",)))
        _advise(outdated)
    if problems:
        raise typer.Exit(StorageError.exit_code)


def _advise(outdated: int | None) -> None:
    if outdated:
        models = tables.counted(outdated, "model")
        tables.hint(f"Some answers leave out {models} of an older version. Update: archreg refingerprint")
