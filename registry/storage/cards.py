"""What is known of a model besides its weights: its card, in rows."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, insert, select, update

from registry.errors import UsageError
from registry.storage import schema
from registry.storage.packing import to_metric
from registry.storage.schema import architectures, models
from registry.types.weights import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Table

__all__ = ["card_values", "drop_if_unused", "insert_missing", "put_card", "put_figures", "stored_card", "utc_now"]

MODEL_FIELDS = tuple(
    field.name for field in fields(ModelCard) if field.name not in ("family", "architecture", "metrics", "tags")
)
"""Of a card, what is a column of ``models``."""


def utc_now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


def insert_missing(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one with its unique key is there, also where another writer puts it there just now."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        connection.execute(sqlite.insert(table).values(values).on_conflict_do_nothing())
    else:
        from sqlalchemy.dialects import postgresql

        connection.execute(postgresql.insert(table).values(values).on_conflict_do_nothing())


def card_values(connection: Connection, card: ModelCard, topology: str) -> dict[str, Any]:
    """Return the columns of ``models`` that a card decides; its architecture is made if need be."""
    row = {"name": card.architecture, "family": card.family, "topology": topology}
    found = select(architectures.c.id).filter_by(**row)
    known = connection.scalar(found)
    if known is None:
        insert_missing(connection, architectures, row)
        known = connection.scalars(found).one()
    return {"architecture_id": known, **{name: getattr(card, name) for name in MODEL_FIELDS}}


def stored_card(connection: Connection, model_id: int) -> ModelCard:
    """Return the card of a stored model."""
    statement = (
        select(models, architectures.c.family, architectures.c.name.label("architecture"))
        .join(architectures, architectures.c.id == models.c.architecture_id)
        .where(models.c.id == model_id)
    )
    row = connection.execute(statement).mappings().one()
    measured = connection.execute(select(schema.metrics).where(schema.metrics.c.model_id == model_id)).mappings()
    tagged = select(schema.tags.c.key, schema.tags.c.value).where(schema.tags.c.model_id == model_id)
    return ModelCard(
        metrics=tuple(to_metric(metric) for metric in measured),
        tags=tuple((key, value) for key, value in connection.execute(tagged)),
        **{name: row[name] for name in (*MODEL_FIELDS, "family", "architecture")},
    )


def put_card(connection: Connection, model_id: int, card: ModelCard) -> None:
    """Make ``card`` the card of a stored model, in place of the one it has."""
    statement = select(models.c.topology, models.c.architecture_id).where(models.c.id == model_id)
    topology, old = connection.execute(statement).one()
    connection.execute(update(models).where(models.c.id == model_id).values(card_values(connection, card, topology)))
    drop_if_unused(connection, old)
    put_figures(connection, model_id, card)


def put_figures(connection: Connection, model_id: int, card: ModelCard) -> None:
    """Make the card's metrics and tags those of the model.

    Raises
    ------
    UsageError
        A metric's value is not finite.
    """
    for metric in card.metrics:
        if not math.isfinite(metric.value):
            raise UsageError(f"the metric {metric.name} is {metric.value}", "give a finite number, or leave it out")
    for table in (schema.metrics, schema.tags):
        connection.execute(delete(table).where(table.c.model_id == model_id))
    card = ModelCard().updated(card)  # what is given twice counts once
    if card.metrics:
        connection.execute(
            insert(schema.metrics), [{"model_id": model_id, **asdict(metric)} for metric in card.metrics]
        )
    if card.tags:
        rows = [{"model_id": model_id, "key": key, "value": value} for key, value in card.tags]
        connection.execute(insert(schema.tags), rows)


def drop_if_unused(connection: Connection, architecture_id: int) -> None:
    """Forget an architecture that no model has any more."""
    used = exists().where(models.c.architecture_id == architectures.c.id)
    connection.execute(delete(architectures).where(architectures.c.id == architecture_id, ~used))
