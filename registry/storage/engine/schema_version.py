"""Which schema a database has, by plain SQL: opening for a look-up must not wait for Alembic to be imported."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from registry.errors import DatabaseMissingError, ReadOnlyError, SchemaVersionError, StorageError
from registry.storage.engine.address import Address
from registry.storage.engine.connections import is_frozen, make_engine, reading, sqlite_uri
from registry.storage.engine.failures import guarded

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "current_version",
    "require_head",
    "require_writable",
    "schema_version",
    "version_at",
]

VERSION_TABLE: Final = "archreg_version"
HEAD: Final = "v0003"
"""The revision that this program reads and writes. Revisions are ``vNNNN``: in order of text, in order of time."""

_ELSEWHERE: Final = {"f": "foreign table", "v": "view", "m": "materialized view"}
_MAGIC: Final = b"SQLite format 3\0"


def require_head(address: Address, version: str | None) -> None:
    """Refuse any schema but this program's.

    Raises
    ------
    DatabaseMissingError
        There is none.
    SchemaVersionError
        It is older, and the remedy is the command that upgrades it; or newer.
    """
    if version is None:
        raise DatabaseMissingError(
            f"{address.label} holds no registry yet",
            f"fill one with models to choose from: {address.command('ingest FILE_OR_FOLDER')}",
        )
    if version < HEAD:
        raise SchemaVersionError(
            f"{address.label} has schema {version or 'none'}, this program needs {HEAD}", address.command("db upgrade")
        )
    if version > HEAD:
        raise SchemaVersionError(
            f"{address.label} has schema {version}, newer than this program's {HEAD}",
            "pip install --upgrade architecture-registry",
        )


def require_writable(address: Address) -> None:
    """Refuse to write a file that this user may not: to try would leave a log beside it that locks its owner out.

    Raises
    ------
    ReadOnlyError
        The file or its folder may not be written.
    """
    if address.path is not None and is_frozen(address.path):
        raise ReadOnlyError(
            f"{address.label} may only be read by this user",
            "make the file and its folder writable, or write to a copy",
        )


def current_version(address: Address, engine: Engine) -> str | None:
    """Return the schema's version, None where there is no registry, the empty string where the version is lost.

    Raises
    ------
    StorageError
        The database cannot be reached, or the file is something else. Such a file is not touched. Or what the schema
        has are views of another.
    """
    if address.path is not None:
        return _sqlite_version(address, address.path)
    with guarded(address), reading(engine) as connection:
        return schema_version(connection)


def version_at(url: str) -> str | None:
    """Return the schema's version at ``url``; None where there is no registry yet."""
    address = Address.parse(url)
    engine = make_engine(address, "read")
    try:
        return current_version(address, engine)
    finally:
        engine.dispose()


def schema_version(connection: Connection) -> str | None:
    """Return what `current_version` does, over a connection; on Postgres in the schema in use, and in no other."""
    if connection.dialect.name == "sqlite":
        found = connection.scalar(
            text("SELECT count(*) FROM sqlite_master WHERE name = :name"), {"name": VERSION_TABLE}
        )
    else:
        found = connection.scalar(
            text(
                "SELECT c.relkind::text FROM pg_catalog.pg_class AS c"
                " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = current_schema() AND c.relname = :name"
            ),
            {"name": VERSION_TABLE},
        )
    if not found:
        if connection.dialect.name != "sqlite":
            _refuse_hidden(connection)
        return None
    if found in _ELSEWHERE:
        raise StorageError(
            f"{VERSION_TABLE} of this schema is a {_ELSEWHERE[found]}: the registry that it shows is elsewhere",
            "connect to where it is, or give this one a schema of its own by search_path",
        )
    return connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) or ""  # noqa: S608 - a constant


def _refuse_hidden(connection: Connection) -> None:
    """Raise ``StorageError`` where nothing is found since this role may not look, or where there is no schema."""
    schema, hidden, role = connection.execute(
        text(
            "SELECT current_schema(), (SELECT min(quote_ident(n.nspname)) FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relname = :name AND NOT has_schema_privilege(n.oid, 'USAGE') AND n.nspname::text = ANY("
            "regexp_split_to_array(replace(current_setting('search_path'), '\"', ''), ' *, *')"
            ")), quote_ident(current_user)"
        ),
        {"name": VERSION_TABLE},
    ).one()
    if hidden is not None:
        raise StorageError(
            f"the schema {hidden} has a registry, and this role may not use the schema",
            f"ask its owner for: GRANT USAGE ON SCHEMA {hidden} TO {role}",
        )
    if schema is None:
        raise StorageError(
            "no schema has been selected: search_path names none that is there",
            "create the schema that search_path names, or set another search_path",
        )


def _sqlite_version(address: Address, path: Path) -> str | None:
    """Look at the file as a stranger: whatever it is, it stays as it is."""
    if path.is_dir():
        raise StorageError(f"{address.label} is a folder", "name a file in it")
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{address.label} cannot be read: {error.strerror}", "check its permissions") from error
    if not start:
        raise StorageError(f"{address.label} is an empty file", "remove it, or name another")
    if start != _MAGIC:
        raise StorageError(f"{address.label} is not a SQLite database", "name another file")
    database, query = sqlite_uri(path, frozen=True)
    uri = f"{database}?" + "&".join(f"{key}={value}" for key, value in query.items() if key != "uri")
    with guarded(address), closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if VERSION_TABLE not in tables:
            raise StorageError(
                f"{address.label} is a SQLite database of something else", "name another file; this one is not touched"
            )
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 - a constant
    return row[0] if row else ""
