"""Changes and removal of stored models."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from registry.errors import UsageError
from registry.storage.engine.schema import models, names
from registry.storage.models.adding import claim_name
from registry.storage.models.measured_values import raise_stamps, specs_held
from registry.storage.models.model_queries import resolve
from registry.storage.models.model_validation import check_name
from registry.storage.models.stored_cards import drop_if_unused, put_card, put_figures, stored_card, utc_now
from registry.storage.models.summaries import find_model, read_summary
from registry.types.weights import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from registry.types.models import ModelSummary
    from registry.types.weights import Metric

__all__ = [
    "drop_name",
    "remove",
    "rename",
    "set_card",
    "set_metric",
    "set_tags",
]

_TEXTS = tuple(f.name for f in fields(ModelCard) if f.default == "")
_NUMBERS = ("seed", "gflops")


def set_card(connection: Connection, name: str, changes: Mapping[str, Any]) -> ModelSummary:
    """Set fields of a card; None and the empty string mean unknown.

    Raises
    ------
    UsageError
        There is no such field, or the value is of the wrong kind.
    """
    known: dict[str, Any] = {}
    for field, value in changes.items():
        if field in _TEXTS and (value is None or isinstance(value, str)):
            known[field] = value or ""
        elif field in _NUMBERS and (value is None or value == ""):
            known[field] = None
        elif field == "gflops" and isinstance(value, Real):
            known[field] = float(value)
            if not 0.0 <= known[field] < math.inf:
                raise UsageError(f"gflops cannot be {value!r}", "give a finite number that is not negative")
        elif field == "seed" and (isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())):
            known[field] = int(value)
        else:
            raise UsageError(
                f"{field} cannot be set to {value!r}",
                f"text: {', '.join(_TEXTS)}; a number: {', '.join(_NUMBERS)}",
            )
    model_id = resolve(connection, name)
    put_card(connection, model_id, replace(stored_card(connection, model_id), **known))
    return read_summary(connection, model_id)


def set_metric(connection: Connection, name: str, metric: Metric) -> ModelSummary:
    """Add a metric; it replaces the one with the same name, dataset and split."""
    model_id = resolve(connection, name)
    put_figures(connection, model_id, stored_card(connection, model_id).updated(ModelCard(metrics=(metric,))))
    return read_summary(connection, model_id)


def set_tags(connection: Connection, name: str, given: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Set tags of a model; None removes a tag. Return all its tags by key.

    Raises
    ------
    UsageError
        A key is empty, or a tag to be taken off is not there.
    """
    model_id = resolve(connection, name)
    card = stored_card(connection, model_id)
    tags = dict(card.tags)
    for key, value in given.items():
        if not key.strip():
            raise UsageError("a tag needs a key", "give it as KEY=VALUE")
        if value is not None:
            tags[key] = value
        elif tags.pop(key, None) is None:
            raise UsageError(f"the model has no tag {key!r}", f"it has: {', '.join(sorted(tags)) or 'none'}")
    kept = tuple(sorted(tags.items()))
    put_figures(connection, model_id, replace(card, tags=kept))
    return kept


def rename(connection: Connection, old: str, new: str) -> ModelSummary:
    """Replace the name ``old`` by ``new``; if ``old`` is a hash, add ``new`` to the names.

    Raises
    ------
    NameTakenError
        Another model has that name.
    UsageError
        It cannot be a name, or the model has it beside the old one.
    """
    model_id = resolve(connection, old)
    check_name(new)
    if old != new:
        _rename(connection, model_id, old, new)
    return read_summary(connection, model_id)


def _rename(connection: Connection, model_id: int, old: str, new: str) -> None:
    if claim_name(connection, new, model_id, replace=False, remedy="choose another name, or rename that model first"):
        raise UsageError(f"the model has the name {new!r} beside {old!r} already", "drop one of them")
    changed = connection.execute(update(names).where(names.c.name == old).values(name=new)).rowcount
    if not changed:
        connection.execute(insert(names).values(name=new, model_id=model_id, created=utc_now()))


def drop_name(connection: Connection, name: str) -> ModelSummary:
    """Remove one of several names of a model.

    Raises
    ------
    UsageError
        It is the only one, or no name but the beginning of a hash.
    """
    model_id = resolve(connection, name)
    known = connection.scalars(select(names.c.name).where(names.c.model_id == model_id).order_by(names.c.id)).all()
    if name not in known or len(known) == 1:
        raise UsageError(f"{name!r} is not one of several names of the model", "rename it, or remove the model")
    connection.execute(delete(names).where(names.c.name == name))
    return read_summary(connection, model_id)


def remove(connection: Connection, name: str) -> ModelSummary:
    """Delete a model with everything that belongs to it; return its summary."""
    summary = find_model(connection, name)
    model_id = summary.id
    mine = models.c.id == model_id
    architecture = connection.scalars(select(models.c.architecture_id).where(mine).with_for_update()).one()
    held = specs_held(connection, [model_id])
    connection.execute(delete(models).where(mine))
    drop_if_unused(connection, architecture)
    raise_stamps(connection, held, removed=held)
    return summary
