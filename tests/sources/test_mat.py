"""MATLAB files are held against SciPy's reader and the library of HDF5, and hostile ones against the bounds."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.io
import torch

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from tests.layouts.measured import distances, read
from tests.sources import array_files
from tests.sources.array_files import cells

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def opened(content: bytes, folder: Path) -> Checkpoint:
    (folder / "x.mat").write_bytes(content)
    [ref] = expand(folder / "x.mat")
    return open_ref(ref)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_those_of_scipy(packed: bool, tmp_path: Path) -> None:
    given = {
        "single": normal(4, 6), "double": normal(3, 5).astype(float), "row": normal(1, 9), "cube": normal(2, 3, 4),
        "small": np.arange(12.0).reshape(3, 4), "whole": np.arange(8, dtype=np.int16).reshape(2, 4),
        "s": {"w": normal(2, 7), "text": "hi", "inner": {"c": cells(normal(3, 3), "x", normal(2, 2))}}, "n": 3.0,
    }  # fmt: skip
    content = array_files.mat_5(given, packed=packed)
    stored = scipy.io.loadmat(io.BytesIO(content))  # type: ignore[arg-type]  # stubs: no file objects
    expected = {name: stored[name] for name in ("single", "double", "row", "cube", "small")}
    expected |= {"s.w": given["s"]["w"]}  # type: ignore[index]
    inner = given["s"]["inner"]["c"]  # type: ignore[index]
    expected |= {"s.inner.c{1}": inner[0, 0], "s.inner.c{3}": inner[0, 2]}
    with opened(content, tmp_path) as checkpoint:
        infos = {info.name: info for info in checkpoint.tensors}
        assert infos.keys() == expected.keys() | {"whole"}
        for name, array in expected.items():
            assert infos[name].dtype == array.dtype.name
            np.testing.assert_array_equal(checkpoint.read(name), array)
        assert any("which axis" in note for note in checkpoint.facts.notes)


def test_big_endian_files_and_narrow_numbers(tmp_path: Path) -> None:
    """A matrix of doubles that are stored as bytes, as MATLAB writes whole numbers, in the other byte order."""
    array = np.arange(6).reshape(2, 3)
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 3) + struct.pack(">HH", 1, 1) + b"w\0\0\0"
    body += struct.pack(">II", 2, 6) + array.astype("u1").T.tobytes() + b"\0\0"
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    stored = scipy.io.loadmat(io.BytesIO(content))  # type: ignore[arg-type]  # stubs: no file objects
    np.testing.assert_array_equal(stored["w"], array)
    with opened(content, tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), array)
        assert checkpoint.tensors[0].dtype == "float64"


def simplenn(as_cells: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A network of MatConvNet, and its parameters in torch's layout."""
    conv, up, head = normal(3, 3, 2, 5), normal(2, 2, 4, 5), normal(1, 1, 4, 7)
    layers = as_cells(
        {"type": "conv", "name": "c1", "weights": as_cells(conv, normal(1, 5)), "stride": np.ones((1, 1))},
        {"type": "relu", "name": "r1"},
        {"type": "bnorm", "name": "b1", "weights": as_cells(normal(5, 1), normal(5, 1), normal(5, 2))},
        {"type": "convt", "name": "u1", "weights": as_cells(up, normal(1, 4))},
        {"type": "conv", "name": "c2", "weights": as_cells(head, normal(1, 7))},
    )
    expected = {
        "layers.0.weight": conv.transpose(3, 2, 0, 1), "layers.3.weight": up.transpose(3, 2, 0, 1),
        "layers.4.weight": head.transpose(3, 2, 0, 1),
    }  # fmt: skip
    return {"net": {"layers": layers, "meta": {"averageImage": normal(9, 9, 3)}}}, expected


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_networks_of_matconvnet(version: str, tmp_path: Path) -> None:
    given, expected = simplenn(cells if version == "5" else lambda *values: list(values))
    content = array_files.mat_5(given) if version == "5" else array_files.write_mat_7(given)
    with opened(content, tmp_path) as checkpoint:
        names = {info.name for info in checkpoint.tensors}
        assert {name for name in names if name.endswith("weight") and ".2." not in name} == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(checkpoint.read(name), array)
        assert not any("average" in name.lower() for name in names)  # of the images, and no parameter
        plan = plan_weights(checkpoint)
        reasons = {skipped.name: skipped.reason for skipped in plan.skipped}
        assert reasons["layers.2.running_var"] == "batch statistics"
        assert [layer.shape for layer in plan.layers] == [(5, 2, 3, 3), (4, 5, 2, 2), (7, 4, 1, 1)]


def test_a_network_is_that_of_torch(tmp_path: Path) -> None:
    given, expected = simplenn(cells)
    arrays = {"0.weight": "layers.0.weight", "4.weight": "layers.4.weight"}
    state = {name: torch.from_numpy(np.ascontiguousarray(expected[own])) for name, own in arrays.items()}
    kept = cells(given["net"]["layers"][0, 0], given["net"]["layers"][0, 4])
    torch.save(state, tmp_path / "x.pt")
    found = read(opened(array_files.mat_5({"layers": kept}), tmp_path))
    same = read(open_ref(expand(tmp_path / "x.pt")[0]))
    assert distances(found.measured, same.measured)["layered"] < 1e-6
    other = read(opened(array_files.mat_5({"layers": cells(kept[0, 1], kept[0, 0])}), tmp_path))
    assert distances(other.measured, same.measured)["layered"] > 1e-3  # the control: another order


