"""Engines and transactions for concurrent processes on SQLite and Postgres, and the drivers below them."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from registry.storage.engine.failures import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from registry.storage.engine.address import Address

__all__ = [
    "Access",
    "address_of",
    "driver",
    "guarded",
    "is_frozen",
    "make_engine",
    "reading",
    "sqlite_uri",
    "writing",
]

Access = Literal["read", "write", "migrate"]
BUSY_SECONDS = 30
# A peer that is gone without a word is noticed after two minutes or so; the system would wait two hours, or for ever.
LIVELINESS = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6, "tcp_user_timeout": 120_000}

# Of many rows of which one is refused, psycopg logs that the rest was not sent. The refusal itself is raised, and met;
# where nobody has set logging up, Python would print the rest.
logging.getLogger("psycopg").addHandler(logging.NullHandler())
# Of a connection that an interrupt has left in a transaction, the pool logs that it could not be reset, and closes it.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def make_engine(address: Address, access: Access) -> Engine:
    """Return an engine for ``address``, without connecting.

    ``read`` cannot write; ``migrate`` leaves SQLite's foreign keys off: a batch's table copy must delete no children.
    """
    engine = (
        _postgres_engine(address, access) if address.path is None else _sqlite_engine(address, address.path, access)
    )
    engine.update_execution_options(archreg_address=address)
    return engine


def address_of(connection: Connection) -> Address:
    """Address of the database of a connection, for commands in errors."""
    found: Address = connection.get_execution_options()["archreg_address"]
    return found


def is_frozen(path: Path) -> bool:
    """Whether this process may not write ``path`` or its folder, which SQLite's log needs even for reading."""
    return not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def sqlite_uri(path: Path, *, frozen: bool, shipped: bool = False) -> tuple[str, dict[str, str]]:
    """Return file and query of a URI that opens ``path`` without creating it.

    A frozen file without a live log can only be read as immutable: there is no shared memory to lock it in. Somebody
    else who may write could change it meanwhile; so it is done for no other file but one that ships, whoever may
    write it.
    """
    query = {"uri": "true", "mode": "ro" if frozen or shipped else "rw"}
    log = path.parent / f"{path.name}-wal"  # the root has no name to replace
    if shipped or (frozen and not (log.exists() and log.stat().st_size)):
        query["immutable"] = "1"
    return f"file:{quote(str(path.absolute()))}", query


def _sqlite_engine(address: Address, path: Path, access: Access) -> Engine:
    # A reader that may write opens the file as a writer does, and then forswears it: opened read-only, SQLite would
    # leave its log and shared memory behind.
    frozen = access == "read" and not address.shipped and is_frozen(path)
    database, query = sqlite_uri(path, frozen=frozen, shipped=address.shipped)
    engine = create_engine(
        URL.create("sqlite", database=database, query=query),
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        poolclass=NullPool if access == "migrate" else QueuePool,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions itself, too late and always deferred.
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute(f"PRAGMA foreign_keys={'OFF' if access == 'migrate' else 'ON'}")
        if access == "read":
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads, then writes, fails at once if another has written, whatever the timeout.
        writes = access == "migrate" or connection.get_execution_options().get("archreg_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(address: Address, access: Access) -> Engine:
    arguments: dict[str, Any] = {"prepare_threshold": None, "autocommit": True}
    arguments |= {name: value for name, value in LIVELINESS.items() if name not in address.url.query}
    if not ("connect_timeout" in address.url.query or "PGCONNECT_TIMEOUT" in os.environ):
        arguments["connect_timeout"] = 10
    options: dict[str, Any] = {"poolclass": NullPool} if access == "migrate" else {"pool_size": 1, "max_overflow": 4}
    engine = create_engine(
        address.url, connect_args=arguments, hide_parameters=True, use_native_hstore=False, **options
    )

    @event.listens_for(engine, "connect")
    def allow_prepared(connection: Any, _record: object) -> None:
        # Poolers that change the server connection between transactions lose what is prepared on it. They answer for
        # the server with a process number of their own, made up.
        [(process,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
        if process == connection.info.backend_pid:
            connection.prepare_threshold = sys.maxsize  # what asks for it, and no other statement

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver would have its own options set, and reset, every time that a connection leaves the pool.
        reads = connection.get_execution_options().get("archreg_read", False)
        with driver(connection) as below:
            below.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if reads else "BEGIN")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a read-only transaction with one snapshot of the database."""
    with _begun(engine, archreg_read=True) as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that is committed at the end, or rolled back on an error."""
    with _begun(engine, archreg_write=True) as connection:
        yield connection


@contextmanager
def _begun(engine: Engine, **options: bool) -> Iterator[Connection]:
    """Begin a transaction. A lost connection fails here and is replaced.

    The pool holds one at most: the second is new. So none is asked whether it is alive, which is a round trip.
    """
    for last in (False, True):
        with engine.connect().execution_options(**options) as connection:
            try:
                transaction = connection.begin()
            except DBAPIError as error:
                if last or not error.connection_invalidated:
                    raise
                continue
            with transaction:
                yield connection
            return


@contextmanager
def guarded(address: Address, *, writing: bool = False) -> Iterator[None]:
    """Convert errors of SQLAlchemy and drivers to `StorageError` or `ReadOnlyError`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise wrapped(error, address, writing=writing) from error


@contextmanager
def driver(connection: Connection) -> Iterator[Any]:
    """Yield the driver's connection; its errors are raised as SQLAlchemy errors."""
    below: Any = connection.connection.driver_connection
    base = connection.dialect.loaded_dbapi.Error
    try:
        yield below
    except base as error:
        lost = connection.dialect.is_disconnect(error, below, None)
        if lost:
            connection.invalidate(error)
        raise DBAPIError.instance(None, None, error, base, connection_invalidated=lost) from error
