"""Flax's MessagePack files and Orbax's folders are held against what their libraries wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest

from registry.errors import RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import SOURCES, expand, open_ref, plan_weights
from registry.sources.formats import flax
from registry.types import ModelRef, Plan
from tests.conftest import missing
from tests.layouts.measured import distances, read
from tests.sources import array_files

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

ORBAX = ("ocdbt0-zarr0", "ocdbt0-zarr1", "ocdbt1-zarr0", "ocdbt1-zarr1", "managed")


def made(kind: str, folder: Path) -> Path:
    if importlib.util.find_spec("orbax") is None or importlib.util.find_spec("flax") is None:
        missing("flax and orbax-checkpoint of the dependency group layouts")
    command = [sys.executable, "-m", "tests.sources.jax_files", kind, str(folder)]
    subprocess.run(command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def flax_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("flax", tmp_path_factory.mktemp("flax"))


@pytest.fixture(scope="module")
def orbax_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("orbax", tmp_path_factory.mktemp("orbax"))


def stored(ref: ModelRef) -> dict[str, np.ndarray]:
    """The floating-point arrays of a file as they are stored, before `array_layouts`."""
    with SOURCES[ref.source].open(ref) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors if info.dtype != "int64"}


def check(ref: ModelRef, folder: Path) -> None:
    with np.load(folder / "expected.npz") as arrays:
        expected = dict(arrays)
    found = {name: array for name, array in stored(ref).items() if name != "step"}
    assert found.keys() == expected.keys()  # and nothing of the optimiser
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["whole.msgpack", "chunked.msgpack"])
def test_arrays_are_those_that_flax_wrote(name: str, flax_files: Path) -> None:
    [ref] = expand(flax_files / name)
    assert ref.source == "flax"
    check(ref, flax_files)


@pytest.mark.parametrize("name", ORBAX)
def test_a_folder_of_orbax_is_one_model(name: str, orbax_folders: Path) -> None:
    found = expand(orbax_folders / name)
    assert isinstance(found, Plan)
    [ref] = found
    assert ref.source == "orbax"
    assert ref.name in (name, "1/default")
    assert any(left.reason == "part of another file" for left in found.left_out)
    check(ref, orbax_folders)


def test_one_network_has_one_fingerprint(flax_files: Path, orbax_folders: Path, tmp_path: Path) -> None:
    """From Flax, Orbax, and an archive of NumPy that another reader reads, in other dtypes."""
    first = read(open_ref(expand(flax_files / "whole.msgpack")[0]))
    assert [layer.shape for layer in first.plan.layers] == [(4, 2, 3, 3), (50, 4), (5, 50)]
    files = [flax_files / "chunked.msgpack", *(orbax_folders / name for name in ORBAX)]
    for path in files:
        other = read(open_ref(expand(path)[0]))
        assert set(distances(first.measured, other.measured).values()) == {0.0}
        assert other.plan.content_hash == first.plan.content_hash
    with np.load(flax_files / "expected.npz") as arrays:
        np.savez(tmp_path / "x.npz", **dict(arrays))
    same = read(open_ref(expand(tmp_path / "x.npz")[0]))
    assert distances(first.measured, same.measured)["layered"] == 0
    (tmp_path / "other.msgpack").write_bytes(array_files.flax())
    other = read(open_ref(expand(tmp_path / "other.msgpack")[0]))
    assert distances(first.measured, other.measured)["layered"] > 0.01  # the control


def test_what_an_optimiser_trains_is_the_model(tmp_path: Path) -> None:
    """T5X and flax.optim keep the parameters within the optimiser."""
    w = np.random.default_rng(1).standard_normal((3, 4)).astype("f4")
    tree = {"optimizer": {"target": {"d": {"kernel": w}}, "state": {"param_states": {"d": {"kernel": {"m": w + 1}}}}}}
    path = tmp_path / "x.msgpack"
    path.write_bytes(array_files.flax(tree))
    found = stored(expand(path)[0])
    assert list(found) == ["d/kernel"]
    np.testing.assert_array_equal(found["d/kernel"], w)


def extension(shape: Any, dtype: str, data: bytes, code: int = 1) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, msgpack.packb((shape, dtype, data))))
    return packed


def file(*values: bytes) -> bytes:
    return bytes([0x80 | len(values)]) + b"".join(b"\xa1" + bytes([97 + at]) + each for at, each in enumerate(values))


HOSTILE: dict[str, tuple[bytes, type[RegistryError], str]] = {
    "extents": (file(extension([10**12, 10**12], "float32", bytes(16))), WeightsError, "in 16 bytes"),
    "negative": (file(extension([-2, -8], "float32", bytes(64))), WeightsError, "extents"),
    "dimensions": (file(extension([1] * 40, "float32", bytes(4))), WeightsError, "without a shape"),
    "dtype": (file(extension([2], "object", bytes(16))), WeightsError, "the dtype 'object'"),
    "no-array": (file(msgpack.packb(msgpack.ExtType(1, b"\x93"))), WeightsError, "its end inside an item"),
    "length": (b"\x81\xa1a\xc6\xff\xff\xff\xff", WeightsError, "an item of 4294967295 bytes"),
    "entries": (b"\x81\xa1a\xdf\xff\xff\xff\xff", WeightsError, "a container of 4294967295 elements"),
    "nested": (b"\x81\xa1a" * 1000 + b"\xc0", UnsafeError, "nests deeper than 200"),
    "lists": (b"\x81\xa1a" + b"\x91" * 1000 + b"\xc0", UnsafeError, "nests deeper than 200"),
    "unknown": (b"\x81\xa1a\xc1", WeightsError, "unknown kind 0xc1"),
    "behind": (file(b"\xc0") + b"rest", WeightsError, "4 bytes behind"),
    "nothing": (file(b"\xc0"), WeightsError, "holds no tensors"),
    "optimiser": (b"\x81\xa9opt_state" + file(extension([2], "float32", bytes(8))), WeightsError, "optimiser alone"),
    "elsewhere": (file(msgpack.packb("PLACEHOLDER://params.a")), WeightsError, "in folders beside it"),
    "twice": (b"\x82" + (b"\xa1a" + extension([1], "float32", bytes(4))) * 2, WeightsError, "'a' twice"),
    "chunks": (
        file(msgpack.packb({"__msgpack_chunked_array__": True, "shape": {"0": 10**12}, "chunks": {}})),
        WeightsError, "do not make its shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    content, error, words = HOSTILE[name]
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        open_ref(expand(tmp_path / "x.msgpack")[0])
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_items_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flax._MAX_ITEMS == 5_000_000
    monkeypatch.setattr(flax, "_MAX_ITEMS", 5_000)
    for count, error, words in ((5_000, UnsafeError, "more than 5000 items"), (4_990, WeightsError, "no tensors")):
        (tmp_path / "x.msgpack").write_bytes(b"\x81\xa1a\xdd" + count.to_bytes(4, "big") + bytes(count))
        with pytest.raises(error, match=words):
            open_ref(expand(tmp_path / "x.msgpack")[0])


@pytest.mark.parametrize("place", range(10))
def test_files_that_are_cut_off_are_refused(place: int, tmp_path: Path) -> None:
    content = array_files.flax()
    (tmp_path / "x.msgpack").write_bytes(content[: max(1, len(content) * place // 10)])
    with pytest.raises(RegistryError):
        array_files.read_all(tmp_path / "x.msgpack")


# Orbax


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of Orbax of one matrix."""
    (tmp_path / "model").mkdir()
    return array_files.orbax(tmp_path / "model", {"params/a/weight": np.random.default_rng(2).standard_normal((6, 4))})


