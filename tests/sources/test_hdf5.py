"""HDF5 files are held against the library that defines them, and hostile ones against the bounds."""

from __future__ import annotations

import io
import itertools
import struct
import time
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref
from registry.sources.files.byte_source import ByteSource, open_bytes
from registry.sources.formats.hdf5 import Hdf5, NotNumbersError
from tests.sources import array_files

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
STORES: tuple[dict[str, Any], ...] = (
    {}, {"chunks": (3, 4)}, {"chunks": (3, 4), "compression": "gzip"}, {"chunks": (1, 1)},
    {"chunks": (5, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
    {"chunks": (5, 17), "compression": "lzf", "shuffle": True}, {"chunks": (23, 17)},
    {"chunks": (23, 17), "compression": "gzip"}, {"chunks": (4, 3), "fletcher32": True},
    {"maxshape": (None, None), "chunks": (2, 7), "compression": "gzip"},
    {"maxshape": (None, None), "chunks": (2, 7)},
)  # fmt: skip
DTYPES = ("<f4", ">f4", "<f2", ">f8", "i1", "<i8", ">u2", "?")


def opened(path: Path) -> Hdf5:
    return Hdf5(open_bytes(path))


def values(file: Hdf5, name: str) -> np.ndarray:
    node = file.child(file.root, name)
    assert node is not None
    tensor = file.tensor(node)
    array: np.ndarray = np.frombuffer(tensor.span(0, tensor.bytes), np.dtype(tensor.dtype).newbyteorder("<"))
    return array.reshape(tensor.shape)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("version", [None, "v108", "v110", "latest"])
def test_what_the_library_writes_is_read(version: str | None, tracked: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=version, track_order=tracked) as file:
        for (number, store), dtype in itertools.product(enumerate(STORES), DTYPES):
            name = dtype.replace("<", "l").replace(">", "b").replace("?", "flag")
            file.create_dataset(f"g{number}/{name}", data=(RNG.standard_normal((23, 17)) * 50).astype(dtype), **store)
        file["scalar"], file["empty"] = np.float32(3.5), np.zeros((0, 3), "f4")
        for number in range(700):
            file[f"many/m{number}"] = np.full((2, 2), number, "f4")
        for number in range(300):
            file["many"].attrs[f"a{number}"] = f"value {number}"
        file["many"].attrs["list"] = ["x", "yy", "zzz"]
        file["many"].attrs["bytes"] = np.array([b"ab", b"c"])
        file["many"].attrs["numbers"] = np.arange(3.0)
        file["many"].attrs["long"] = "x" * 60_000
        file["many"].attrs["pieces0"], file["many"].attrs["pieces1"] = ["a", "b"], ["c"]
    with h5py.File(path) as file, opened(path) as ours:
        names = set()
        for node in ours.walk():
            if node.is_dataset:
                names.add(node.path)
                tensor = ours.tensor(node)
                data = np.frombuffer(tensor.span(0, tensor.bytes), np.dtype(tensor.dtype).newbyteorder("<"))
                np.testing.assert_array_equal(data.reshape(tensor.shape), file[node.path][()], err_msg=node.path)
        expected: set[str] = set()
        file.visititems(lambda name, item: expected.add(name) if isinstance(item, h5py.Dataset) else None)
        assert names == expected
        many = ours.child(ours.root, "many")
        assert many is not None
        for name, value in file["many"].attrs.items():
            plain = value
            if isinstance(value, np.ndarray):
                plain = [each.decode() if isinstance(each, bytes) else each for each in value.tolist()]
            assert ours.attribute(many, name) == plain, name
        assert ours.attribute(many, "none") is None
        assert ours.texts(many, "pieces") == ["a", "b", "c"]


def test_links_that_go_in_circles_are_walked_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b/w"] = np.eye(3)
        file["a/b/up"] = file["a"]
        file["a/top"] = file["/"]
        file["soft"] = h5py.SoftLink("/loop")
        file["loop"] = h5py.SoftLink("/soft")
    with opened(tmp_path / "x.h5") as ours:
        assert [node.path for node in ours.walk()] == ["a", "a/b", "a/b/w"]


def outside(kind: str, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as file:
        file["w"] = np.eye(4)
    (folder / "raw").write_bytes(bytes(1000))
    with h5py.File(folder / "x.h5", "w", libver="latest" if kind == "virtual" else None) as file:
        file["sound"] = np.eye(3)
        if kind == "link":
            file["w"] = h5py.ExternalLink("other.h5", "w")
        elif kind == "storage":
            file.create_dataset("w", (4, 4), "f8", external=[(str(folder / "raw"), 0, 128)])
        else:
            layout = h5py.VirtualLayout((4, 4), "f8")
            layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "w", (4, 4))
            file.create_virtual_dataset("w", layout)


@pytest.mark.parametrize("kind", ["link", "storage", "virtual"])
def test_nothing_outside_of_the_file_is_read(kind: str, tmp_path: Path) -> None:
    outside(kind, tmp_path)
    with pytest.raises(UnsafeError, match=r"link to another file|keeps its values in other files"):
        open_ref(expand(tmp_path / "x.h5")[0])


def test_filters_that_are_not_read_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", data=np.arange(100).reshape(10, 10), chunks=(5, 5), scaleoffset=4)
    with opened(tmp_path / "x.h5") as ours, pytest.raises(UnsafeError, match=r"filter 6 \(scaleoffset\)"):
        values(ours, "w")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"shape": (10**6, 10**6), "chunks": (1000, 1000), "compression": "gzip"}, UnsafeError, "would unpack"),
        ({"shape": (10**6, 10**6)}, WeightsError, "never written"),
        ({"shape": (4, 10**4), "maxshape": (None, None), "chunks": (10**4, 10**4)}, UnsafeError, "has chunks of"),
    ],
    ids=["chunks", "plain", "one-chunk"],
)
def test_claims_take_no_memory(given: dict[str, Any], error: type[RegistryError], words: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", dtype="f4", **given)
    with opened(tmp_path / "x.h5") as ours, pytest.raises(error, match=words):
        values(ours, "w")


def test_extents_that_no_array_has_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", (0, 7777), "f4", chunks=(1, 7777), maxshape=(None, 7777))
    content = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(content.replace(struct.pack("<QQ", 0, 7777), struct.pack("<QQ", 0, 2**62)))
    with opened(tmp_path / "x.h5") as ours, pytest.raises(WeightsError, match="an extent of"):
        values(ours, "w")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", data=np.zeros((5000, 5000), "f4"), chunks=(5000, 5000), compression="gzip")
    with pytest.raises(UnsafeError, match="would unpack"):
        open_ref(expand(tmp_path / "x.h5")[0])


def test_chunks_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("w", (64, 64), "f4", chunks=(64, 64), compression="gzip")
        import zlib

        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(50_000_000)))
    with opened(tmp_path / "x.h5") as ours, pytest.raises(WeightsError, match=r"has 16385 bytes in place of 16384"):
        values(ours, "w")


