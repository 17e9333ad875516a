"""Duplicates: what is there several times, in which form, where, and how much of it could be freed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from registry.equivalence.sketches import SKETCH_VERSION
from registry.storage import NewModel, Store
from registry.storage.models.adding import add_models
from registry.types import LayerMatrix, Sketches, Spectrum, WeightsPlan
from tests.catalog.test_related import network, permuted, tuned
from tests.cli.conftest import archreg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import DuplicateGroup, Duplicates

__all__ = ["archreg"]  # the fixture


def groups(found: Duplicates) -> list[tuple[str, list[str]]]:
    return [(group.kind, [member.model.name for member in group.members]) for group in found.groups]


def places(group: DuplicateGroup) -> list[str]:
    return [place.location.rpartition("/")[2] for member in group.members for place in member.places]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Folders of runs: a model, two copies of it, the same with units in another order, a descendant, a stranger."""
    start = network(1)
    for name, tensors in (
        ("one/start", start),
        ("one/tuned", tuned(start, 1, 0.3)),
        ("two/order", permuted(start, 5)),
        ("two/stranger", network(3)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file(tensors, tmp_path / f"{name}.safetensors")
    for copy in ("two/copy", "two/again"):
        shutil.copyfile(tmp_path / "one/start.safetensors", tmp_path / f"{copy}.safetensors")
    return tmp_path


def ingest(reg: Registry, *paths: Path) -> None:
    done = reg.ingest_all(reg.plan(paths), executor="inprocess")
    assert [each.message for each in done if each.status == "failed"] == []


def test_groups_with_their_places_and_what_could_be_freed(runs: Path, registry_url: str) -> None:
    size = (runs / "one/start.safetensors").stat().st_size
    with Registry(registry_url) as reg:
        ingest(reg, runs / "one", runs / "two")
        found = reg.duplicates()
        kinds = groups(found)
        assert kinds[0] == ("identical", ["start"])
        assert kinds[1] == ("permuted", ["order", "start"])
        assert kinds[2][0] == "related"
        assert sorted(kinds[2][1]) == ["order", "start", "tuned"]
        assert len(kinds) == 3
        identical, other, related = found.groups
        assert places(identical) == ["start.safetensors", "again.safetensors", "copy.safetensors"]
        assert {place.bytes for place in identical.members[0].places} == {size}
        assert identical.freeable == 2 * size
        assert other.freeable == (runs / "two/order.safetensors").stat().st_size
        assert related.freeable == 0
        assert found.freeable == 2 * size + other.freeable
        r = {member.model.name: member.correlation for member in related.members}
        assert [name for name, value in r.items() if value is None] == [related.members[0].model.name]
        assert max(value for value in r.values() if value is not None) > 0.8
        assert (found.models, found.unsketched) == (4, 0)
        assert groups(reg.duplicates(family="nothing")) == []


def test_a_file_that_was_replaced_is_no_place_of_its_former_weights(runs: Path, registry_url: str) -> None:
    with Registry(registry_url) as reg:
        ingest(reg, runs / "one/start.safetensors")
        ingest(reg, runs / "two/copy.safetensors")
        assert [places(group) for group in reg.duplicates().groups] == [["start.safetensors", "copy.safetensors"]]
        save_file(network(9), runs / "two/copy.safetensors")
        reg.ingest_all(reg.plan([runs / "two/copy.safetensors"], name="later"), executor="inprocess")
        [group] = reg.duplicates().groups  # the model still has two names
        assert (group.kind, places(group), group.freeable) == ("identical", ["start.safetensors"], 0)


def test_names_without_another_place_free_nothing(runs: Path, registry_url: str) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(runs / "one/start.safetensors")
        assert reg.duplicates().groups == ()
        reg.ingest(runs / "one/start.safetensors", name="other")
        [group] = reg.duplicates().groups
        assert (group.kind, group.freeable, group.members[0].model.names) == ("identical", 0, ("start", "other"))


def test_references_are_places_and_free_nothing(runs: Path, registry_url: str) -> None:
    with Registry(registry_url) as reg:
        ingest(reg, runs / "one/start.safetensors", runs / "two/copy.safetensors")
        before = reg.duplicates()
    with Store.open(registry_url, mode="write") as store:
        from sqlalchemy import select, update

        from registry.storage.engine.schema import items

        def moved(connection: Any) -> None:
            for run, position, text in connection.execute(
                select(items.c.run_id, items.c.position, items.c.reference)
            ).all():
                record = json.loads(text)
                if "copy" in record["target"]:
                    record |= {"source": "hf", "target": "ORG/NAME"}
                    here = (items.c.run_id == run) & (items.c.position == position)
                    connection.execute(update(items).where(here).values(reference=json.dumps(record)))

        store.write(moved)
    with Registry(registry_url) as reg:
        [group] = reg.duplicates().groups
        assert sorted(place.location for place in group.members[0].places)[1] == "hf:ORG/NAME"
        assert (before.freeable > 0, group.freeable) == (True, 0)


def test_weights_that_were_not_read_are_no_duplicates(runs: Path, registry_url: str) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(runs / "one/start.safetensors", headers_only=True)
        reg.ingest(runs / "one/start.safetensors", headers_only=True, name="other")
        found = reg.duplicates()
        assert (found.groups, found.models, found.unsketched) == ((), 1, 1)


def test_what_the_command_says(
    runs: Path, registry_url: str, archreg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", registry_url)
    assert archreg("ingest", str(runs / "one"), str(runs / "two"), "-q").code == 0
    done = archreg("list", "--duplicates")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["group", "kind", "model", "correlation", "size", "place"]
    assert lines[1].split()[:2] == ["1", "identical"]
    assert lines[1].endswith("/one/start.safetensors")
    assert lines[2].endswith("/two/again.safetensors")
    assert lines[-1].endswith(" could be freed by keeping one of each identical or permuted group.")
    document = archreg("list", "--duplicates", "--json").document
    assert [group["kind"] for group in document["groups"]] == ["identical", "permuted", "related"]
    assert document["freeable"] == sum(group["freeable"] for group in document["groups"])
    assert archreg("rm", "start", "-y").code == 0
    assert archreg("rm", "tuned", "-y").code == 0
    done = archreg("list", "--duplicates")
    assert done.out == "Of 2 models none is there twice, and none is related to another.\n"


LAYERS = tuple(LayerMatrix(at, f"l{at}", f"l{at}", (16, 16), "linear") for at in range(4))


def drawn(name: str, values: np.ndarray, topology: str) -> NewModel:
    """A model of sketches alone."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    plan = WeightsPlan("matrix-2", LAYERS, (), digest, topology, 1_024, 4_096)
    spectra = tuple(Spectrum(layer, 1.0, np.linspace(0.5, 1.5, 16, dtype=np.float32)) for layer in LAYERS)
    sketches = Sketches(SKETCH_VERSION, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16))
    return NewModel(name, plan, spectra=spectra, sketches=sketches, location=f"/runs/{name}.pt")


def test_two_thousand_models(registry_url: str) -> None:
    """In each of 40 topologies three starts of ten descendants each, and twenty strangers."""
    rng, made, expected = np.random.default_rng(0), [], set()
    for topology in range(40):
        for start in range(5):
            origin = rng.standard_normal((4, 512))
            names = [f"t{topology}-{start}-{at}" for at in range(10)]
            for name in names:
                noise = rng.standard_normal((4, 512))
                values = origin + 0.5 * noise if start < 3 else noise
                made.append(drawn(name, values, f"t{topology}"))
            if start < 3:
                expected.add(frozenset(names))
    with Store.open(registry_url, mode="create") as store:
        assert len(store.write(add_models, made)) == 2_000
        store.write(
            add_models, [replace(made[0], name="copied", spectra=(), sketches=None, location="/else/copied.pt")]
        )
    with Registry(registry_url) as reg:
        found = reg.duplicates()
    assert {frozenset(names) for kind, names in groups(found) if kind == "related"} == expected
    assert [names for kind, names in groups(found) if kind != "related"] == [["t0-0-0"]]
    assert found.models == 2_000
