"""Vectors in memory are what the database holds, whoever changes it; and stamps say when they are not."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.storage import Store
from registry.storage.models import vector_cache
from registry.storage.models.changes import remove, set_card, set_tags
from registry.storage.models.measured_values import drop_spec, put_conjugacy, put_fingerprints
from registry.storage.models.model_queries import count_models
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import all_specs, read_fingerprints, read_training_classes
from tests.storage.factory import OTHER, SPEC, add_many, conjugacy_of, new_model, vector_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.types import FingerprintSpec


def agrees(store: Store, spec: FingerprintSpec = SPEC) -> list[int]:
    """The ids in memory, once everything in it is what a fresh reading finds."""
    memory = store.vectors(spec.hash)
    ids, vectors = store.read(read_fingerprints, spec.hash)
    order = memory.ids.argsort()
    np.testing.assert_array_equal(memory.ids[order], ids)
    if len(ids):
        np.testing.assert_array_equal(memory.vectors[order], vectors)
        np.testing.assert_allclose(memory.squares[order], (vectors.astype(float) ** 2).sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(memory.positions(ids), order)
    classes = store.read(read_training_classes)
    for training in {*classes.values(), "", "no such"}:
        expected = {model for model in ids.tolist() if classes.get(model, "") == training}
        assert set(memory.ids[store.of_training(spec.hash, training)].tolist()) == expected, training
    return [int(id_) for id_ in ids]


CHANGES: dict[str, Callable[[Store], object]] = {
    "add": lambda store: store.add(new_model("new", 99)),
    "remove the first": lambda store: store.write(remove, "m0"),
    "remove one between": lambda store: store.write(remove, "m2"),
    "remove the last": lambda store: store.write(remove, "m5"),
    "replace a vector": lambda store: store.write(
        put_fingerprints, store.read(find_model, "m1").id, [vector_of(123, SPEC)]
    ),
    "other classes": lambda store: store.write(put_conjugacy, store.read(find_model, "m1").id, conjugacy_of(2)),
    "other weights under a name": lambda store: store.add(new_model("m1", 98), replace=True),
    "another matrix rule": lambda store: store.add(new_model("m3", 3, rule="r2")),
    "drop the spec": lambda store: store.write(drop_spec, SPEC.hash),
    "drop it and begin anew": lambda store: (
        store.write(drop_spec, SPEC.hash),
        store.write(put_fingerprints, store.read(find_model, "m4").id, [vector_of(7, SPEC)]),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_connections_change_is_seen(
    registry_url: str, change: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "ROOM", 2)  # so that a few rows make several blocks and outgrow their room
    with Store.open(registry_url, mode="write") as writer, Store.open(registry_url, mode="read") as reader:
        assert agrees(reader) == []
        for seed in range(6):
            writer.add(new_model(f"m{seed}", seed))
        before = agrees(reader)
        assert len(before) == 6
        change(writer)
        after = agrees(reader)
        assert agrees(reader, replace(SPEC, matrix_rule="r2")) == (
            [before[3]] if any(spec.matrix_rule == "r2" for spec in writer.read(all_specs)) else []
        )
        for seed in range(20, 26):
            writer.add(new_model(f"m{seed}", seed))
            writer.write(remove, f"m{seed - 1}" if seed > 20 else "m4")
            after = agrees(reader)
        assert len(after) >= 1


def test_without_a_change_nothing_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(new_model("a", 1))
    memory = store.vectors(SPEC.hash)

    def refuse(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(vector_cache, "vector_blocks", refuse)
    store.write(set_card, "a", {"family": "other"})
    store.write(set_tags, "a", {"key": "value"})
    assert store.vectors(SPEC.hash) is memory
    store.write(
        put_conjugacy, 1 if store.read(find_model, "a").id == 1 else store.read(find_model, "a").id, conjugacy_of(1)
    )  # the classes it has
    assert store.vectors(SPEC.hash) is memory
    store.write(put_fingerprints, store.read(find_model, "a").id, [vector_of(2, SPEC)])
    with pytest.raises(AssertionError, match="read"):
        store.vectors(SPEC.hash)
    monkeypatch.undo()
    agrees(store)  # what broke off half-way is begun anew


def test_only_what_changed_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        store.add(new_model(f"m{seed}", seed))
    agrees(store)
    read: list[int] = []
    whole = vector_cache.vector_blocks

    def count(*given: object):  # type: ignore[no-untyped-def]
        for ids, vectors in whole(*given):  # type: ignore[arg-type]
            read.extend(ids.tolist())
            yield ids, vectors

    monkeypatch.setattr(vector_cache, "vector_blocks", count)
    late = store.add(new_model("late", 50)).model_id
    store.write(put_fingerprints, store.read(find_model, "m2").id, [vector_of(77, SPEC)])
    store.vectors(SPEC.hash)
    assert sorted(read) == sorted([store.read(find_model, "m2").id, late])


def test_several_processes_write_while_one_reads(registry_url: str) -> None:
    """No vector is missed: a stamp that is seen stands for all that came before it."""
    with Store.open(registry_url, mode="write") as reader:
        reader.add(new_model("first", 1_000))
        context = multiprocessing.get_context("spawn")
        with context.Pool(3) as pool:
            jobs = [pool.apply_async(add_many, (registry_url, 100 * part, 12)) for part in range(3)]
            while not all(job.ready() for job in jobs):
                memory = reader.vectors(SPEC.hash)
                with reader.snapshot():
                    memory = reader.vectors(SPEC.hash)
                    ids, _ = reader.read(read_fingerprints, SPEC.hash)
                    assert set(memory.ids.tolist()) == set(ids.tolist())
            for job in jobs:
                assert job.get() == ["added"] * 12
        assert len(agrees(reader)) == 37
        assert len(agrees(reader, OTHER)) == 37


def test_a_snapshot_is_one_state(registry_url: str) -> None:
    with Store.open(registry_url, mode="write") as writer, Store.open(registry_url, mode="read") as reader:
        writer.add(new_model("a", 1))
        with reader.snapshot():
            assert reader.read(count_models) == 1
            writer.add(new_model("b", 2))
            assert (reader.read(count_models), len(reader.vectors(SPEC.hash).ids)) == (1, 1)
        assert (reader.read(count_models), len(reader.vectors(SPEC.hash).ids)) == (2, 2)
