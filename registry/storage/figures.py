"""Figures of many models at once, without the rest of what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from registry.storage.filters import conditions
from registry.storage.records import Size
from registry.storage.schema import architectures, metrics, models
from registry.types.weights import Metric

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from registry.types.filters import Filter

__all__ = ["measured", "sizes", "texts"]

TEXTS = {
    "family": architectures.c.family,
    "architecture": architectures.c.name,
    "task": models.c.task,
    "dataset": models.c.dataset,
    "licence": models.c.licence,
}


def sizes(connection: Connection, wanted: Filter) -> list[Size]:
    """Return how large the models are that a filter lets through, by id."""
    columns = select(models.c.id, models.c.parameters, models.c.bytes, models.c.gflops).select_from(models)
    statement = columns.join(architectures).where(*conditions(wanted)).order_by(models.c.id)
    return [Size(*row) for row in connection.execute(statement)]


def measured(connection: Connection, wanted: Filter) -> list[tuple[int, Metric]]:
    """Return the metrics of the models that a filter lets through, by id, name, data set and split."""
    figure = metrics.c
    columns = (figure.name, figure.value, figure.dataset, figure.split, figure.higher_is_better)
    # Within: a filter looks at metrics, too.
    passing = select(models.c.id).select_from(models).join(architectures).where(*conditions(wanted))
    statement = select(figure.model_id, *columns).where(figure.model_id.in_(passing))
    ordered = statement.order_by(figure.model_id, figure.name, figure.dataset, figure.split)
    return [(model_id, Metric(*known)) for model_id, *known in connection.execute(ordered)]


def texts(connection: Connection, field: str) -> list[str]:
    """Return the known values of a text that a filter goes by, ascending."""
    column = TEXTS[field]
    found = set(connection.scalars(select(column).select_from(models).join(architectures).distinct()))
    if field == "dataset":
        found |= set(connection.scalars(select(metrics.c.dataset).distinct()))
    return sorted(found - {""})
