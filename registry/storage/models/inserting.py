"""Insertion of the rows of new models in few statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from registry.errors import UsageError
from registry.storage.engine import schema
from registry.storage.engine.dialects import among, insert_rows, listed
from registry.storage.engine.schema import models
from registry.storage.models.measured_values import specs_held
from registry.storage.models.model_validation import check_model
from registry.storage.models.packing import (
    as_json,
    layer_rows,
    packed_notes,
    packed_spectra,
    sketch_row,
    weight_figures_row,
)
from registry.storage.models.stored_cards import MODEL_FIELDS, architecture_ids, insert_figures, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from registry.storage.models.records import NewModel

__all__ = ["insert_models", "insert_spectra", "origin_values", "put_sketches", "put_weight_figures", "replace_layers"]

_FROM_LAYERS = (
    schema.layers,
    schema.skipped,
    schema.spectra,
    schema.conjugacy,
    schema.fingerprints,
    schema.sketches,
    schema.weight_figures,
)


def insert_models(connection: Connection, given: Sequence[NewModel]) -> list[int]:
    """Insert models with new weights, without names, conjugacy and vectors; return their ids in order.

    Raises
    ------
    UsageError, SpectrumError, SpecMismatchError
        As `check_model`, or a model has no spectra.
    """
    for new in given:
        check_model(new)
    if not given:
        return []
    keys = [(new.card.architecture, new.card.family, new.plan.topology) for new in given]
    architectures = architecture_ids(connection, keys)
    now = utc_now()
    rows: list[dict[str, Any]] = [
        {
            "architecture_id": architectures[key],
            "content_hash": new.plan.content_hash,
            "topology": new.plan.topology,
            "parameters": new.plan.parameters,
            "bytes": new.plan.bytes,
            "layers": len(new.plan.layers),
            "matrix_rule": new.plan.rule,
            "tool_version": new.tool_version,
            "created": new.created or now,
            **origin_values(new),
            **{name: getattr(new.card, name) for name in MODEL_FIELDS},
        }
        for new, key in zip(given, keys, strict=True)
    ]
    connection.execute(insert(models), rows)
    hashes = listed(models.c.content_hash, [new.plan.content_hash for new in given], connection)
    rows_back = connection.execute(select(models.c.content_hash, models.c.id).where(hashes))
    found = {content_hash: int(id_) for content_hash, id_ in rows_back}
    ids = [found[new.plan.content_hash] for new in given]
    by_id = dict(zip(ids, given, strict=True))
    insert_figures(connection, {id_: new.card for id_, new in by_id.items()})
    _insert_layers(connection, by_id)
    return ids


def origin_values(new: NewModel) -> dict[str, Any]:
    """Return the columns of ``models`` that say where the weights are from, and what was found in them."""
    return {
        "precision": new.plan.precision,
        "format": new.format,
        "location": new.location,
        "entry": new.entry,
        "unread": new.plan.unread,
        "nonfinite": new.plan.nonfinite,
        "notes": packed_notes(new.plan.notes),
        "header_hash": new.plan.header,
    }


def replace_layers(connection: Connection, model_id: int, new: NewModel) -> frozenset[int]:
    """Replace the layers of known weights, and their hash; everything computed from the old layers is deleted.

    Returns the ids of the specs whose vectors went: their stamps are to be raised at the end of the transaction.

    Raises
    ------
    UsageError
        The model has no spectra.
    """
    connection.execute(select(models.c.id).where(models.c.id == model_id).with_for_update())
    gone = frozenset(specs_held(connection, [model_id]))
    for table in _FROM_LAYERS:
        connection.execute(delete(table).where(table.c.model_id == model_id))
    values: dict[str, Any] = {
        "content_hash": new.plan.content_hash,
        "bytes": new.plan.bytes,
        "topology": new.plan.topology,
        "parameters": new.plan.parameters,
        "layers": len(new.plan.layers),
        "matrix_rule": new.plan.rule,
        "tool_version": new.tool_version,
        **origin_values(new),
    }
    connection.execute(update(models).where(models.c.id == model_id).values(values))
    _insert_layers(connection, {model_id: new})
    return gone


def _insert_layers(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Insert layers, skipped tensors and spectra of models by id."""
    layers: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for model_id, new in given.items():
        means = [spectrum.mean for spectrum in new.spectra] or new.means
        if not means:
            raise UsageError(f"the weights of {new.name} are new, and their spectra are missing", "ingest it again")
        methods = [spectrum.method for spectrum in new.spectra] or new.methods or [""] * len(means)
        layers += layer_rows(model_id, new.plan.layers, means, methods)
        skipped += [
            {
                "model_id": model_id,
                "position": position,
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": as_json(tensor.shape),
                "reason": tensor.reason,
            }
            for position, tensor in enumerate(new.plan.skipped)
        ]
    insert_rows(connection, schema.layers, layers)
    insert_rows(connection, schema.skipped, skipped)
    insert_spectra(connection, given)
    put_sketches(connection, given)
    put_weight_figures(connection, given)


def insert_spectra(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Insert the spectra, if they are kept."""
    kept = {model_id: new.spectra for model_id, new in given.items() if new.spectra and new.keep_spectra}
    rows = [{"model_id": model_id, "data": packed_spectra(spectra)} for model_id, spectra in kept.items()]
    insert_rows(connection, schema.spectra, rows)


def put_sketches(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Store the sketches of models by id, where they come with any; they replace those that are stored."""
    rows = [sketch_row(model_id, new.sketches) for model_id, new in given.items() if new.sketches is not None]
    if rows:
        mine = among(schema.sketches.c.model_id, [row["model_id"] for row in rows], connection)
        connection.execute(delete(schema.sketches).where(mine))
        insert_rows(connection, schema.sketches, rows)


def put_weight_figures(connection: Connection, given: Mapping[int, NewModel]) -> None:
    """Store the figures of the weights of models by id, where they come with any; they replace those stored."""
    rows = [
        weight_figures_row(model_id, new.weight_figures)
        for model_id, new in given.items()
        if new.weight_figures is not None
    ]
    if rows:
        mine = among(schema.weight_figures.c.model_id, [row["model_id"] for row in rows], connection)
        connection.execute(delete(schema.weight_figures).where(mine))
        insert_rows(connection, schema.weight_figures, rows)
