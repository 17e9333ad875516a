"""Bulk reads of vectors, spectra and conjugacy; large ones bypass SQLAlchemy."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import exists, func, select

from registry.errors import SpecMismatchError
from registry.storage.engine import schema
from registry.storage.engine.connections import driver
from registry.storage.engine.dialects import among
from registry.storage.models.model_validation import check_spec
from registry.storage.models.packing import (
    FLOAT32,
    layer_of,
    sketches_of,
    spec_of,
    to_conjugacy,
    unpacked,
    weight_figures_of,
)
from registry.storage.models.records import CONJUGACY_RULE
from registry.types.spectra import Spectrum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection, Select

    from registry.types.spectra import Conjugacy, FingerprintSpec
    from registry.types.weight_figures import WeightFigures
    from registry.types.weight_relations import Sketches
    from registry.types.weights import LayerMatrix

__all__ = [
    "all_specs",
    "read_conjugacy",
    "count_vectors",
    "missing_conjugacy",
    "missing_fingerprints",
    "missing_sketches",
    "missing_weight_figures",
    "read_fingerprints",
    "read_layers",
    "read_sketches",
    "read_weight_figures",
    "read_spectra",
    "read_training_classes",
    "read_vector",
    "vector_blocks",
]

BLOCK = 1_000  # rows: some megabytes, so that the rows as they come never weigh as much as the array

specs, fingerprints, conjugacy, models = schema.specs, schema.fingerprints, schema.conjugacy, schema.models


def read_fingerprints(
    connection: Connection, spec_hash: str, ids: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids (n,), ascending, and vectors (n, d) of a spec, of all models or of ``ids``.

    d is 0 where no such spec is stored.
    """
    found = connection.execute(select(specs.c.id, specs.c.length).where(specs.c.hash == spec_hash)).first()
    if found is None:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    wanted = [fingerprints.c.spec_id == found.id]
    if ids is not None:
        wanted.append(among(fingerprints.c.model_id, ids, connection))
    count = connection.scalar(select(func.count()).select_from(fingerprints).where(*wanted)) or 0
    models_read, vectors = np.empty(count, np.int64), np.empty((count, found.length), np.float32)
    start = 0
    for rows, block in vector_blocks(connection, wanted, found.length):
        here = slice(start, start + len(rows))
        models_read[here], vectors[here] = rows, block
        start = here.stop
    return models_read, vectors


def read_vector(connection: Connection, spec_hash: str, model_id: int) -> NDArray[np.float32] | None:
    """Return the vector (d,) of a model and spec, or None."""
    statement = select(fingerprints.c.vector).join(specs, specs.c.id == fingerprints.c.spec_id)
    blob = connection.scalar(statement.where(specs.c.hash == spec_hash, fingerprints.c.model_id == model_id))
    return None if blob is None else unpacked(blob)


def count_vectors(connection: Connection, spec_id: int, ids: Sequence[int] | None = None) -> int:
    """Return the number of stored vectors of a spec, of all models or of ``ids``; O(n)."""
    counted = select(func.count()).select_from(fingerprints).where(fingerprints.c.spec_id == spec_id)
    if ids is not None:
        counted = counted.where(among(fingerprints.c.model_id, ids, connection))
    return connection.scalar(counted) or 0


def vector_blocks(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], length: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield ids (m,) and vectors (m, length) in ascending blocks of some megabytes."""
    statement = select(fingerprints.c.model_id, fingerprints.c.vector).where(*wanted)
    for rows in _blocks(connection, statement.order_by(fingerprints.c.model_id)):
        ids, blobs = zip(*rows, strict=True)
        yield np.array(ids, np.int64), np.frombuffer(b"".join(blobs), dtype=FLOAT32).reshape(len(rows), length)


def _blocks(connection: Connection, statement: Select[Any]) -> Iterator[list[tuple[int, bytes]]]:
    """Run a statement with the driver's cursor: no row objects, and binary transfer on Postgres."""
    compiled = statement.compile(dialect=connection.dialect)
    values: Any = compiled.construct_params()
    with driver(connection) as below:
        if connection.dialect.name == "sqlite":
            values = [values[name] for name in compiled.positiontup or ()]
            cursor = below.cursor()
        else:
            # The server keeps the result and gives it out in blocks: this process never holds it twice.
            cursor = below.cursor(name="archreg_vectors", binary=True)
        with closing(cursor):
            cursor.execute(str(compiled), values)
            while rows := cursor.fetchmany(BLOCK):
                yield rows


