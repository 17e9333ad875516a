from __future__ import annotations

import hashlib
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import AmbiguousError, NotFoundError, WeightsError
from registry.sources import expand, layer_matrix, open_module, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint, WeightsPlan


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 8)
        self.conv = torch.nn.Conv2d(3, 6, 3)
        self.bn = torch.nn.BatchNorm2d(6)
        self.rnn = torch.nn.LSTM(8, 8)
        self.attn = torch.nn.MultiheadAttention(8, 2)
        self.fp16 = torch.nn.Linear(8, 7).half()
        self.bf16 = torch.nn.Linear(8, 6).bfloat16()
        self.fp64 = torch.nn.Linear(8, 5).double()
        self.head = torch.nn.Linear(8, 11)
        self.head.weight = self.embedding.weight


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net()


def opened(path: Path, key: str | None = None) -> Checkpoint:
    (ref,) = expand(path, key=key)
    return open_ref(ref)


def planned(path: Path, key: str | None = None) -> WeightsPlan:
    with opened(path, key) as checkpoint:
        return plan_weights(checkpoint)


def saved(tmp_path: Path, content: Any, name: str = "x.pt", **options: Any) -> Path:
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def test_the_same_weights_are_the_same_from_every_format(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    clones = {name: tensor.clone() for name, tensor in state.items()}
    save_file(dict(reversed(clones.items())), tmp_path / "x.safetensors")
    save_file(prefixed(clones, "module."), tmp_path / "parallel.safetensors")
    files = [
        saved(tmp_path, state),
        saved(tmp_path, state, "legacy.pt", _use_new_zipfile_serialization=False),
        saved(
            tmp_path, {"epoch": 3, "state_dict": prefixed(state, "module."), "optimizer": {"state": {}}}, "wrapped.ckpt"
        ),
        saved(tmp_path, {"model": prefixed(state, "_orig_mod.module.")}, "compiled.bin"),
        saved(tmp_path, {"n_averaged": torch.tensor(3), **prefixed(state, "module.")}, "averaged.th"),
        tmp_path / "x.safetensors",
        tmp_path / "parallel.safetensors",
    ]
    with open_module(net) as live:
        expected = plan_weights(live)
        matrices = [layer_matrix(live, layer) for layer in expected.layers]
    assert len(expected.layers) > 10
    for path in files:
        with opened(path) as checkpoint:
            assert plan_weights(checkpoint) == expected, path.name
            for layer, matrix in zip(expected.layers, matrices, strict=True):
                found = layer_matrix(checkpoint, layer)
                assert found.dtype == matrix.dtype
                assert found.flags.c_contiguous
                np.testing.assert_array_equal(found, matrix, strict=True)


def test_half_precision_widens_exactly(net: Net, tmp_path: Path) -> None:
    save_file({k: t.clone() for k, t in net.state_dict().items()}, tmp_path / "x.safetensors")
    with opened(tmp_path / "x.safetensors") as checkpoint:
        for name in ("fp16", "bf16", "fp64"):
            read = checkpoint.read(f"{name}.weight")
            assert read.dtype == (np.float64 if name == "fp64" else np.float32)
            np.testing.assert_array_equal(read, net.get_parameter(f"{name}.weight").detach().to(torch.float64).numpy())


def test_content_hash_and_topology_stay_what_they_were(tmp_path: Path) -> None:
    state = {"fc.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "fc.bias": torch.zeros(2)}
    plan = planned(saved(tmp_path, state))
    whole = hashlib.sha256()
    for name, shape in (("fc.weight", "(2, 3)"), ("fc.bias", "(2,)")):
        for field in (b"float32", shape.encode(), hashlib.sha256(state[name].numpy().tobytes()).digest()):
            whole.update(struct.pack("<Q", len(field)) + field)
    assert plan.content_hash == whole.hexdigest() == "f20e656ea7ccb96921a7859598719c434ecb1ef2937dae5b40ab26752c573f04"
    assert plan.topology == hashlib.sha256(b"2x3").hexdigest()[:16]
    assert (plan.parameters, plan.bytes) == (8, 32)


def test_safetensors_metadata_completes_the_card(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 2)}, tmp_path / "x.safetensors", {"license": "MIT", "format": "pt", "source": "here"})
    with opened(tmp_path / "x.safetensors") as checkpoint:
        assert (checkpoint.ref.card.licence, checkpoint.ref.card.source) == ("MIT", "here")


A = {"a.weight": torch.eye(3)}
B = {"b.weight": torch.eye(4)}


