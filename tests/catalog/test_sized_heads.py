"""A file is compared with layouts of the catalogue whose heads have its own number of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Among, Registry, shipped
from registry.architectures.catalogue_file import write_catalogue
from registry.catalog import layout_vectors
from registry.catalog.subjects import shapes_query
from registry.shipped import checksum_file, checksum_of
from tests.catalog.small_catalogue import ARCHITECTURES, LAYOUTS, network
from tests.cli.conftest import archreg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["archreg"]  # the fixture

NOTE = "compared with heads sized to 10 classes as in the file"


def saved(folder: Path, tensors: dict[str, Any], name: str = "mine") -> Path:
    path = folder / f"{name}.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return path


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The small catalogue with the vectors of 1,000 classes."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    vectors = {
        layout.id: shapes_query(saved(tmp_path, network(layout.id, classes=1000), f"whole{layout.id}")).vector
        for layout in LAYOUTS
    }
    counts = {
        layout.id: sum(W.size for name, W in network(layout.id, classes=1000).items() if "running" not in name)
        for layout in LAYOUTS
    }
    built = [replace(one, parameters=counts[one.layout]) for one in ARCHITECTURES]
    path = folder / "catalogue.db"
    write_catalogue(path, LAYOUTS, built, (), (), vectors=vectors, similar={}, facts={"versions": {"timm": "1"}})
    checksum_file(path).write_text(checksum_of(path))
    monkeypatch.setattr(shipped, "FOLDER", folder)
    with Registry("catalogue:") as opened:
        yield opened


@pytest.mark.parametrize(("layout", "own"), [(1, "torchvision/convnet"), (2, "timm/convnet_t"),
                                             (3, "torchvision/convnet_deep")])  # fmt: skip
def test_the_own_architecture_is_first_at_distance_zero(
    catalogue: Registry, tmp_path: Path, layout: int, own: str
) -> None:
    found = catalogue.search(saved(tmp_path, network(layout)))
    assert found.neighbours[0].model.name == own
    assert found.neighbours[0].distance == 0.0
    assert found.neighbours[0].verdict.equivalent
    assert found.neighbours[-1].distance > 0.0
    assert NOTE in found.note


def test_without_sizing_it_would_lie_apart(
    catalogue: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, network(1))
    monkeypatch.setattr(layout_vectors, "sized_vectors", lambda *_: None)
    found = catalogue.search(file)
    assert found.neighbours[0].distance > 0.01
    assert found.note == ""


def test_the_nearest_are_sized_beside_those_recognised(
    catalogue: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, network(1))
    whole = {near.model.name: near.distance for near in catalogue.search(file).neighbours}
    monkeypatch.setattr(layout_vectors, "COMPARED_ANEW", 0)
    few = {near.model.name: near.distance for near in catalogue.search(file).neighbours}
    assert few["torchvision/convnet"] == whole["torchvision/convnet"] == 0.0
    assert few["torchvision/convnet_deep"] != whole["torchvision/convnet_deep"]


def test_names_and_a_missing_head(catalogue: Registry, tmp_path: Path) -> None:
    numbered = {f"t{at}": W for at, W in enumerate(network(3).values())}
    found = catalogue.search(saved(tmp_path, numbered, "numbered"))
    assert (found.neighbours[0].model.name, found.neighbours[0].distance) == ("torchvision/convnet_deep", 0.0)
    bare = catalogue.search(saved(tmp_path, network(3, without=("head.weight", "head.bias")), "bare"))
    assert (bare.neighbours[0].model.name, bare.neighbours[0].distance) == ("torchvision/convnet_deep", 0.0)
    assert bare.note.startswith("The file has no head: ")


def test_a_filter_keeps_the_own_architecture_out(catalogue: Registry, tmp_path: Path) -> None:
    found = catalogue.search(saved(tmp_path, network(1)), architecture="convnet_deep")
    assert [near.model.name for near in found.neighbours] == ["torchvision/convnet_deep"]
    assert found.neighbours[0].distance > 0.0


def test_compress_and_like_compare_the_same(catalogue: Registry, tmp_path: Path) -> None:
    file = saved(tmp_path, network(3, classes=2000))
    distances = {near.model.name: near.distance for near in catalogue.search(file).neighbours}
    found = catalogue.compress(file)
    assert found.candidates[0].verdict.distance == distances[found.candidates[0].model.name]
    assert "heads sized to 2,000 classes" in found.note
    alike = catalogue.select(aims=["min:distance"], like=file)
    assert alike.classes[0].best.distance == 0.0


def test_among_registries(catalogue: Registry, tmp_path: Path, database_url: str) -> None:
    with Registry(database_url) as own:
        own.ingest(saved(tmp_path, network(1, seed=3, trained=True), "other"))
    with Among(database_url, "catalogue:") as several:
        for seed in (3, 4):  # of the first the registry holds the weights
            found = several.nearest(saved(tmp_path, network(1, seed=seed, trained=True)))
            assert found.by_shapes is not None
            assert found.by_shapes.neighbours[0].distance == 0.0
            assert NOTE in found.by_shapes.note


def test_the_command_says_so(catalogue: Registry, tmp_path: Path, archreg: Any) -> None:
    file = str(saved(tmp_path, network(1)))
    done = archreg("nearest", "--db", "catalogue:", file)
    assert NOTE in done.out
    assert NOTE in archreg("nearest", "--db", "catalogue:", file, "--json").document["note"]


def test_no_answer_reads_as_if_weights_had_been_compared(catalogue: Registry, tmp_path: Path, archreg: Any) -> None:
    file = str(saved(tmp_path, network(3, classes=2000)))
    told = "alike in shapes; weights were not read"
    done = archreg("compress", "--db", "catalogue:", file)
    lines = done.out.splitlines()
    assert sum(told in line for line in lines) >= 3  # above the table, in it, and last
    assert lines[-1] == f"torchvision/convnet and mine are {told}: what it loses is not known."
    assert "architectures, these are alike" in done.out
    assert "equivalent" not in done.out
    document = archreg("compress", "--db", "catalogue:", file, "--json").document
    assert (document["rests_on"], document["equivalent_means"]) == ("shapes", told)
    near = archreg("nearest", "--db", "catalogue:", file)
    assert told in near.out
    assert "equivalent" not in near.out
    assert archreg("nearest", "--db", "catalogue:", file, "--json").document["equivalent_means"] == told
    chosen = archreg("select", "--db", "catalogue:", "--like", file, "--aim", "min:distance")
    assert "alike in shapes to mine (weights not read)" in chosen.out


def test_models_by_headers_alone_are_alike_in_shapes(tmp_path: Path, database_url: str, archreg: Any) -> None:
    saved(tmp_path, network(1, trained=True), "one")
    saved(tmp_path, network(3, trained=True), "two")
    with Registry(database_url) as own:
        for name in ("one", "two"):
            own.ingest(tmp_path / f"{name}.safetensors", headers_only=True)
    asked = ("--db", database_url, "--tolerance", "9")
    for command in (("nearest", "one"), ("compare", "one", "two"), ("compress", "two")):
        done = archreg(*command, *asked)
        assert "alike in shapes; weights were not read" in done.out, command
        assert "are equivalent" not in done.out, command
        assert archreg(*command, *asked, "--json").document["rests_on"] == "shapes"