def missing_fingerprints(connection: Connection, spec_hash: str) -> list[int]:
    """Return the ids of the models without a vector of the spec, ascending."""
    has = exists().where(
        fingerprints.c.model_id == models.c.id, fingerprints.c.spec_id == specs.c.id, specs.c.hash == spec_hash
    )
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def all_specs(connection: Connection) -> list[FingerprintSpec]:
    """Return the stored specs, by name and version; none of which the definition is damaged or has another hash."""
    statement = select(specs.c.hash, specs.c.definition).order_by(specs.c.name, specs.c.version, specs.c.id)
    found = []
    for stored_hash, definition in connection.execute(statement):
        with suppress(SpecMismatchError):  # whoever asks about that very spec is told, by its hash
            found.append(check_spec(spec_of(definition), stored_hash))
    return found


def read_spectra(connection: Connection, model_id: int) -> tuple[Spectrum, ...] | None:
    """Return the spectra of a model in depth order, with read-only values; None if not stored."""
    blob = connection.scalar(select(schema.spectra.c.data).where(schema.spectra.c.model_id == model_id))
    if blob is None:
        return None
    values = unpacked(blob)
    rows = connection.execute(
        select(schema.layers).where(schema.layers.c.model_id == model_id).order_by(schema.layers.c.position)
    ).mappings()
    return tuple(
        Spectrum(layer_of(row).layer, row["mean"], values[row["offset"] : row["offset"] + row["count"]], row["method"])
        for row in rows
    )


def read_layers(connection: Connection, model_id: int) -> tuple[LayerMatrix, ...]:
    """Return the layers of a model in depth order."""
    of_model = select(schema.layers).where(schema.layers.c.model_id == model_id).order_by(schema.layers.c.position)
    return tuple(layer_of(row).layer for row in connection.execute(of_model).mappings())


def read_conjugacy(connection: Connection, ids: Sequence[int]) -> dict[int, Conjugacy]:
    """Return the stored conjugacy figures of ``ids``, by id."""
    statement = select(conjugacy).where(among(conjugacy.c.model_id, ids, connection))
    return {row["model_id"]: to_conjugacy(row) for row in connection.execute(statement).mappings()}


def read_sketches(connection: Connection, model_id: int) -> Sketches | None:
    """Return the sketches of a model's layers; None if not stored."""
    columns = schema.sketches.c
    row = connection.execute(select(schema.sketches).where(columns.model_id == model_id)).first()
    if row is None:
        return None
    layers = connection.scalar(select(models.c.layers).where(models.c.id == model_id)) or 0
    return sketches_of(row.version, row.buckets, row.data, layers)


def read_weight_figures(connection: Connection, model_id: int) -> WeightFigures | None:
    """Return the figures of a model's weights; None if not stored."""
    columns = schema.weight_figures.c
    row = connection.execute(select(schema.weight_figures).where(columns.model_id == model_id)).first()
    if row is None:
        return None
    layers = connection.scalar(select(models.c.layers).where(models.c.id == model_id)) or 0
    return weight_figures_of(row.version, row.layers, row.statistics, layers)


def missing_weight_figures(connection: Connection, version: int) -> list[int]:
    """Return the ids of the models without figures of their weights of that version, ascending."""
    columns = schema.weight_figures.c
    has = exists().where(columns.model_id == models.c.id, columns.version == version)
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def missing_sketches(connection: Connection, version: int) -> list[int]:
    """Return the ids of the models without sketches of that version, ascending."""
    has = exists().where(schema.sketches.c.model_id == models.c.id, schema.sketches.c.version == version)
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def missing_conjugacy(connection: Connection, rule: int = CONJUGACY_RULE) -> list[int]:
    """Return the ids of the models without conjugacy figures of that version of the thresholds, ascending."""
    has = exists().where(conjugacy.c.model_id == models.c.id, conjugacy.c.rule == rule)
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def read_training_classes(connection: Connection, ids: Sequence[int] | None = None) -> dict[int, str]:
    """Return known training classes by id, of all models or of ``ids``."""
    statement = select(conjugacy.c.model_id, conjugacy.c.training_class)
    if ids is not None:
        statement = statement.where(among(conjugacy.c.model_id, ids, connection))
    return {row.model_id: row.training_class for row in connection.execute(statement)}