def opened(folder: Path) -> Checkpoint:
    return open_ref(ModelRef("orbax", str(folder / "_METADATA"), "x"))


def changed(folder: Path, **values: Any) -> None:
    path = folder / "params.a.weight" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def named(folder: Path, *keys: Any) -> None:
    entry = {"key_metadata": [{"key": key} for key in keys], "value_metadata": {"value_type": "jax.Array"}}
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": {"x": entry}}))


def test_rows_are_read_when_asked_for(folder: Path) -> None:
    array = np.random.default_rng(2).standard_normal((6, 4))
    with opened(folder) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("params/a/weight"), array)
        with SOURCES["orbax"].open(checkpoint.ref) as plain:
            assert bytes(plain.span("params/a/weight", 40, 100)) == array.tobytes()[40:100]


def test_nothing_outside_of_the_folder_is_read(folder: Path) -> None:
    for keys in (("..", "x"), ("params", "..", "..", "x"), ("/etc/passwd",), ("a/../../b",), ("a\0b",), (3,)):
        named(folder, *keys)
        with pytest.raises(SourceError):
            opened(folder)
    named(folder, "params", "a", "weight")
    opened(folder).close()
    (folder / "link").symlink_to("/etc")
    with pytest.raises(UnsafeError, match="holds a link, 'link'"):
        opened(folder)


