"""One network, stored in any layout, gives the same layer matrices."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from registry.catalog.measuring import measure
from registry.equivalence.distances import DISTANCES
from registry.sources import expand, layer_matrix, open_module, open_ref, plan_weights
from tests.layouts.files import LOSSLESS, ROUNDED
from tests.layouts.networks import NETWORKS, build

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from registry.catalog.measuring import Measured
    from registry.types import Checkpoint, WeightsPlan

MISSING = [name for name in ("transformers", "timm") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"not installed: {MISSING}")


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {}


def network(networks: dict[str, nn.Module], name: str) -> nn.Module:
    if name not in networks:
        networks[name] = build(name)
    return networks[name]


class Read(NamedTuple):
    plan: WeightsPlan
    matrices: list[np.ndarray]
    measured: Measured
    names: set[str]


def read(checkpoint: Checkpoint) -> Read:
    with checkpoint:
        plan = plan_weights(checkpoint)
        matrices = [layer_matrix(checkpoint, layer) for layer in plan.layers]
        return Read(plan, matrices, measure(checkpoint, plan, threads=1), {info.name for info in checkpoint.tensors})


def check_shapes(live: Read, found: Read) -> None:
    expected = [(layer.shape, layer.name) for layer in live.plan.layers]
    got = [(layer.shape, layer.name) for layer in found.plan.layers]
    assert [shape for shape, _ in got] == [shape for shape, _ in expected], f"{got} instead of {expected}"


def distances(one: Measured, other: Measured) -> dict[str, float]:
    """By fingerprint, the L1 distance."""
    return {
        a.spec.name: float(DISTANCES["l1"].rows((a.vector - b.vector)[None].astype(np.float64))[0])
        for a, b in zip(one.fingerprints, other.fingerprints, strict=True)
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_are_those_of_the_architecture(name: str, networks: dict[str, nn.Module]) -> None:
    module = network(networks, name)
    plan = plan_weights(open_module(module))
    assert not plan.unread
    if NETWORKS[name].layers:
        assert len(plan.layers) == NETWORKS[name].layers, [layer.name for layer in plan.layers]
    assert plan.parameters == sum({id(p): p.numel() for p in module.parameters()}.values())


@pytest.mark.parametrize("layout", LOSSLESS)
@pytest.mark.parametrize("name", NETWORKS)
def test_lossless_layouts_give_the_same_matrices(
    name: str, layout: str, networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    live = read(open_module(network(networks, name)))
    [ref] = expand(LOSSLESS[layout](network(networks, name), tmp_path / "model"))
    found = read(open_ref(ref))
    check_shapes(live, found)
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=layer.name)
    assert (found.plan.topology, found.plan.parameters) == (live.plan.topology, live.plan.parameters)
    assert set(distances(live.measured, found.measured).values()) == {0.0}
    if found.names <= live.names:  # the file holds the tensors of the module, not others made of them
        assert found.plan.content_hash == live.plan.content_hash


@pytest.mark.parametrize("layout", ROUNDED)
@pytest.mark.parametrize("name", NETWORKS)
def test_rounded_layouts_stay_within_the_precision_of_the_format(
    name: str, layout: str, networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    live = read(open_module(network(networks, name)))
    write, precision, bound = ROUNDED[layout]
    [ref] = expand(write(network(networks, name), tmp_path / "model"))
    found = read(open_ref(ref))
    check_shapes(live, found)
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        rows = np.abs(one).max(axis=1, keepdims=True)
        assert (np.abs(one - two) <= precision * np.abs(one) + precision * 2.0**-6 * rows).all(), layer.name
    assert found.plan.content_hash != live.plan.content_hash
    assert max(distances(live.measured, found.measured).values()) < bound


def test_other_weights_are_another_network(networks: dict[str, nn.Module]) -> None:
    """The control: what the contract calls equal is not equal for all networks."""
    one, other = (read(open_module(network(networks, name))) for name in ("llama", "llama-tied"))
    assert min(distances(one.measured, other.measured).values()) > 0.01
    assert one.plan.content_hash != other.plan.content_hash
