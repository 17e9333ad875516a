"""Specs of other programs in the database: read back with their hashes, or left out, and in nobody's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from registry.storage.engine import schema
from registry.storage.models.measured_values import put_fingerprints
from registry.storage.models.vectors import all_specs, read_vector
from registry.types import FingerprintSpec
from tests.storage.factory import OTHER, RULE, SPEC, new_model, vector_of

if TYPE_CHECKING:
    from registry.storage import Store

THEIRS = FingerprintSpec(
    name="theirs", version=7, matrix_rule=RULE, length=5, uses=("matrix_rule", "length", "seed"), seed=2**40,
    settings=(("places", (0.1, 1.0 / 3.0)), ("label", "größe"), ("nothing", None)),
)  # fmt: skip


def test_a_spec_of_another_kind_comes_back_with_its_hash(store: Store) -> None:
    model = store.add(new_model("a")).model_id
    given = vector_of(5, THEIRS)
    store.write(put_fingerprints, model, [given])
    assert {spec.hash: spec.definition() for spec in store.read(all_specs)} == {
        spec.hash: spec.definition() for spec in (SPEC, OTHER, THEIRS)
    }
    found = store.read(read_vector, THEIRS.hash, model)
    assert found is not None
    assert found.tobytes() == given.vector.tobytes()


@pytest.mark.parametrize(
    "definition", ["", "[]", "{}", '{"name": 1}', '{"name": "theirs", "version": 7, "matrix_rule": "r1", "length": 5}']
)
def test_a_spec_that_cannot_be_read_hinders_no_other(store: Store, definition: str) -> None:
    model = store.add(new_model("a")).model_id
    store.write(put_fingerprints, model, [vector_of(5, THEIRS)])
    changed = update(schema.specs).where(schema.specs.c.hash == THEIRS.hash).values(definition=definition)
    store.write(lambda connection: connection.execute(changed))
    assert {spec.hash for spec in store.read(all_specs)} == {SPEC.hash, OTHER.hash}
    assert store.read(read_vector, SPEC.hash, model) is not None
