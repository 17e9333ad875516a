"""Writes of vectors and conjugacy figures, with the stamps that keep vector caches current.

Every change to the vectors of a spec, or to the classes of the models that have one, raises the spec's ``stamp`` in its
own transaction; changed rows carry the new one, and ``removed`` is the stamp of the last change that took one away.

On Postgres the update of the spec's row is a lock until the commit: stamps come in order of commits, and whoever sees
a stamp sees all that it and those before it stand for. Every transaction takes its locks in one order, the model, the
rows of its vectors, the specs by ascending id, so that none waits for another that waits for it; the specs come
last, for they keep other writers waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, delete, select, update

from registry.errors import SpecMismatchError, UnknownModelError
from registry.storage.engine import schema
from registry.storage.engine.dialects import among, insert_missing, insert_rows, listed
from registry.storage.index import pgvector_index
from registry.storage.models.packing import conjugacy_row, packed_vector, spec_row
from registry.storage.models.records import CONJUGACY_RULE
from registry.storage.models.stored_cards import utc_now

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from registry.types.spectra import Conjugacy, Fingerprint, FingerprintSpec

__all__ = ["Raised", "drop_spec", "put_measured", "raise_stamps", "specs_held"]

specs, fingerprints, conjugacy, models = schema.specs, schema.fingerprints, schema.conjugacy, schema.models


def put_measured(
    connection: Connection,
    given: Mapping[int, Iterable[Fingerprint]],
    figures: Mapping[int, tuple[Conjugacy, int]] | None = None,
    *,
    gone: Collection[int] = (),
    drawn: Collection[int] = (),
) -> None:
    """Store vectors and figures of models by id; they replace those of the same specs.

    ``figures``: a model's conjugacy and the version of the thresholds behind it; ``gone``: ids of the specs whose
    vectors of these models the same transaction has deleted; ``drawn``: ids of known models that were given sketches,
    which count as changed. A few statements a spec, however many models.

    Raises
    ------
    UnknownModelError
        There is no such model.
    SpecMismatchError
        A spec is of another matrix rule than the model's layers.
    SpectrumError
        A vector is not as its spec says, or not finite, or a figure is not.
    """
    figures = figures or {}
    packed = _packed(connection, given, figures)
    moved = sorted({*_put_figures(connection, figures), *drawn})
    restamped = specs_held(connection, moved) if moved else set()
    vectors: dict[int, dict[int, bytes]] = {}
    for spec, spec_id in _spec_ids(connection, packed).items():
        vectors[spec_id] = packed[spec]
        mine = among(fingerprints.c.model_id, list(packed[spec]), connection)
        connection.execute(delete(fingerprints).where(fingerprints.c.spec_id == spec_id, mine))
    raised = raise_stamps(connection, {*vectors, *restamped, *gone}, removed=gone)
    for spec_id in restamped:
        theirs = fingerprints.c.spec_id == spec_id, among(fingerprints.c.model_id, moved, connection)
        connection.execute(update(fingerprints).where(*theirs).values(stamp=raised[spec_id].stamp))
    for spec_id, of_spec in vectors.items():
        stamp, indexed = raised[spec_id]
        rows = [
            {"spec_id": spec_id, "model_id": model_id, "vector": vector, "stamp": stamp}
            for model_id, vector in of_spec.items()
        ]
        insert_rows(connection, fingerprints, rows)
        if indexed and not pgvector_index.follow(connection, spec_id, of_spec):
            connection.execute(update(specs).where(specs.c.id == spec_id).values(indexed=pgvector_index.BEHIND))


def put_conjugacy(connection: Connection, model_id: int, given: Conjugacy, rule: int = CONJUGACY_RULE) -> None:
    """Store the conjugacy figures of a model for that version of the thresholds."""
    put_measured(connection, {}, {model_id: (given, rule)})


def put_fingerprints(connection: Connection, model_id: int, given: Iterable[Fingerprint]) -> None:
    """Store vectors of a model; they replace those of the same specs."""
    put_measured(connection, {model_id: tuple(given)})


def _spec_ids(connection: Connection, given: Collection[FingerprintSpec]) -> dict[FingerprintSpec, int]:
    """Return the ids of specs; insert missing ones."""
    hashes = [spec.hash for spec in given]
    query = select(specs.c.hash, specs.c.id).where(listed(specs.c.hash, hashes, connection))
    found = {hash_: int(id_) for hash_, id_ in connection.execute(query)}
    missing = sorted((spec for spec in given if spec.hash not in found), key=lambda spec: spec.hash)
    for spec in missing:
        insert_missing(connection, specs, {**spec_row(spec), "created": utc_now()})
    if missing:
        found = {hash_: int(id_) for hash_, id_ in connection.execute(query)}
    return {spec: found[spec.hash] for spec in given}


def _packed(
    connection: Connection, given: Mapping[int, Iterable[Fingerprint]], figures: Mapping[int, object]
) -> dict[FingerprintSpec, dict[int, bytes]]:
    """Checked vectors by spec and model."""
    wanted = sorted({*given, *figures})
    # A share of the models: none can be removed meanwhile, and taken first it is never waited for with a spec in hand.
    statement = select(models.c.id, models.c.matrix_rule).where(among(models.c.id, wanted, connection))
    statement = statement.order_by(models.c.id).with_for_update(read=True, key_share=True)
    rules = {row.id: row.matrix_rule for row in connection.execute(statement)}
    for model_id in wanted:
        if model_id not in rules:
            raise UnknownModelError(f"no model has the id {model_id}")
    packed: dict[FingerprintSpec, dict[int, bytes]] = {}
    for model_id, of_model in given.items():
        for fingerprint in of_model:
            spec, rule = fingerprint.spec, rules[model_id]
            if spec.matrix_rule != rule:
                raise SpecMismatchError(
                    f"{spec.label} is of matrix rule {spec.matrix_rule}, the model of {rule}", "ingest the model again"
                )
            packed.setdefault(spec, {})[model_id] = packed_vector(fingerprint)
    return packed


def _put_figures(connection: Connection, figures: Mapping[int, tuple[Conjugacy, int]]) -> list[int]:
    """Write the figures; return the models whose tail or training class changed."""
    if not figures:
        return []
    rows = [conjugacy_row(model_id, *of_model) for model_id, of_model in figures.items()]
    mine = among(conjugacy.c.model_id, list(figures), connection)
    statement = select(conjugacy.c.model_id, conjugacy.c.tail_class, conjugacy.c.training_class).where(mine)
    before = {model_id: (tail, training) for model_id, tail, training in connection.execute(statement)}
    connection.execute(delete(conjugacy).where(mine))
    insert_rows(connection, conjugacy, rows)
    return [
        model_id
        for model_id, (found, _) in figures.items()
        if before.get(model_id) != (found.tail_class, found.training_class)
    ]


def specs_held(connection: Connection, model_ids: Sequence[int]) -> set[int]:
    """Return the ids of the specs of the models' vectors; locks the rows on Postgres."""
    held = select(fingerprints.c.spec_id).where(among(fingerprints.c.model_id, model_ids, connection))
    return set(connection.scalars(held.with_for_update()))


