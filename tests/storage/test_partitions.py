from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from registry.errors import AmbiguousError, ReadOnlyError, UnknownClassError
from registry.storage import PartitionKey, Store, StoredClass
from registry.storage.equivalence.stored_partitions import (
    all_partitions,
    classes_with,
    find_class,
    find_partition,
    put_partition,
)
from registry.storage.models.changes import remove
from registry.storage.models.measured_values import drop_spec
from tests.storage.factory import OTHER, SPEC, new_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY = PartitionKey(SPEC.hash, "l1", "complete", 1.0 / 3.0, "{}")


def add(store: Store, count: int) -> list[int]:
    return [store.add(new_model(f"m{seed}", seed)).model_id for seed in range(count)]


def given(*members: Sequence[int]) -> tuple[StoredClass, ...]:
    return tuple(StoredClass("", ids[0], 0.25, len(ids) > 2, "long", "trained", tuple(ids)) for ids in members)


def numbered(count: int, before: Mapping[str, Sequence[int]], prefix: str = "class") -> list[str]:
    return [f"{prefix}{len(before)}-{number}" for number in range(count)]


def put(store: Store, classes: Sequence[StoredClass], key: PartitionKey = KEY, prefix: str = "class") -> bool:
    return (
        store.write(put_partition, key, "mark", classes, lambda before: numbered(len(classes), before, prefix))
        is not None
    )


def test_what_is_kept_comes_back(store: Store) -> None:
    a, b, c, d = add(store, 4)
    assert store.read(find_partition, KEY) is None
    classes = given([a, c, d], [b])
    made = store.write(put_partition, KEY, "mark", classes, lambda before: numbered(2, before))
    assert made is not None
    named = tuple(replace(each, identity=f"class0-{place}") for place, each in enumerate(classes))
    assert (made.mark, made.classes) == ("mark", named)
    found = store.read(find_partition, KEY)
    assert found == made
    for other in (
        replace(KEY, distance="l2"),
        replace(KEY, rule="cover"),
        replace(KEY, tolerance=0.333333),
        replace(KEY, scope='{"family": "vgg"}'),
        replace(KEY, spec_hash=OTHER.hash),
    ):
        assert store.read(find_partition, other) is None


def test_a_new_one_takes_the_place_of_the_old(store: Store) -> None:
    a, b, c = add(store, 3)
    put(store, given([a], [b, c]))
    put(store, given([a], [b], [c]), replace(KEY, distance="l2"))
    seen: list[Mapping[str, Sequence[int]]] = []

    def identities(before: Mapping[str, Sequence[int]]) -> list[str]:
        seen.append(before)
        return ["x"]

    assert store.write(put_partition, KEY, "later", given([a, b, c]), identities) is not None
    assert seen[-1] == {"class0-0": (a,), "class0-1": (b, c)}
    found = store.read(find_partition, KEY)
    assert found is not None
    assert (found.mark, [each.members for each in found.classes]) == ("later", [(a, b, c)])
    rows = store.read(all_partitions)
    assert [(row.key.distance, row.models, row.classes) for row in rows] == [("l1", 3, 1), ("l2", 3, 3)]
    assert rows[0].created >= rows[1].created
    # Nothing of the old one is left.
    with pytest.raises(UnknownClassError):
        store.read(find_class, "class0-1x")


def test_what_fails_leaves_the_old_one(store: Store) -> None:
    a, b = add(store, 2)
    put(store, given([a], [b]))
    before = store.read(find_partition, KEY)

    def fail(_: Mapping[str, Sequence[int]]) -> list[str]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(put_partition, KEY, "later", given([a, b]), fail)
    assert store.read(find_partition, KEY) == before
    # A model, or the spec, that went while the classes were made.
    assert not put(store, given([a, b, b + 100]))
    assert not put(store, given([a, b]), replace(KEY, spec_hash="none"))
    assert store.read(find_partition, KEY) == before


def test_removed_models_leave_their_classes(store: Store) -> None:
    a, b, c, d = add(store, 4)
    put(store, given([a, b], [c], [d]))
    store.write(remove, "m0")
    store.write(remove, "m2")
    found = store.read(find_partition, KEY)
    assert found is not None
    assert [(each.identity, each.medoid, each.members) for each in found.classes] == [
        ("class0-0", None, (b,)),
        ("class0-2", d, (d,)),
    ]
    with pytest.raises(UnknownClassError):
        store.read(find_class, "class0-1")
    store.write(drop_spec, SPEC.hash)
    assert store.read(find_partition, KEY) is None
    assert store.read(all_partitions) == []


def test_a_class_is_found_by_its_identity(store: Store) -> None:
    a, b, c = add(store, 3)
    put(store, given([a, b], [c]), prefix="ab")
    put(store, given([a], [b], [c]), replace(KEY, distance="l2"), prefix="abc")
    row, number, found = store.read(find_class, "abc0-2")
    assert (row.key.distance, row.models, row.classes, number, found.members) == ("l2", 3, 3, 3, (c,))
    assert store.read(find_class, "ab0-1")[2].members == (c,)
    with pytest.raises(AmbiguousError):
        store.read(find_class, "ab")
    for unknown in ("x", "", "%", "_b0-1"):
        with pytest.raises(UnknownClassError) as error:
            store.read(find_class, unknown)
        assert "archreg classes --kept" in (error.value.remedy or "")
    held = store.read(classes_with, a)
    assert [(key.distance, identity, members) for key, identity, members in held] == [
        ("l2", "abc0-0", 1),
        ("l1", "ab0-0", 2),
    ]
    assert store.read(classes_with, c + 100) == []


def test_reading_keeps_nothing(store: Store, registry_url: str) -> None:
    ids = add(store, 2)
    with Store.open(registry_url, mode="read") as reader:
        with pytest.raises(ReadOnlyError):
            put(reader, given(ids))
        assert reader.read(find_partition, KEY) is None


def test_several_at_once_leave_one(store: Store, registry_url: str) -> None:
    ids = add(store, 6)

    def work(size: int) -> bool:
        with Store.open(registry_url, mode="write") as own:
            return all(put(own, given(ids[:size], ids[size:]), prefix=f"s{size}") for _ in range(3))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, (1, 2, 3, 4))) == [True] * 4
    found = store.read(find_partition, KEY)
    assert found is not None
    size = len(found.classes[0].members)
    assert [each.members for each in found.classes] == [tuple(ids[:size]), tuple(ids[size:])]
    assert [row.models for row in store.read(all_partitions)] == [6]
