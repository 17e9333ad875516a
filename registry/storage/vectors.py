"""Numbers of many models at once: vectors, spectra, conjugacy. Straight from the driver where there are many."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import delete, exists, func, select

from registry.errors import SpecMismatchError, UnknownModelError
from registry.storage import schema
from registry.storage.bulk import insert_rows
from registry.storage.cards import insert_missing, utc_now
from registry.storage.filters import among
from registry.storage.packing import (
    FLOAT32,
    conjugacy_row,
    layer_of,
    packed_vector,
    spec_of,
    spec_row,
    to_conjugacy,
    unpacked,
)
from registry.types.spectra import Spectrum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Select

    from registry.types.spectra import Conjugacy, Fingerprint, FingerprintSpec

__all__ = [
    "all_specs",
    "classes",
    "conjugacy_of",
    "drop_spec",
    "missing_conjugacy",
    "missing_fingerprints",
    "put_all_conjugacy",
    "put_all_fingerprints",
    "put_conjugacy",
    "put_fingerprints",
    "read_fingerprints",
    "read_spectra",
]

BLOCK = 1_000  # rows: some megabytes, so that the rows as they come never weigh as much as the array

specs, fingerprints, conjugacy, models = schema.specs, schema.fingerprints, schema.conjugacy, schema.models


def read_fingerprints(
    connection: Connection, spec_hash: str, ids: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids (n,), ascending, and vectors (n, d) of all models, or of those of ``ids``, under a spec.

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
    statement = select(fingerprints.c.model_id, fingerprints.c.vector).where(*wanted)
    start = 0
    for rows in _blocks(connection, statement.order_by(fingerprints.c.model_id)):
        block = slice(start, start + len(rows))
        models_read[block], blobs = zip(*rows, strict=True)
        vectors[block] = np.frombuffer(b"".join(blobs), dtype=FLOAT32).reshape(len(rows), found.length)
        start = block.stop
    return models_read, vectors


def _blocks(connection: Connection, statement: Select[Any]) -> Iterator[list[tuple[int, bytes]]]:
    """Run a statement by the driver's own cursor: no row objects, and Postgres sends bytes as bytes, not as digits."""
    compiled = statement.compile(dialect=connection.dialect)
    values: Any = compiled.construct_params()
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        values = [values[name] for name in compiled.positiontup or ()]
        cursor = driver.cursor()
    else:
        cursor = driver.cursor(binary=True)
    with closing(cursor):
        cursor.execute(str(compiled), values)
        while rows := cursor.fetchmany(BLOCK):
            yield rows


def put_fingerprints(connection: Connection, model_id: int, given: Iterable[Fingerprint]) -> None:
    """Store a model's vectors, in place of those under the same specs; raises as `put_all_fingerprints`."""
    put_all_fingerprints(connection, {model_id: tuple(given)})


def put_all_fingerprints(connection: Connection, given: Mapping[int, Sequence[Fingerprint]]) -> None:
    """Store vectors of models by their ids, in place of those under the same specs: a few statements a spec.

    Raises
    ------
    UnknownModelError
        There is no such model.
    SpecMismatchError
        A spec is of another matrix rule than the model's layers.
    SpectrumError
        A vector is not as its spec says, or not finite.
    """
    statement = select(models.c.id, models.c.matrix_rule).where(among(models.c.id, list(given), connection))
    rules = {int(id_): str(rule) for id_, rule in connection.execute(statement)}
    by_spec: dict[FingerprintSpec, dict[int, bytes]] = {}
    for model_id, of_model in given.items():
        if model_id not in rules:
            raise UnknownModelError(f"no model has the id {model_id}")
        for fingerprint in of_model:
            spec, rule = fingerprint.spec, rules[model_id]
            if spec.matrix_rule != rule:
                raise SpecMismatchError(
                    f"{spec.label} is of matrix rule {spec.matrix_rule}, the model of {rule}", "ingest the model again"
                )
            by_spec.setdefault(spec, {})[model_id] = packed_vector(fingerprint)
    for spec, vectors in by_spec.items():
        insert_missing(connection, specs, {**spec_row(spec), "created": utc_now()})
        spec_id = connection.scalar(select(specs.c.id).where(specs.c.hash == spec.hash))
        mine = among(fingerprints.c.model_id, list(vectors), connection)
        connection.execute(delete(fingerprints).where(fingerprints.c.spec_id == spec_id, mine))
        rows = [{"spec_id": spec_id, "model_id": id_, "vector": vector} for id_, vector in vectors.items()]
        insert_rows(connection, fingerprints, rows)


