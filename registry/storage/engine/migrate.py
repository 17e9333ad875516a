"""Creation, upgrade and check of the schema. The only module that imports Alembic."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, inspect

from registry.errors import SchemaVersionError, StorageError, UsageError
from registry.storage.engine import inspection
from registry.storage.engine.address import Address
from registry.storage.engine.connections import guarded, make_engine, reading, writing
from registry.storage.engine.schema import metadata
from registry.storage.engine.schema_version import (
    HEAD,
    VERSION_TABLE,
    current_version,
    is_known,
    is_revision,
    require_head,
    require_own,
    require_revision,
    require_writable,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["check", "create", "drift", "is_ours", "upgrade"]


def upgrade(url: str, *, from_revision: str | None = None) -> str:
    """Bring the registry at ``url`` to this program's schema and return its version; on Postgres, make it if need be.

    All of it is one transaction: it happens, or nothing does. Several at once wait for each other, and on Postgres for
    a moment without anybody else; tables that are new belong to the owner of the others, and whoever may use those may
    use them.

    Parameters
    ----------
    url : str
        Where.
    from_revision : str, optional
        The revision that the tables are of, for a database that records none, or something else. It is recorded if
        they are, and if what the upgrade makes of them is this program's schema.

    Raises
    ------
    UsageError
        ``from_revision`` is not a revision of this program.
    DatabaseMissingError
        There is no such SQLite file; or nothing that could be of a revision.
    SchemaVersionError
        The schema is newer than this program, or not recorded as a revision, or recorded as another.
    ReadOnlyError
        The file may only be read by this user, or ships with the package, or the tables are another role's.
    StorageError
        The file is something else, or the database refused; nothing was changed.
    """
    address = Address.parse(url)
    require_own(address)
    if from_revision is not None and not is_known(from_revision):
        raise UsageError(
            f"{from_revision!r} is not a revision of this program", f"name one up to {HEAD}, such as {HEAD}"
        )
    engine = make_engine(address, "migrate")
    try:
        version = current_version(address, engine)
        if version is None:
            if address.path is not None or from_revision is not None:
                require_head(address, version)
        elif is_revision(version):
            if version > HEAD:
                require_head(address, version)
            if from_revision not in (None, version):
                raise SchemaVersionError(
                    f"{address.label} has schema {version}, not {from_revision}", address.command("db upgrade")
                )
        elif from_revision is None:
            require_revision(address, version)
        else:
            _require_tables(address, from_revision)
        if version != HEAD:
            require_writable(address)
            _run(address, engine, from_revision)
    finally:
        engine.dispose()
    return HEAD


def _require_tables(address: Address, revision: str) -> None:
    """Raise an error unless the tables are those of a revision. The tables are only read."""
    engine = make_engine(address, "read")
    try:
        with guarded(address), reading(engine) as connection:
            found = _columns(connection)
    finally:
        engine.dispose()
    fitting = [other for other, columns in _columns_by_revision().items() if columns == found]
    if revision in fitting:
        return
    if fitting:
        raise SchemaVersionError(
            f"the tables of {address.label} are those of {fitting[0]}, not of {revision}",
            address.command(f"db upgrade --from {fitting[0]}"),
        )
    raise SchemaVersionError(
        f"the tables of {address.label} are those of no schema that this program knows",
        "restore it from a copy, or name another database; this one is not touched",
    )


def _columns(connection: Connection) -> dict[str, set[str]]:
    """Return the present tables of this program with their column names."""
    inspector = inspect(connection)
    tables = set(inspector.get_table_names()) & set(metadata.tables)
    return {table: {column["name"] for column in inspector.get_columns(table)} for table in tables}


@cache
def _columns_by_revision() -> dict[str, dict[str, set[str]]]:
    """Return the result of `_columns` for a database at each revision, the newest first."""
    known = [script.revision for script in ScriptDirectory(str(_revisions())).walk_revisions()]
    found = {}
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            for revision in reversed(known):
                command.upgrade(_config(connection), revision)
                found[revision] = _columns(connection)
    finally:
        engine.dispose()
    return dict(reversed(found.items()))


def create(address: Address) -> None:
    """Create an empty registry, unless a concurrent process creates it first.

    A SQLite file appears whole under its name or not at all.
    """
    if address.path is None:
        engine = make_engine(address, "migrate")
        try:
            _run(address, engine)
        finally:
            engine.dispose()
        return
    folder = address.path.absolute().parent
    if not folder.is_dir():
        raise StorageError(f"the folder {folder} does not exist", f"mkdir -p {folder}")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{address.path.name}-", dir=folder) as draft:
            _publish(address, Path(draft) / address.path.name)
    except OSError as error:
        raise StorageError(
            f"{address.label} cannot be created: {error.strerror}",
            "name a folder that may be written, on a file system with hard links",
        ) from error


def _publish(address: Address, draft: Path) -> None:
    draft.touch()
    engine = make_engine(Address(address.label, address.url, draft), "migrate")
    try:
        _run(address, engine)
    finally:
        engine.dispose()  # closing the last connection moves the log into the file
    try:
        os.link(draft, address.path or "")
    except FileExistsError:
        return  # made meanwhile; opening it will tell what it is


def check(url: str) -> tuple[str, ...]:
    """Check for damage, schema differences and contradicting rows.

    Returns
    -------
    tuple of str
        What is wrong, in words; empty where nothing is.

    Raises
    ------
    DatabaseMissingError, SchemaVersionError, StorageError
        As opening it would.
    """
    address = Address.parse(url)
    engine = make_engine(address, "read")
    try:
        require_head(address, current_version(address, engine))
        with guarded(address), reading(engine) as connection:
            return (
                *inspection.damage(connection),
                *(f"schema: {change}" for change in drift(connection)),
                *inspection.contradictions(connection),
            )
    finally:
        engine.dispose()


def drift(connection: Connection) -> list[str]:
    """Return the differences between the tables and `registry.storage.engine.schema`, as Alembic reports them."""
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "include_name": is_ours, "version_table": VERSION_TABLE}
    )
    return [_worded(change) for change in compare_metadata(context, metadata)]


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether a reflected name belongs to this program; a Postgres schema may contain other tables."""
    return kind != "table" or name in metadata.tables


def _worded(change: Any) -> str:
    if isinstance(change, list):  # changes to one column come together
        return "; ".join(_worded(part) for part in change)
    return " ".join(str(part) for part in change if part is not None)


def _revisions() -> Path:
    # This package's own, never those of another installation: below it in a wheel, beside it in a checkout.
    package = Path(__file__).parents[2]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_revisions()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _run(address: Address, engine: Engine, from_revision: str | None = None) -> None:
    try:
        with guarded(address, writing=True), writing(engine) as connection:
            config = _config(connection)
            config.attributes["from_revision"] = from_revision
            command.upgrade(config, "head")
            if from_revision is not None and (changes := drift(connection)):
                raise SchemaVersionError(
                    f"the tables of {address.label} are not quite those of {from_revision}: {changes[0]}",
                    "restore it from a copy; nothing was changed",
                )
    except CommandError as error:
        raise StorageError(f"{address.label} could not be upgraded: {error}", "restore it from a copy") from error
