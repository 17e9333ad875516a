"""Bulk queries of sizes, metrics and texts of many models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from registry.spelling import near_spellings
from registry.storage.engine.schema import architectures, layers, metrics, models
from registry.storage.models.filter_sql import conditions
from registry.storage.models.model_queries import near_known
from registry.storage.models.records import ScoredModel, Size
from registry.types.weights import HEADER_PREFIX, Metric

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from registry.types.filters import Filter

__all__ = ["near_texts", "read_metrics", "read_scales", "read_scored", "read_sizes"]

TEXTS = {
    "family": architectures.c.family,
    "architecture": architectures.c.name,
    "task": models.c.task,
    "dataset": models.c.dataset,
    "licence": models.c.licence,
}
MEASURED: Final = select(metrics.c.dataset).where(metrics.c.dataset != "")
"""Where a model is of a data set, too."""


def read_sizes(connection: Connection, wanted: Filter) -> list[Size]:
    """Return the sizes of the models that match a filter, by id."""
    columns = select(models.c.id, models.c.parameters, models.c.bytes, models.c.gflops).select_from(models)
    statement = columns.join(architectures).where(*conditions(wanted, connection)).order_by(models.c.id)
    return [Size(*row) for row in connection.execute(statement)]


def read_metrics(connection: Connection, wanted: Filter) -> list[tuple[int, Metric]]:
    """Return the metrics of the models that match a filter, by id, name, dataset and split."""
    figure = metrics.c
    columns = (figure.name, figure.value, figure.dataset, figure.split, figure.higher_is_better)
    # Within: a filter looks at metrics, too.
    passing = select(models.c.id).select_from(models).join(architectures).where(*conditions(wanted, connection))
    statement = select(figure.model_id, *columns).where(figure.model_id.in_(passing))
    ordered = statement.order_by(figure.model_id, figure.name, figure.dataset, figure.split)
    return [(model_id, Metric(*known)) for model_id, *known in connection.execute(ordered)]


def read_scored(connection: Connection, metric: Metric, per_family: int) -> list[ScoredModel]:
    """Return models with a family and that metric on its data set and split, at most so many of each family; O(n).

    Which of a large family are taken has nothing to do with what they are: an order that mixes the ids decides.
    """
    figure, mixed = metrics.c, (models.c.id * 7919) % 10_007
    place = func.row_number().over(partition_by=architectures.c.family, order_by=(mixed, models.c.id))
    scored = (
        select(models.c.id, architectures.c.family, models.c.parameters, figure.value, place.label("place"))
        .join_from(metrics, models, figure.model_id == models.c.id)
        .join(architectures)
        .where(figure.name == metric.name, figure.dataset == metric.dataset, figure.split == metric.split)
        .where(architectures.c.family != "")
        .subquery()
    )
    columns = (scored.c.id, scored.c.family, scored.c.parameters, scored.c.value)
    statement = select(*columns).where(scored.c.place <= per_family).order_by(scored.c.family, scored.c.place)
    return [ScoredModel(*row) for row in connection.execute(statement)]


def read_scales(connection: Connection) -> list[tuple[int, str, float]]:
    """Return id, topology and sum of the layers' mean eigenvalues of all models whose weights were read; O(layers)."""
    total = func.sum(layers.c.mean)
    statement = select(models.c.id, models.c.topology, total).join(layers, layers.c.model_id == models.c.id)
    read = statement.where(models.c.content_hash.not_like(f"{HEADER_PREFIX}%"))
    return [(id_, topology, float(scale)) for id_, topology, scale in connection.execute(read.group_by(models.c.id))]


def near_texts(connection: Connection, field: str, asked: str) -> list[str]:
    """Return known values of a filter text that are similar to a given one."""
    column = TEXTS[field]
    known = select(column).select_from(models).join(architectures).where(column != "")
    if field == "dataset":
        trained, measured = near_known(connection, known, asked), near_known(connection, MEASURED, asked)
        return near_spellings(asked, sorted({*trained, *measured}))
    return near_known(connection, known, asked)
