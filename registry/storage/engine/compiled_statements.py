"""`Compiled`: a frequent statement, compiled once and run with the driver's cursor.

To run a statement and to hand out its rows takes SQLAlchemy as long as it takes a database to answer by a key, and a
server as long again to plan it: Postgres keeps it prepared, where `registry.storage.engine.connections` lets it.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.storage.engine.connections import driver
from registry.storage.engine.dialects import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, SelectBase

__all__ = ["Compiled"]


class _Text(NamedTuple):
    """Statement text for a driver, names of positional parameters, and converters of time columns."""

    words: str
    places: Sequence[str] | None
    times: Mapping[int, Callable[[Any], Any]]


class Compiled:
    """A statement whose parameters and columns need no conversion, except times."""

    def __init__(self, statement: SelectBase) -> None:
        self._statement = statement
        self._texts: dict[str, _Text] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the statement with these values; return its rows, with times in UTC."""
        dialect = connection.dialect
        if dialect.name not in self._texts:
            self._texts[dialect.name] = self._text(dialect)
        words, places, times = self._texts[dialect.name]
        with driver(connection) as below:
            if places is not None:
                with closing(below.cursor()) as cursor:
                    found = cursor.execute(words, list(map(values.__getitem__, places))).fetchall()
            else:
                with below.cursor(binary=True) as cursor:  # bytes and numbers as they are, not as digits
                    found = cursor.execute(words, values, prepare=True).fetchall()
        return [_timed(row, times) for row in found] if times else list(found)

    def first(self, connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run the statement with these values; return its first row, or None."""
        found = self.rows(connection, values)
        return found[0] if found else None

    def _text(self, dialect: Dialect) -> _Text:
        compiled = self._statement.compile(dialect=dialect)
        times = {}
        for at, column in enumerate(self._statement.selected_columns):
            if isinstance(column.type, UtcDateTime):
                convert = column.type.dialect_impl(dialect).result_processor(dialect, None)
                if convert is not None:
                    times[at] = convert
        return _Text(str(compiled), compiled.positiontup, times)


def _timed(row: tuple[Any, ...], times: Mapping[int, Callable[[Any], Any]]) -> tuple[Any, ...]:
    values = list(row)
    for at, convert in times.items():
        values[at] = convert(values[at])
    return tuple(values)
