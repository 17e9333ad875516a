"""Filters as SQL conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import and_, collate, exists, false, func, or_, select

from registry.spelling import folded
from registry.storage.engine.dialects import among, listed
from registry.storage.engine.schema import architectures, metrics, models, sketches, tags
from registry.types.filters import Filter

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from registry.types.filters import Kin, MetricBound

__all__ = ["conditions", "unknown"]


def conditions(wanted: Filter, connection: Connection) -> list[ColumnElement[bool]]:
    """Return the conditions on ``models`` joined to ``architectures``; unknown values (NULL) fail a bound.

    Texts are compared without regard to case and to Unicode's composition, alike on every database: the spellings that
    are stored are read, one query a text, and compared here.
    """

    def same(column: ColumnElement[str], value: str) -> ColumnElement[bool]:
        return _spelt(column, value, connection)

    texts = (
        (architectures.c.family, wanted.family),
        (architectures.c.name, wanted.architecture),
        (models.c.task, wanted.task),
        (models.c.licence, wanted.licence),
    )
    found = [same(column, value) for column, value in texts if value]
    if wanted.dataset:
        measured = exists().where(metrics.c.model_id == models.c.id, same(metrics.c.dataset, wanted.dataset))
        found.append(same(models.c.dataset, wanted.dataset) | measured)
    numbers = (
        (models.c.parameters, wanted.min_params, wanted.max_params),
        (models.c.bytes, wanted.min_bytes, wanted.max_bytes),
        (models.c.gflops, None, wanted.max_gflops),
    )
    for column, least, most in numbers:
        found += _between(column, least, most)
    found += [_metric(bound, connection) for bound in wanted.metrics]
    found += [
        exists().where(tags.c.model_id == models.c.id, same(tags.c.key, key), same(tags.c.value, value))
        for key, value in wanted.tags
    ]
    if wanted.related_to is not None:
        found += [among(models.c.id, wanted.related_to.ids or (), connection), _drawn(wanted.related_to)]
    if wanted.unrelated_to is not None:
        found += [~among(models.c.id, wanted.unrelated_to.ids or (), connection), _drawn(wanted.unrelated_to)]
    return found


def _drawn(kin: Kin) -> ColumnElement[bool]:
    """Return the condition that a model can be compared: it has sketches of the version."""
    return exists().where(sketches.c.model_id == models.c.id, sketches.c.version == kin.version)


def unknown(wanted: Filter, connection: Connection) -> ColumnElement[bool] | None:
    """Return the condition for rows that fail the filter only because of unknown values.

    None where the filter bounds nothing that can be unknown.
    """
    unbounded = replace(wanted, max_gflops=None, metrics=(), related_to=None, unrelated_to=None)
    missing: list[ColumnElement[bool]] = []
    passing: list[ColumnElement[bool]] = []
    if wanted.max_gflops is not None:
        missing.append(models.c.gflops.is_(None))
        passing.append(models.c.gflops.is_(None) | (models.c.gflops <= wanted.max_gflops))
    for kin, alone in (
        (wanted.related_to, Filter(related_to=wanted.related_to)),
        (wanted.unrelated_to, Filter(unrelated_to=wanted.unrelated_to)),
    ):
        if kin is not None:
            missing.append(~_drawn(kin))
            passing.append(or_(~_drawn(kin), and_(*conditions(alone, connection))))
    for bound in wanted.metrics:
        measured = _metric(replace(bound, minimum=None, maximum=None), connection)
        missing.append(~measured)
        passing.append(~measured | _metric(bound, connection))
    return and_(*conditions(unbounded, connection), *passing, or_(*missing)) if missing else None


def _spelt(column: ColumnElement[str], value: str, connection: Connection) -> ColumnElement[bool]:
    """Return the condition that a text equals ``value`` when both are folded."""
    wanted = folded(value)
    # What databases fold depends on their kind and locale. ASCII letters are folded alike; the few texts with other
    # letters, some of which fold to ASCII, are folded here.
    if connection.dialect.name == "sqlite":
        lower, foreign = func.lower(column), column.op("GLOB")("*[^\x01-\x7f]*")
    else:
        lower, foreign = func.lower(collate(column, "C")), column.op("~")("[^\\x01-\\x7f]")
    known = connection.scalars(select(column).distinct().where((lower == wanted) | foreign))
    spellings = [text for text in known if folded(text) == wanted]
    return listed(column, spellings, connection) if spellings else false()


def _between(column: ColumnElement[float], least: float | None, most: float | None) -> list[ColumnElement[bool]]:
    found = []
    if least is not None:
        found.append(column >= least)
    if most is not None:
        found.append(column <= most)
    return found


def _metric(bound: MetricBound, connection: Connection) -> ColumnElement[bool]:
    wanted = [_spelt(metrics.c.name, bound.name, connection), *_between(metrics.c.value, bound.minimum, bound.maximum)]
    if bound.dataset:
        wanted.append(_spelt(metrics.c.dataset, bound.dataset, connection))
    return exists().where(metrics.c.model_id == models.c.id, *wanted)
