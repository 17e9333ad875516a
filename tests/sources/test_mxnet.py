"""MXNet's parameters: all versions of its arrays, names, graphs beside them, and what is refused."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from tests.layouts.measured import distances, read
from tests.sources import array_files

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

RNG = np.random.default_rng(0)


def opened(content: bytes, folder: Path, name: str = "x.params") -> Checkpoint:
    (folder / name).write_bytes(content)
    [ref] = expand(folder / name)
    return open_ref(ref)


def test_a_published_file(originals: Path) -> None:
    lines = [json.loads(line) for line in (originals / "manifest.jsonl").read_text().splitlines()]
    [line] = [line for line in lines if line["format"] == "mxnet-params"]
    with open_ref(expand(originals / line["file"])[0]) as checkpoint:
        plan = plan_weights(checkpoint)
    assert (plan.parameters, len(plan.layers)) == (line["parameters"], line["matrices"]) == (1_027_544, 37)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_versions_of_arrays(version: int, tmp_path: Path) -> None:
    arrays = {"arg:a_weight": RNG.standard_normal((3, 4)).astype("f4"), "b_weight": RNG.standard_normal((2, 3, 1, 2)),
              "n": np.arange(3), "h_weight": RNG.standard_normal((4, 2)).astype("f2")}  # fmt: skip
    with opened(array_files.mxnet(arrays, version=version), tmp_path) as checkpoint:
        assert [info.name for info in checkpoint.tensors] == ["a.weight", "b.weight", "n", "h.weight"]
        for name, array in zip(("a.weight", "b.weight", "n", "h.weight"), arrays.values(), strict=True):
            found = checkpoint.raw(name)
            assert bytes(found) == array.tobytes()


def test_a_network_is_that_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    net.conv0, net.bn0, net.fc1 = torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.Linear(6, 4)
    names = {"weight": "weight", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_var"}
    arrays = {}
    for name, value in net.state_dict().items():
        module, leaf = name.split(".")
        if leaf in names:
            own = {"weight": "gamma", "bias": "beta"}.get(leaf, names[leaf]) if module == "bn0" else names[leaf]
            arrays[f"{'aux' if leaf.startswith('running') else 'arg'}:{module}_{own}"] = value.numpy()
    torch.save(net.state_dict(), tmp_path / "x.pt")
    same = read(open_ref(expand(tmp_path / "x.pt")[0]))
    found = read(opened(array_files.mxnet(arrays), tmp_path))
    assert distances(found.measured, same.measured)["layered"] == 0
    assert found.plan.content_hash == same.plan.content_hash
    assert {skip.name: skip.reason for skip in found.plan.skipped}["bn0.moving_mean"] == "batch statistics"
    arrays["arg:fc1_weight"] = arrays["arg:fc1_weight"] + np.eye(4, 6, dtype="f4")
    other = read(opened(array_files.mxnet(arrays), tmp_path))
    assert distances(other.measured, same.measured)["layered"] > 1e-3  # the control


def test_the_graph_tells_transposed_convolutions(tmp_path: Path) -> None:
    weight = RNG.standard_normal((5, 3, 2, 2)).astype("f4")
    content = array_files.mxnet({"arg:up_weight": weight, "arg:fc_weight": np.eye(3, dtype="f4")})
    with opened(content, tmp_path, "net-0007.params") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("up.weight"), weight)
    up = {"op": "Deconvolution", "name": "up", "inputs": [[0, 0, 0], [1, 0, 0]]}
    odd = {"op": "x", "inputs": [[99], [-1]]}
    nodes = [{"op": "null", "name": "data"}, {"op": "null", "name": "up_weight"}, up, odd]
    (tmp_path / "net-symbol.json").write_text(json.dumps({"nodes": nodes}))
    with opened(content, tmp_path, "net-0007.params") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("up.kernel"), weight.transpose(1, 0, 2, 3))
    (tmp_path / "net-symbol.json").write_text("[" * 100_000)  # which cannot be read, and names tell
    with opened(content, tmp_path, "net-0007.params") as checkpoint:
        assert "up.weight" in {info.name for info in checkpoint.tensors}


def start(count: int = 1) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, count)


def array(shape: tuple[int, ...], kind: int = 0, storage: int = 0, data: bytes = b"") -> bytes:
    head = struct.pack("<Iii", 0xF993FAC9, storage, len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
    return head + struct.pack("<iii", 1, 0, kind) + data


NAMES = struct.pack("<QQ", 1, 1) + b"w"


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (start(2**40), UnsafeError, "claims 1099511627776 arrays"),
        (start() + array((10**12, 10**12)) + NAMES, WeightsError, "claims a tensor"),
        (start() + array((-5, 5)) + NAMES, WeightsError, "claims a tensor"),
        (start() + array((2, 2), kind=99, data=bytes(16)) + NAMES, WeightsError, "the unknown type 99"),
        (start() + array((2, 2), storage=1) + NAMES, WeightsError, "a sparse array"),
        (start() + struct.pack("<Iii", 0xF993FAC9, 0, 10**6), WeightsError, "1000000 dimensions"),
        (start() + array((2, 2), data=bytes(16)) + struct.pack("<Q", 7), WeightsError, "has 7 names of 1 arrays"),
        (start() + array((2, 2), data=bytes(16)) + struct.pack("<QQ", 1, 2**60), UnsafeError, "a name of"),
        (start(2) + array((2, 2), data=bytes(16)) * 2 + struct.pack("<Q", 2) + (struct.pack("<Q", 1) + b"w") * 2,
         WeightsError, "'w' twice"),
        (struct.pack("<QQ", 0x112, 0), WeightsError, "ends early"),
    ],
    ids=["count", "extents", "negative", "type", "sparse", "dimensions", "names", "name", "twice", "short"],
)  # fmt: skip
def test_hostile_files(content: bytes, error: type[RegistryError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words) as caught:
        opened(content, tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize("place", range(10))
def test_files_that_are_cut_off_are_refused(place: int, tmp_path: Path) -> None:
    content = array_files.mxnet()
    (tmp_path / "x.params").write_bytes(content[: max(1, len(content) * place // 10)])
    with pytest.raises(RegistryError):
        array_files.read_all(tmp_path / "x.params")