def test_the_library_refuses_keys_that_lead_out(tmp_path: Path) -> None:
    """What a database names are keys of this driver, so that a damaged one leads nowhere else."""
    import tensorstore

    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("secret")
    store = tensorstore.KvStore.open({"driver": "file", "path": f"{tmp_path}/inside/"}).result()
    for key in ("../secret", "a/../../secret", f"{tmp_path}/secret"):
        try:
            assert store.read(key).result().state == "missing"
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"shape": [10**6, 10**6]}, UnsafeError, "would unpack"),
        ({"shape": [10**12, 10**12]}, SourceError, "would unpack|cannot be read"),
        ({"chunks": [10**6, 10**6]}, SourceError, "would unpack|cannot be read"),
        ({"shape": [-1, 4]}, WeightsError, "cannot be read"),
        ({"dtype": "|O"}, WeightsError, "cannot be read"),
        ({"compressor": {"id": "no such"}}, WeightsError, "cannot be read"),
        ({"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0}}, UnsafeError, "packed by blosc"),
        ({"zarr_format": 9}, WeightsError, "cannot be read"),
    ],
)
def test_hostile_headers(folder: Path, values: dict[str, Any], error: type[RegistryError], words: str) -> None:
    changed(folder, **values)
    with pytest.raises(error, match=words) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"tree_metadata": 3}', '{"tree_metadata": {"a": 3}}'])
def test_metadata_that_is_none(folder: Path, content: str) -> None:
    (folder / "_METADATA").write_text(content)
    with pytest.raises(WeightsError):
        opened(folder)


def test_a_chunk_unpacks_to_no_more_than_it_has(folder: Path) -> None:
    """A bomb: a chunk of 256 MiB in place of one of 192 bytes."""
    import tensorstore

    store = {"driver": "file", "path": f"{folder}/bomb/"}
    given = {"shape": [2**28], "dtype": "|u1", "chunks": [2**28], "compressor": {"id": "zstd", "level": 1}}
    made = tensorstore.open({"driver": "zarr", "kvstore": store, "metadata": given}, create=True).result()
    made.write(np.ones(2**28, "u1")).result()
    (folder / "bomb" / "0").rename(folder / "params.a.weight" / "0.0")
    with opened(folder) as checkpoint, pytest.raises(WeightsError, match="cannot be read"):
        checkpoint.raw("params/a/weight")


def test_damaged_chunks_are_said_when_they_are_read(folder: Path) -> None:
    [chunk] = [path for path in (folder / "params.a.weight").iterdir() if path.name[0] != "."]
    chunk.write_bytes(b"short")
    with opened(folder) as checkpoint, pytest.raises(WeightsError, match="cannot be read"):
        plan_weights(checkpoint)
