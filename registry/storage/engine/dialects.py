"""What SQLite and Postgres are told in different words: times, insertions, and lists of any length in conditions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, DateTime, Integer, LargeBinary, Text, TypeDecorator, any_, bindparam, func, select

from registry.storage.engine.connections import driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, Dialect, Table

__all__ = ["UtcDateTime", "among", "insert_missing", "insert_rows", "listed"]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC: ``timestamptz`` on Postgres, naive text in UTC on SQLite, which has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to UTC; SQLite stores no zone."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def among(column: ColumnElement[int], ids: Sequence[int], connection: Connection) -> ColumnElement[bool]:
    """Return ``column IN ids`` as one parameter, because SQLite limits parameters to about 32,000."""
    values = [int(id_) for id_ in ids]
    if connection.dialect.name == "sqlite":
        each = func.json_each(json.dumps(values)).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(bindparam(None, values, type_=ARRAY(Integer)))


def listed(column: ColumnElement[str], texts: Iterable[str], connection: Connection) -> ColumnElement[bool]:
    """Return ``column IN texts`` as one parameter, for the same reason."""
    values = list(texts)
    if connection.dialect.name == "sqlite":
        each = func.json_each(json.dumps(values)).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(bindparam(None, values, type_=ARRAY(Text)))


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows with the same columns, by one statement on SQLite, by COPY on Postgres; a few microseconds each.

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


def insert_missing(connection: Connection, table: Table, values: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """Insert rows whose unique keys do not exist, also under concurrent writers."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), values)
    else:
        from sqlalchemy.dialects import postgresql

        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), values)