class Raised(NamedTuple):
    """New stamp of a spec, and whether its index was current and must stay so."""

    stamp: int
    indexed: bool


def raise_stamps(
    connection: Connection, spec_ids: Collection[int], *, removed: Collection[int] = ()
) -> dict[int, Raised]:
    """Raise the stamps of specs; ``removed``: specs that lost a vector. Takes the last locks of a transaction.

    A derived index that was current counts as current: deletions reach it by themselves, insertions by the caller.
    """
    found = {}
    for spec_id in sorted(spec_ids):
        new = specs.c.stamp + 1
        values: dict[str, Any] = {
            "stamp": new,
            "indexed": case((specs.c.indexed == specs.c.stamp, new), else_=specs.c.indexed),
        }
        if spec_id in removed:
            values["removed"] = new
        connection.execute(update(specs).where(specs.c.id == spec_id).values(values))
        row = connection.execute(select(specs.c.stamp, specs.c.indexed).where(specs.c.id == spec_id)).one()
        found[spec_id] = Raised(row.stamp, row.indexed == row.stamp)
    return found


def drop_spec(connection: Connection, spec_hash: str) -> int:
    """Delete a spec with its vectors, calibrations and index; return the number of vectors."""
    spec_id = connection.scalar(select(specs.c.id).where(specs.c.hash == spec_hash))
    dropped = connection.execute(delete(fingerprints).where(fingerprints.c.spec_id == spec_id)).rowcount
    connection.execute(delete(specs).where(specs.c.id == spec_id))
    connection.execute(delete(schema.calibrations).where(schema.calibrations.c.spec_hash == spec_hash))
    if spec_id is not None:
        pgvector_index.discard(connection, spec_id)
    return dropped
