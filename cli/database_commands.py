"""The database itself: ``db upgrade``, ``db current``, ``db check``."""

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
    """Upgrade or check the database itself."""


@app.command(epilog="\b\nExamples:\n  archreg db upgrade\n  archreg db upgrade --db postgresql://host/models")
def upgrade(
    from_revision: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REVISION",
            help="Revision that the tables are of, where the database does not say so. It is checked before it is set.",
        ),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database to this program's schema; a database that is there already keeps what it holds."""
    with open_registry(db) as registry:
        revision = registry.upgrade(from_revision=from_revision)
        outdated = registry.outdated()
    if as_json:
        json_output.write({"revision": revision, "outdated": outdated})
    else:
        tables.say(f"the database is at {revision}")
        _advise(outdated)


@app.command(epilog="\b\nExamples:\n  archreg db current")
def current(db: Database = None, as_json: AsJson = False) -> None:
    """Show the database's schema revision."""
    with open_registry(db) as registry:
        revision = registry.current()
    if as_json:
        json_output.write({"revision": revision})
    else:
        tables.say(revision or "the database has no schema yet: archreg db upgrade")


@app.command(epilog="\b\nExamples:\n  archreg db check\n  archreg db check --json")
def check(db: Database = None, as_json: AsJson = False) -> None:
    """Look for damage: a schema that differs, rows without their model, fingerprints of the wrong length.

    Exit code 1 if there is any.
    """
    with open_registry(db) as registry:
        problems = registry.check()
        outdated = None if problems else registry.outdated()  # damage is told, whatever else cannot be read
    if as_json:
        json_output.write({"problems": problems, "outdated": outdated})
    else:
        tables.say(*(problems or ("the database is sound",)))
        _advise(outdated)
    if problems:
        raise typer.Exit(StorageError.exit_code)


def _advise(outdated: int | None) -> None:
    if outdated:
        tables.hint(
            f"some answers leave out {tables.counted(outdated, 'model')} of an older version: archreg refingerprint"
        )