def test_checksums_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=RNG.standard_normal((7, 5)), chunks=(7, 5), fletcher32=True)
    with opened(path) as ours:
        before = values(ours, "w")
    data = bytearray(path.read_bytes())
    data[data.find(before.tobytes()) + 9] ^= 1
    path.write_bytes(data)
    with opened(path) as ours, pytest.raises(WeightsError, match="checksum of w differs"):
        values(ours, "w")


@pytest.mark.parametrize("place", range(10))
def test_a_file_that_is_cut_off_is_refused(place: int, tmp_path: Path) -> None:
    content = array_files.hdf5()
    (tmp_path / "x.h5").write_bytes(content[: max(1, len(content) * place // 10)])
    with pytest.raises(RegistryError) as caught:
        array_files.read_all(tmp_path / "x.h5")
    assert caught.value.remedy


def test_a_heap_without_an_end_is_walked_once(tmp_path: Path) -> None:
    """The library never comes back from an object of no bytes in a heap of texts."""
    content = bytearray(array_files.hdf5())
    at = content.find(b"GCOL") + 16
    struct.pack_into("<HHIQ", content, at, 9, 1, 0, 0)
    content[at + 16 : at + 4000] = bytes(4000 - 16)
    (tmp_path / "x.h5").write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="a text that is not in its heap"):
        open_ref(expand(tmp_path / "x.h5")[0])
    assert time.monotonic() - begun < 5


def test_an_index_that_leads_into_itself_is_refused(tmp_path: Path) -> None:
    content = bytearray(array_files.hdf5())
    at = content.find(b"TREE")
    content[at + 5] = 1  # a level above the leaves, whose child is the same node
    struct.pack_into("<Q", content, at + 24 + 8, at)
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(WeightsError, match=r"leads back into itself|of wrong levels"):
        open_ref(expand(tmp_path / "x.h5")[0])


def test_what_is_no_tensor_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"], file["text"] = np.eye(3), "text"
        file["records"] = np.zeros(3, [("a", "f4"), ("b", "i4"), ("c", "i2")])
    with open_ref(expand(tmp_path / "x.h5")[0]) as checkpoint:
        assert [info.name for info in checkpoint.tensors] == ["w"]
        assert any("2 datasets of the file are no tensors" in note for note in checkpoint.facts.notes)
    with opened(tmp_path / "x.h5") as ours, pytest.raises(NotNumbersError, match="records"):
        values(ours, "records")


class Counted(ByteSource):
    """Counts what is asked for."""

    def __init__(self, data: bytes) -> None:
        self.name, self.size, self.data, self.read = "x.h5", len(data), data, 0

    def read_at(self, start: int, count: int) -> bytes:
        if start < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        self.read += count
        return self.data[start : start + count]


def test_only_the_tensor_asked_for_is_read() -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for number in range(4):
            file[f"w{number}"] = RNG.standard_normal((500, 1000))
    source = Counted(content.getvalue())
    ours = Hdf5(source)
    tensors = [ours.tensor(node) for node in ours.walk() if node.is_dataset]
    structure = source.read
    assert structure < 600_000 < source.size / 20
    tensors[2].span(0, 800)
    assert source.read - structure == 800


def test_an_enumeration_without_its_base_type_is_refused() -> None:
    """Its class and size alone, and nothing behind them."""
    file = object.__new__(Hdf5)
    file.name = "x.h5"
    with pytest.raises(WeightsError):
        file._type(bytes((0x18, 0, 0, 0, 4, 0, 0, 0)))
