"""Cards of models as rows."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, select, update

from registry.storage.engine import schema
from registry.storage.engine.dialects import insert_missing, insert_rows, listed
from registry.storage.engine.schema import architectures, models
from registry.storage.models.model_validation import check_card
from registry.storage.models.packing import to_metric
from registry.types.weights import ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

__all__ = [
    "MODEL_FIELDS",
    "architecture_ids",
    "card_values",
    "drop_if_unused",
    "insert_figures",
    "put_card",
    "put_figures",
    "stored_card",
    "utc_now",
]

Key = tuple[str, str, str]

MODEL_FIELDS = tuple(
    field.name for field in fields(ModelCard) if field.name not in ("family", "architecture", "metrics", "tags")
)
"""Of a card, what is a column of ``models``."""


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def card_values(connection: Connection, card: ModelCard, topology: str) -> dict[str, Any]:
    """Return the columns of ``models`` for a card; insert its architecture if it is new."""
    key = (card.architecture, card.family, topology)
    return {
        "architecture_id": architecture_ids(connection, [key])[key],
        **{name: getattr(card, name) for name in MODEL_FIELDS},
    }


def architecture_ids(connection: Connection, given: Iterable[Key]) -> dict[Key, int]:
    """Return the ids of architectures by (name, family, topology); insert missing ones."""
    wanted = dict.fromkeys(given)
    table = architectures.c
    rows = select(table.name, table.family, table.topology, table.id)
    rows = rows.where(listed(table.topology, {topology for _, _, topology in wanted}, connection))
    found = {(name, family, topology): id_ for name, family, topology, id_ in connection.execute(rows)}
    missing = [key for key in wanted if key not in found]
    if missing:
        values = [dict(zip(("name", "family", "topology"), key, strict=True)) for key in sorted(missing)]
        insert_missing(connection, architectures, values)
        found = {(name, family, topology): id_ for name, family, topology, id_ in connection.execute(rows)}
    return found


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
    """Replace the card of a stored model.

    Raises
    ------
    UsageError
        As `check_card`.
    """
    check_card(card)
    statement = select(models.c.topology, models.c.architecture_id).where(models.c.id == model_id)
    topology, old = connection.execute(statement).one()
    connection.execute(update(models).where(models.c.id == model_id).values(card_values(connection, card, topology)))
    drop_if_unused(connection, old)
    put_figures(connection, model_id, card)


def put_figures(connection: Connection, model_id: int, card: ModelCard) -> None:
    """Replace the metrics and tags of a model by those of the card.

    Raises
    ------
    UsageError
        As `check_card`.
    """
    check_card(card)
    for table in (schema.metrics, schema.tags):
        connection.execute(delete(table).where(table.c.model_id == model_id))
    insert_figures(connection, {model_id: card})


def insert_figures(connection: Connection, cards: Mapping[int, ModelCard]) -> None:
    """Insert metrics and tags of models without any, by id; duplicates count once."""
    merged = {model_id: ModelCard().updated(card) for model_id, card in cards.items()}
    figures = [{"model_id": id_, **asdict(metric)} for id_, card in merged.items() for metric in card.metrics]
    tagged = [{"model_id": id_, "key": key, "value": value} for id_, card in merged.items() for key, value in card.tags]
    insert_rows(connection, schema.metrics, figures)
    insert_rows(connection, schema.tags, tagged)


def drop_if_unused(connection: Connection, architecture_id: int) -> None:
    """Delete an architecture if no model has it."""
    used = exists().where(models.c.architecture_id == architectures.c.id)
    connection.execute(delete(architectures).where(architectures.c.id == architecture_id, ~used))
