"""Filters as SQL conditions, and lists of ids of any length."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Integer, Text, and_, any_, bindparam, exists, func, or_, select

from registry.storage.engine.schema import architectures, metrics, models, tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from registry.types.filters import Filter, MetricBound

__all__ = ["among", "conditions", "filtered", "listed", "unknown"]


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


def conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions on ``models`` joined to ``architectures``; unknown values (NULL) fail a bound."""
    texts = (
        (architectures.c.family, wanted.family),
        (architectures.c.name, wanted.architecture),
        (models.c.task, wanted.task),
        (models.c.licence, wanted.licence),
    )
    found = [_same(column, value) for column, value in texts if value]
    if wanted.dataset:
        measured = exists().where(metrics.c.model_id == models.c.id, _same(metrics.c.dataset, wanted.dataset))
        found.append(_same(models.c.dataset, wanted.dataset) | measured)
    numbers = (
        (models.c.parameters, wanted.min_params, wanted.max_params),
        (models.c.bytes, wanted.min_bytes, wanted.max_bytes),
        (models.c.gflops, None, wanted.max_gflops),
    )
    for column, least, most in numbers:
        found += _between(column, least, most)
    found += [_metric(bound) for bound in wanted.metrics]
    found += [
        exists().where(tags.c.model_id == models.c.id, _same(tags.c.key, key), _same(tags.c.value, value))
        for key, value in wanted.tags
    ]
    return found


def filtered(columns: Select[Any], wanted: Filter | None) -> Select[Any]:
    """Return a statement of ``models`` joined to ``architectures`` with the rows that match a filter."""
    statement = columns.join(architectures)
    return statement.where(*conditions(wanted)) if wanted is not None else statement


def unknown(wanted: Filter) -> ColumnElement[bool] | None:
    """Return the condition for rows that fail the filter only because of unknown values.

    None where the filter bounds nothing that can be unknown.
    """
    unbounded = replace(wanted, max_gflops=None, metrics=())
    missing: list[ColumnElement[bool]] = []
    passing: list[ColumnElement[bool]] = []
    if wanted.max_gflops is not None:
        missing.append(models.c.gflops.is_(None))
        passing.append(models.c.gflops.is_(None) | (models.c.gflops <= wanted.max_gflops))
    for bound in wanted.metrics:
        measured = _metric(replace(bound, minimum=None, maximum=None))
        missing.append(~measured)
        passing.append(~measured | _metric(bound))
    return and_(*conditions(unbounded), *passing, or_(*missing)) if missing else None


def _same(column: ColumnElement[str], value: str) -> ColumnElement[bool]:
    # Folded by the database on both sides: SQLite folds ASCII alone, and so never takes equal texts for different.
    return func.lower(column) == func.lower(value)


def _between(column: ColumnElement[float], least: float | None, most: float | None) -> list[ColumnElement[bool]]:
    found = []
    if least is not None:
        found.append(column >= least)
    if most is not None:
        found.append(column <= most)
    return found


def _metric(bound: MetricBound) -> ColumnElement[bool]:
    wanted = [_same(metrics.c.name, bound.name), *_between(metrics.c.value, bound.minimum, bound.maximum)]
    if bound.dataset:
        wanted.append(_same(metrics.c.dataset, bound.dataset))
    return exists().where(metrics.c.model_id == models.c.id, *wanted)