@pytest.mark.parametrize(
    ("content", "layer"),
    [
        ({"model": A, "model_ema": B, "epoch": 1}, "b.weight"),
        ({"state_dict": A, "ema": {"decay": 0.9, "shadow": B}}, "b.weight"),
        ({"net": A, "criterion": B}, "a.weight"),
        ({"whatever": A, "args": {"lr": 0.1}}, "a.weight"),
        ({"checkpoint": {"model": {"state_dict": A}}}, "a.weight"),
        ({"state_dict": A, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.eye(3)}}}}, "a.weight"),
        ({"state_dict": A, "model": A}, "a.weight"),
        ({**A, "epoch": 3}, "a.weight"),
        ({"model.a.weight": torch.eye(3)}, "model.a.weight"),
    ],
)
def test_wrapped_state_dicts_are_found(content: dict[str, Any], layer: str, tmp_path: Path) -> None:
    plan = planned(saved(tmp_path, content))
    assert [x.name for x in plan.layers] == [layer]
    told = {
        "model_ema": ("entry model_ema was read; --key chooses another: model",),
        "ema": ("entry ema.shadow was read; --key chooses another: state_dict",),
        "criterion": ("entry net was read; --key chooses another: criterion",),
    }
    assert plan.notes == next((note for key, note in told.items() if key in content), ())


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"generator": A, "discriminator": B}, "generator, discriminator"),
        ({"state_dict": A, "model": B}, "state_dict, model"),
        ({"model": A, "ema": A, "model_ema": B}, "ema, model_ema"),
    ],
)
def test_several_state_dicts_are_ambiguous_and_a_key_chooses(
    content: dict[str, Any], keys: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(AmbiguousError, match=keys) as caught:
        opened(path)
    assert "--key" in str(caught.value)
    for key in keys.split(", "):
        assert len(planned(path, key).layers) == 1


def test_keys_reach_into_entries(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": {"y": A, "z": B}, "x.y": B})
    assert planned(path, "x.z").layers[0].name == "b.weight"
    assert planned(path, "x.y").layers[0].name == "b.weight"
    with pytest.raises(NotFoundError, match=r"no entry 'x\.w'"):
        opened(path, "x.w")
    save_file(A, tmp_path / "x.safetensors")
    with pytest.raises(NotFoundError, match="never wrapped"):
        opened(tmp_path / "x.safetensors", "model")


def test_dots_in_a_path_are_left_out_where_no_link_stands_before_them(tmp_path: Path) -> None:
    (tmp_path / "b" / "within").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    path = saved(tmp_path, A)
    [ref] = expand(tmp_path / "a" / ".." / path.name)
    assert ref.target == str(path)
    (tmp_path / "link").symlink_to(tmp_path / "b" / "within")
    (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    [ref] = expand(tmp_path / "link" / ".." / path.name)
    assert ref.target == str(tmp_path / "link" / ".." / path.name)


def test_the_tensors_of_a_state_dict_are_no_entries(tmp_path: Path) -> None:
    path = saved(tmp_path, A)
    with pytest.raises(NotFoundError, match="no entry 'x'") as caught:
        opened(path, "x")
    assert caught.value.remedy == "its tensors are those of one model: leave the key out"
    with pytest.raises(WeightsError, match=f"^entry '{next(iter(A))}' of .* is a single tensor, not a state dict"):
        opened(path, next(iter(A)))
    path = saved(tmp_path, {"ema": A, "scale": torch.eye(3)})
    with pytest.raises(NotFoundError) as caught:
        opened(path, "x")
    assert caught.value.remedy == "available entries: ema"
    path = saved(tmp_path, {f"part{at:02}": A for at in range(12)})
    with pytest.raises(NotFoundError) as caught:
        opened(path, "x")
    assert str(caught.value.remedy).endswith("part09 and 2 more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.eye(3), "a single tensor without a name"),
        (["a", 3], "a list without weights"),
        ({"epoch": 3}, "no tensors, only: epoch"),
        ({}, "is an empty dictionary"),
        (3, "a int without weights"),
        ({"a.weight": torch.eye(3).to_sparse()}, "is sparse"),
        ({"a.weight": torch.eye(3, device="meta")}, "meta device"),
    ],
)
def test_what_is_no_state_dict_is_refused_in_words(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        opened(saved(tmp_path, content))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_live_module_is_named_and_left_as_it_was(net: Net) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with open_module(net) as unnamed, open_module(torch.nn.DataParallel(net), "mine") as named:
        assert (unnamed.ref.name, named.ref.name) == ("Net", "mine")
        assert plan_weights(unnamed) == plan_weights(named)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_reading_a_large_file_takes_the_memory_of_a_tensor(tmp_path: Path) -> None:
    count, size = 40, 1 << 20
    save_file({f"l.{i}.weight": torch.full((1024, 1024), float(i)) for i in range(count)}, tmp_path / "x.safetensors")
    with opened(tmp_path / "x.safetensors") as checkpoint:
        plan = plan_weights(checkpoint)
        tracemalloc.start()
        plan_weights(checkpoint)
        for layer in plan.layers:
            layer_matrix(checkpoint, layer)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(plan.layers) == count - 1  # the first is all zeros
    assert 4 * size <= peak < 4 * 4 * size