def missing_fingerprints(connection: Connection, spec_hash: str) -> list[int]:
    """Return the ids of the models without a vector under the spec, ascending."""
    has = exists().where(
        fingerprints.c.model_id == models.c.id, fingerprints.c.spec_id == specs.c.id, specs.c.hash == spec_hash
    )
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def all_specs(connection: Connection) -> list[FingerprintSpec]:
    """Return the stored specs, by name and version."""
    statement = select(specs.c.definition).order_by(specs.c.name, specs.c.version, specs.c.id)
    return [spec_of(definition) for definition in connection.scalars(statement)]


def drop_spec(connection: Connection, spec_hash: str) -> int:
    """Forget a spec, its vectors and its calibrations; return how many vectors."""
    mine = select(specs.c.id).where(specs.c.hash == spec_hash)
    dropped = connection.execute(delete(fingerprints).where(fingerprints.c.spec_id.in_(mine))).rowcount
    connection.execute(delete(specs).where(specs.c.hash == spec_hash))
    connection.execute(delete(schema.calibrations).where(schema.calibrations.c.spec_hash == spec_hash))
    return dropped


def read_spectra(connection: Connection, model_id: int) -> tuple[Spectrum, ...] | None:
    """Return a model's spectra in depth order, their values read-only; None where they were not kept."""
    blob = connection.scalar(select(schema.spectra.c.data).where(schema.spectra.c.model_id == model_id))
    if blob is None:
        return None
    values = unpacked(blob)
    rows = connection.execute(
        select(schema.layers).where(schema.layers.c.model_id == model_id).order_by(schema.layers.c.position)
    ).mappings()
    return tuple(
        Spectrum(layer_of(row).layer, row["mean"], values[row["offset"] : row["offset"] + row["count"]]) for row in rows
    )


def conjugacy_of(connection: Connection, ids: Sequence[int]) -> dict[int, Conjugacy]:
    """Return the conjugacy figures of those of ``ids`` that have them."""
    statement = select(conjugacy).where(among(conjugacy.c.model_id, ids, connection))
    return {row["model_id"]: to_conjugacy(row) for row in connection.execute(statement).mappings()}


def put_conjugacy(connection: Connection, model_id: int, given: Conjugacy, rule: int) -> None:
    """Store a model's conjugacy figures in place of any others."""
    put_all_conjugacy(connection, {model_id: (given, rule)})


def put_all_conjugacy(connection: Connection, given: Mapping[int, tuple[Conjugacy, int]]) -> None:
    """Store conjugacy figures, and the version of the thresholds behind them, of models by their ids."""
    rows = [conjugacy_row(model_id, figures, rule) for model_id, (figures, rule) in given.items()]
    connection.execute(delete(conjugacy).where(among(conjugacy.c.model_id, list(given), connection)))
    insert_rows(connection, conjugacy, rows)


def missing_conjugacy(connection: Connection, rule: int) -> list[int]:
    """Return the ids of the models without conjugacy figures by that version of the thresholds, ascending."""
    has = exists().where(conjugacy.c.model_id == models.c.id, conjugacy.c.rule == rule)
    return list(connection.scalars(select(models.c.id).where(~has).order_by(models.c.id)))


def classes(connection: Connection, ids: Sequence[int] | None = None) -> dict[int, tuple[str, str]]:
    """Return (tail class, training class) by id, of all models or those of ``ids``, where known."""
    statement = select(conjugacy.c.model_id, conjugacy.c.tail_class, conjugacy.c.training_class)
    if ids is not None:
        statement = statement.where(among(conjugacy.c.model_id, ids, connection))
    return {model_id: (tail, training) for model_id, tail, training in connection.execute(statement)}
