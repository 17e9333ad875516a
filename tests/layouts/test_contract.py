"""One network, stored in any layout, gives the same layer matrices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.sources import expand, open_module, open_ref, plan_weights
from tests.layouts.files import LOSSLESS, ROUNDED
from tests.layouts.measured import distances, read
from tests.layouts.networks import NETWORKS, build

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from registry.types import ModelRef, WeightsPlan
    from tests.layouts.measured import Read


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {}


def network(networks: dict[str, nn.Module], name: str) -> nn.Module:
    if name not in networks:
        networks[name] = build(name)
    return networks[name]


def check_shapes(live: Read, found: Read) -> None:
    expected = [(layer.shape, layer.name) for layer in live.plan.layers]
    got = [(layer.shape, layer.name) for layer in found.plan.layers]
    assert [shape for shape, _ in got] == [shape for shape, _ in expected], f"{got} instead of {expected}"


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
    module = network(networks, name)
    live = read(open_module(module))
    write, precision, bound = ROUNDED[layout]
    [ref] = expand(write(module, tmp_path / "model"))
    found = read(open_ref(ref))
    if layout == "float8" and "fp8" not in found.plan.precision:
        pytest.skip("it has no linear layer, or only a tied head")
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


def test_internlm2_is_llama_with_fused_projections(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    """Per group of key-value heads: its query heads, its key head, its value head. The library is not on the index."""
    module = network(networks, "llama")
    live = read(open_module(module))
    width, group = 8, 2  # of a head; query heads a key-value head
    state: dict[str, torch.Tensor] = {}
    for name, tensor in module.state_dict().items():
        for old, new in INTERNLM2.items():
            name = name.replace(old, new)
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            layer = name.split(".")[2]
            q, k, v = (module.state_dict()[f"model.layers.{layer}.self_attn.{one}_proj.weight"] for one in "qkv")
            parts = (q.reshape(-1, group, width, q.shape[1]), k.reshape(-1, 1, width, k.shape[1]))
            fused = torch.cat([*parts, v.reshape(-1, 1, width, v.shape[1])], 1)
            name, tensor = f"model.layers.{layer}.attention.wqkv.weight", fused.reshape(-1, q.shape[1])
        state[name] = tensor.clone()
    config = {"model_type": "internlm2", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    save_file(state, tmp_path / "model.safetensors")
    [ref] = expand(tmp_path)
    unknown = plan_weights_of(ref)
    assert len(unknown.layers) == len(live.plan.layers) - 4  # the control: whole where no configuration tells
    assert unknown.notes == (
        "model.layers.0.attention.wqkv.weight and 1 tensor like it are taken whole: query, key and value are fused "
        "in a layout that no configuration beside the weights tells",
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read(open_ref(expand(tmp_path)[0]))
    check_shapes(live, found)
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=layer.name)
    assert set(distances(live.measured, found.measured).values()) == {0.0}
    assert found.plan.notes == ()


INTERNLM2 = {
    "embed_tokens": "tok_embeddings",
    "lm_head": "output",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def plan_weights_of(ref: ModelRef) -> WeightsPlan:
    with open_ref(ref) as checkpoint:
        return plan_weights(checkpoint)
