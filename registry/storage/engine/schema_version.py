"""Schema version of a database, read with plain SQL, so that searches need not import Alembic."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from registry.errors import DatabaseMissingError, ReadOnlyError, SchemaVersionError, StorageError
from registry.shipped import REINSTALL
from registry.storage.engine.address import Address
from registry.storage.engine.connections import guarded, is_frozen, make_engine, reading, sqlite_uri

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "current_version",
    "is_known",
    "is_revision",
    "recorded_in",
    "require_head",
    "require_own",
    "require_revision",
    "require_writable",
    "schema_version",
    "set_version",
    "version_at",
]

VERSION_TABLE: Final = "archreg_version"
HEAD: Final = "v0006"
"""The revision that this program reads and writes. Revisions are ``v0001``, ``v0002``, ...: without a gap, in order."""

_FIRST: Final = "v0001"
_REVISION: Final = re.compile(r"v[0-9]{4}")
_SHOWN: Final = 40  # characters of a recorded revision that are read: one is of five, a cell may hold megabytes
_ELSEWHERE: Final = {"f": "foreign table", "v": "view", "m": "materialized view"}
_MAGIC: Final = b"SQLite format 3\0"
_SQLITE_ROWS: Final = (
    f"SELECT typeof(version_num), hex(substr(CAST(version_num AS BLOB), 1, {_SHOWN}))"  # noqa: S608 - constants
    f" FROM {VERSION_TABLE} ORDER BY 2 LIMIT 2"
)


def is_known(version: str) -> bool:
    """Whether this program has a revision with that name."""
    return is_revision(version) and version <= HEAD


def is_revision(version: str) -> bool:
    """Whether the text is a revision of this program or of a newer version."""
    return _REVISION.fullmatch(version) is not None and version >= _FIRST


def require_head(address: Address, version: str | None) -> None:
    """Raise an error unless the schema is that of this version.

    Raises
    ------
    DatabaseMissingError
        There is none.
    SchemaVersionError
        It is older, and the remedy is the command that upgrades it; or newer; or not known. One that ships is of
        another installation then.
    """
    if version is None:
        raise DatabaseMissingError(
            f"{address.label} holds no registry yet",
            f"fill one with models to choose from: {address.command('ingest FILE_OR_FOLDER')}; or ask about published "
            "ones: --db published:",
        )
    if address.shipped and version != HEAD:
        raise SchemaVersionError(
            f"{address.label} has schema {version}, this program needs {HEAD}",
            f"{REINSTALL}; in a checkout: make {address.label.removesuffix(':')}",
        )
    require_revision(address, version)
    if version < HEAD:
        raise SchemaVersionError(
            f"{address.label} has schema {version}, this program needs {HEAD}", address.command("db upgrade")
        )
    if version > HEAD:
        raise SchemaVersionError(
            f"{address.label} has schema {version}, newer than this program's {HEAD}",
            "pip install --upgrade architecture-registry",
        )


def require_revision(address: Address, version: str, remedy: str = "") -> None:
    """Raise an error unless the text is a revision of this program, older or newer.

    Parameters
    ----------
    address : Address
        Where.
    version : str
        As it is recorded.
    remedy : str
        The command that sets the revision; by default there.

    Raises
    ------
    SchemaVersionError
        The remedy is that command, which does so only where the tables are those of a revision.
    """
    if is_revision(version):
        return
    if version:
        message = f"{address.label} has schema {version!r}, which is not a revision of this program"
    else:
        message = f"{address.label} does not say which schema it has: {VERSION_TABLE} is empty"
    raise SchemaVersionError(
        message,
        f"if it is a registry: {remedy or address.command(f'db upgrade --from {HEAD}')}"
        " (its tables are checked first); otherwise name another database",
    )


def require_own(address: Address) -> None:
    """Raise ``ReadOnlyError`` if the registry ships with the package: it is never written, whoever may do so."""
    if address.shipped:
        raise ReadOnlyError(
            f"{address.label} ships with the package and is read-only",
            "name a database of your own: --db FILE, or ARCHREG_DB",
        )


def require_writable(address: Address) -> None:
    """Raise an error if this user may not write the file; trying would leave a log that locks its owner out.

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
    """Return the recorded schema version, None if there is no registry.

    It may be anything: see `require_revision`. The empty string stands for no row, a list with commas for several.

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
    """Return the schema version at ``url``, None if there is no registry.

    Raises
    ------
    SchemaVersionError
        What is recorded is no revision.
    StorageError
        As for `current_version`.
    """
    address = Address.parse(url)
    engine = make_engine(address, "read")
    try:
        version = current_version(address, engine)
    finally:
        engine.dispose()
    if version is not None:
        require_revision(address, version)
    return version


def schema_version(connection: Connection) -> str | None:
    """Return the schema version over a connection; on Postgres, of the current schema only."""
    if connection.dialect.name == "sqlite":
        found = connection.scalar(
            text("SELECT count(*) FROM sqlite_master WHERE name = :name"), {"name": VERSION_TABLE}
        )
    else:
        found = connection.scalar(
            text(
                "SELECT CASE WHEN c.relkind IN ('f', 'v', 'm') OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a"
                " WHERE a.attrelid = c.oid AND a.attname = 'version_num') THEN c.relkind::text ELSE 'other' END"
                " FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
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
    if found == "other":
        raise StorageError(
            f"the table {VERSION_TABLE} of this schema is something else's",
            "give the registry a schema of its own by search_path",
        )
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(_SQLITE_ROWS).all()
        return _joined(_sqlite_cell(kind, data) for kind, data in rows)
    rows = connection.exec_driver_sql(
        f"SELECT left(version_num::text, {_SHOWN}) FROM {VERSION_TABLE} ORDER BY 1 LIMIT 2"  # noqa: S608 - constants
    ).all()
    return _joined("NULL" if cell is None else cell for (cell,) in rows)


def set_version(connection: Connection, version: str) -> None:
    """Replace the recorded version by ``version``."""
    connection.exec_driver_sql(f"DELETE FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (:version)"), {"version": version})  # noqa: S608


def recorded_in(connection: sqlite3.Connection) -> str:
    """Return the recorded version of a SQLite file, over a driver connection."""
    return _joined(_sqlite_cell(kind, data) for kind, data in connection.execute(_SQLITE_ROWS))


def _sqlite_cell(kind: str, data: str) -> str:
    """Text of a cell. SQLite stores values of any type in any column, and text that is not UTF-8."""
    if kind == "null":
        return "NULL"
    return f"X'{data}'" if kind == "blob" else bytes.fromhex(data).decode("utf-8", "replace")


def _joined(cells: Iterable[str]) -> str:
    return ", ".join(cells)


def _refuse_hidden(connection: Connection) -> None:
    """Raise ``StorageError`` if this role may not read the schema, or there is no schema."""
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
    """Return the version of a SQLite file without changing it, whatever the file is."""
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
    database, query = sqlite_uri(path, frozen=True, shipped=address.shipped)
    uri = f"{database}?" + "&".join(f"{key}={value}" for key, value in query.items() if key != "uri")
    with guarded(address), closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if VERSION_TABLE not in tables:
            raise StorageError(
                f"{address.label} is a SQLite database of something else", "name another file; this one is not touched"
            )
        if not connection.execute(
            "SELECT 1 FROM pragma_table_info(?) WHERE name = 'version_num'", [VERSION_TABLE]
        ).fetchall():
            raise StorageError(
                f"{address.label} has a table {VERSION_TABLE} of something else",
                "name another file; this one is not touched",
            )
        return recorded_in(connection)
