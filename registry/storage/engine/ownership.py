"""Ownership, exclusive locks and grants of tables in Postgres."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from registry.errors import ReadOnlyError, StorageError
from registry.storage.engine.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

__all__ = ["claim", "hand_over", "share", "tables_there"]

PATIENCE = 600.0  # seconds to wait for a moment in which nobody uses the tables
PAUSE = 1.0  # seconds between two attempts, for those who came meanwhile
# Less than deadlock_timeout: whoever holds one table and waits for another is never the one that has to give way.
ATTEMPT_MS: Final = 700
CANCELLED: Final = "57014"
MODEL: Final = "models"
"""The table whose owner and privileges those of later ones are like."""

log = logging.getLogger("registry")


def tables_there(connection: Connection) -> set[str]:
    """Return the tables of this program in the current schema."""
    there = (
        "SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')"
    )
    return {str(name) for (name,) in connection.exec_driver_sql(there)} & set(metadata.tables)


def claim(connection: Connection, tables: Collection[str]) -> None:
    """Lock the tables exclusively until the end of the transaction.

    A lock that is waited for holds up all who come after it; so this waits for less than a second at a time.

    Raises
    ------
    ReadOnlyError
        They are another role's.
    StorageError
        They were in use all the time.
    """
    if not tables:
        return
    owner, ours = _owner(connection)
    if not ours:
        raise ReadOnlyError(f"the tables are the role {owner}'s, who alone may upgrade them", f"connect as {owner}")
    statement = f"LOCK TABLE {', '.join(sorted(tables))} IN ACCESS EXCLUSIVE MODE"
    end = time.monotonic() + PATIENCE
    said = False
    while not _done(connection, statement):
        if time.monotonic() > end:
            raise StorageError(
                f"the tables were in use for {PATIENCE:g} s on end",
                "pg_stat_activity shows by whom; end that, or wait, and run it again",
            )
        if not said:
            log.warning("others use the database; waiting for a moment without them")
            said = True
        time.sleep(PAUSE)


def _done(connection: Connection, statement: str) -> bool:
    """Whether a statement finished within the time of one attempt; else it is rolled back."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {ATTEMPT_MS}")
            connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELLED:
            raise
        return False
    return True


def _owner(connection: Connection) -> tuple[str, bool]:
    """Return the quoted owner of the tables, and whether this role has the owner's rights."""
    found = (
        "SELECT quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE')"
        " FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass(quote_ident(current_schema()) || '.' || %(name)s)"
    )
    owner, ours = connection.exec_driver_sql(found, {"name": MODEL}).one()
    return owner, ours


def hand_over(connection: Connection, before: Collection[str]) -> None:
    """Give new tables the owner and the grants of the existing tables."""
    if not before:
        return
    owner, _ = _owner(connection)
    for table in sorted(tables_there(connection) - set(before)):
        connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {owner}")
        _share(connection, table, like=MODEL)
        sequence = f"{table}_id_seq"
        there = "SELECT to_regclass(quote_ident(current_schema()) || '.' || %(name)s) IS NOT NULL"
        if connection.exec_driver_sql(there, {"name": sequence}).scalar():
            _share(connection, f"SEQUENCE {sequence}", like=f"{MODEL}_id_seq")


def share(connection: Connection, table: str, *, like: str) -> None:
    """Copy the grants of a table to a new table; one made by a superuser gets the owner of the others."""
    superuser = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    if connection.exec_driver_sql(superuser).scalar():
        connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {_owner(connection)[0]}")
    _share(connection, table, like=like)


def _share(connection: Connection, new: str, *, like: str) -> None:
    """Copy the grants of an existing table or sequence to a new one."""
    grants = (
        "SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
        " a.privilege_type FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS a"
        " WHERE c.oid = to_regclass(quote_ident(current_schema()) || '.' || %(name)s) AND a.grantee <> c.relowner"
        " AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE') ORDER BY 1, 2"
    )
    for role, privilege in connection.exec_driver_sql(grants, {"name": like}).all():
        connection.exec_driver_sql(f"GRANT {privilege} ON {new} TO {role}")