def test_graphs_of_matconvnet(tmp_path: Path) -> None:
    conv = normal(3, 3, 2, 5)
    layers = np.array(
        [("c1", "dagnn.Conv", cells("f", "b")), ("r", "dagnn.ReLU", cells())],
        dtype=[("name", object), ("type", object), ("params", object)],
    )
    params = np.array([("f", conv), ("b", normal(5, 1))], dtype=[("name", object), ("value", object)])
    with opened(array_files.mat_5({"net": {"layers": layers, "params": params}}), tmp_path) as checkpoint:
        assert {info.name: info.shape for info in checkpoint.tensors} == {"c1.weight": (5, 2, 3, 3), "c1.bias": (5,)}
        np.testing.assert_array_equal(checkpoint.read("c1.weight"), conv.transpose(3, 2, 0, 1))


def test_windows_of_other_files_are_turned(tmp_path: Path) -> None:
    filters, square = normal(3, 3, 8, 64), normal(3, 3, 4, 4)
    with opened(array_files.mat_5({"filters": filters, "square": square}), tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("filters"), filters.transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(checkpoint.read("square"), square)  # nothing tells: as stored


def test_cells_that_hold_themselves_end(tmp_path: Path) -> None:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=512) as file:
        cell = file.create_dataset("c", (2, 1), dtype=h5py.ref_dtype)
        cell[0, 0] = cell[1, 0] = cell.ref
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    data = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + content.getvalue()[128:]
    with pytest.raises(UnsafeError, match=r"nests deeper than|holds more than"):
        opened(data, tmp_path)


def element(kind: int, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(data) if size is None else size) + data + bytes(-len(data) % 8)


def matrix(shape: tuple[int, ...], data: bytes, kind: int = 6, stored: int = 9) -> bytes:
    dims = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", kind, 0)) + dims + element(1, b"w") + element(stored, data))


def file(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def packed(data: bytes) -> bytes:
    content = zlib.compress(data)
    return struct.pack("<II", 15, len(content)) + content


def nested(depth: int) -> bytes:
    inner = matrix((2, 2), bytes(32))
    for _ in range(depth):
        head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"c")
        inner = element(14, head + inner)
    return inner


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (file(matrix((10**6, 10**6), bytes(64))), WeightsError, "in 64 bytes"),
        (file(matrix((2**31 - 1,) * 8, bytes(64))), WeightsError, "in 64 bytes"),
        (file(matrix((-2, -2), bytes(32))), WeightsError, "negative dimension"),
        (file(matrix((2, 2), bytes(32), stored=99)), WeightsError, "in 32 bytes"),
        (file(element(14, b"", 2**32 - 8)), WeightsError, "where 0 are left"),
        (file(element(77, bytes(8))), WeightsError, "an element of type 77"),
        (file(packed(bytes(80 * 2**20))), UnsafeError, "would unpack"),
        (file(packed(matrix((2, 2), bytes(32)))[:-4] + b"\0\0\0\0"), WeightsError, "unpacked|cut off|ends inside"),
        (file(nested(100)), UnsafeError, "nests deeper than 64"),
        (file(matrix((1000, 1000), b"", kind=1)), WeightsError, "1000000 values"),
        (b"MATLAB 5.0 MAT-file" + bytes(60), WeightsError, "cut off inside its header"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01XX" + bytes(64), WeightsError, "byte order"),
        (file(matrix((2, 2), bytes(32)), matrix((2, 2), bytes(32))), WeightsError, "'w' twice"),
        (array_files.mat_5({"t": "text"}), WeightsError, "no arrays of numbers"),
    ],
    ids=["extents", "overflow", "negative", "type", "length", "element", "bomb", "zlib", "deep", "cells", "short",
         "order", "twice", "text"],
)  # fmt: skip
def test_hostile_files(content: bytes, error: type[RegistryError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words) as caught:
        opened(content, tmp_path)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [array_files.mat_5, array_files.mat_7])
@pytest.mark.parametrize("place", range(10))
def test_files_that_are_cut_off_are_refused(make: Callable[[], bytes], place: int, tmp_path: Path) -> None:
    content = make()
    (tmp_path / "x.mat").write_bytes(content[: 20 + len(content) * place // 10])
    with pytest.raises(RegistryError) as caught:
        array_files.read_all(tmp_path / "x.mat")
    assert caught.value.remedy


def test_a_file_of_matlab_4_is_told(tmp_path: Path) -> None:
    written = tmp_path / "written.mat"
    scipy.io.savemat(str(written), {"weight": np.ones((13, 24))}, format="4")
    with pytest.raises(WeightsError, match="is a file of MATLAB 4"):
        opened(written.read_bytes(), tmp_path)
