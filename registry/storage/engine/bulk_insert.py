"""Bulk insertion of rows: one statement on SQLite, COPY on Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import LargeBinary

from registry.storage.engine.connections import driver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column, Connection, Table

__all__ = ["insert_rows"]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows with the same columns; O(rows), a few microseconds each.

    Raises
    ------
    DBAPIError
        The database refuses; `IntegrityError` where a key is taken.
    """
    if not rows:
        return
    columns = [table.c[name] for name in rows[0]]
    processors = [_processor(column, connection) for column in columns]
    cells = zip(*(row.values() for row in rows), strict=True)  # a column at a time, which is most of the speed
    changed = (
        column if change is None else map(change, column) for change, column in zip(processors, cells, strict=True)
    )
    values = list(zip(*changed, strict=True))
    quote = connection.dialect.identifier_preparer.quote
    into = f"{quote(table.name)} ({', '.join(quote(column.name) for column in columns)})"
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {into} VALUES ({marks})", values)  # noqa: S608 - names of the schema
    else:
        _copy(connection, f"COPY {into} FROM STDIN", values)


def _processor(column: Column[Any], connection: Connection) -> Any:
    """Conversion of a value for the driver; None for bytes."""
    if isinstance(column.type, LargeBinary):
        return None
    return column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)


def _copy(connection: Connection, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    with driver(connection) as below, below.cursor() as cursor, cursor.copy(statement) as copy:
        for row in values:
            copy.write_row(row)
