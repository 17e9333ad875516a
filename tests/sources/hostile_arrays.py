"""Hostile files of the formats that hold arrays by names, for the corpus: name, file, maker, and what refuses it."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import h5py
import msgpack
import numpy as np

from registry.errors import SourceError, UnsafeError, WeightsError
from tests.sources import array_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Row = tuple[str, str, Callable[[Path, Path], object], type[SourceError], str]

__all__ = ["HOSTILE_ARRAYS"]

OTHER = "secret.safetensors"


def _written(content: bytes) -> Callable[[Path, Path], object]:
    return lambda path, _: path.write_bytes(content)


def _hdf5(fill: Callable[[h5py.File, Path], object]) -> Callable[[Path, Path], object]:
    def make(path: Path, outside: Path) -> None:
        with h5py.File(path, "w") as file:
            fill(file, outside)

    return make


def _virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout((4, 4), "f8")
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "w", (4, 4))
    file.create_virtual_dataset("w", layout)


def _circle(file: h5py.File, _: Path) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    file["g/g"] = file["/"]


def _archive(weights: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", weights)
    return content.getvalue()


def _lying() -> bytes:
    content = bytearray(_archive(bytes(100 * 2**20)))
    struct.pack_into("<I", content, content.rfind(b"PK\x01\x02") + 24, 1000)
    return bytes(content)


def _endless() -> bytes:
    """A heap of texts with an object of no bytes, from which the HDF5 library does not come back."""
    content = bytearray(array_files.hdf5())
    at = content.find(b"GCOL") + 16
    content[at : at + 4000] = struct.pack("<HHIQ", 9, 1, 0, 0) + bytes(3984)
    return bytes(content)


def _mat_bomb() -> bytes:
    packed = zlib.compress(bytes(80 * 2**20))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def _self_holding() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=512) as file:
        cell = file.create_dataset("c", (2, 1), dtype=h5py.ref_dtype)
        cell[0, 0] = cell[1, 0] = cell.ref
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    return b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + content.getvalue()[128:]


def _flax(shape: Any, data: bytes) -> bytes:
    packed: bytes = msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((shape, "float32", data)))})
    return packed


def _orbax_link(path: Path, outside: Path) -> None:
    array_files.orbax(path.parent, {"params/a/weight": np.eye(3)})
    (path.parent / "d").symlink_to(outside)


def _orbax_keys(*keys: str) -> Callable[[Path, Path], object]:
    entry = {"key_metadata": [{"key": key} for key in keys], "value_metadata": {"value_type": "jax.Array"}}
    return _written(json.dumps({"tree_metadata": {"x": entry}}).encode())


HOSTILE_ARRAYS: tuple[Row, ...] = (
    ("hdf5-link", "x.h5", _hdf5(lambda f, out: f.update({"w": h5py.ExternalLink(str(out / "secret.h5"), "w")})),
     UnsafeError, "is a link to another file"),
    ("hdf5-storage", "x.h5",
     _hdf5(lambda f, out: f.create_dataset("w", (4, 4), "f8", external=[(str(out / OTHER), 0, 128)])),
     UnsafeError, "keeps its values in other files"),
    ("hdf5-virtual", "x.h5", _hdf5(_virtual), UnsafeError, "keeps its values in other files"),
    ("hdf5-circle", "x.h5", _hdf5(_circle), WeightsError, "holds no tensors"),
    ("hdf5-endless", "x.h5", _written(_endless()), WeightsError, "a text that is not in its heap"),
    ("hdf5-extents", "x.h5", _hdf5(lambda f, _: f.create_dataset("w", (10**6, 10**6), "f4", chunks=(100, 100))),
     UnsafeError, "would unpack"),
    ("hdf5-unwritten", "x.h5", _hdf5(lambda f, _: f.create_dataset("w", (10**6, 10**6), "f4")), WeightsError,
     "was never written"),
    ("hdf5-bomb", "x.h5",
     _hdf5(lambda f, _: f.create_dataset("w", data=np.zeros((5000, 5000), "f4"), compression="gzip")), UnsafeError,
     "would unpack"),
    ("keras-bomb", "x.keras", _written(_archive(bytes(100 * 2**20))), UnsafeError, "would unpack"),
    ("keras-lies", "x.keras", _written(_lying()), SourceError, "unpack|size"),
    ("keras-config", "x.keras", _written(array_files.keras(config="[" * 10**5)), WeightsError, "no valid JSON"),
    ("keras-no-hdf5", "x.keras", _written(_archive(b"text", zipfile.ZIP_STORED)), WeightsError, "no superblock"),
    ("mat-bomb", "x.mat", _written(_mat_bomb()), UnsafeError, "would unpack"),
    ("mat-itself", "x.mat", _written(_self_holding()), UnsafeError, "nests deeper|holds more"),
    ("mxnet-count", "x.params", _written(struct.pack("<QQQ", 0x112, 0, 2**60)), UnsafeError, "claims"),
    ("mxnet-extents", "x.params",
     _written(struct.pack("<QQQIiiqqiii", 0x112, 0, 1, 0xF993FAC9, 0, 2, 10**12, 10**12, 1, 0, 0)), WeightsError,
     "claims a tensor of shape"),
    ("flax-nested", "x.msgpack", _written(b"\x81\xa1a" * 100_000 + b"\xc0"), UnsafeError, "nests deeper"),
    ("flax-extents", "x.msgpack", _written(_flax([10**12, 10**12], bytes(16))), WeightsError, "in 16 bytes"),
    ("orbax-link", "_METADATA", _orbax_link, UnsafeError, "holds a link"),
    ("orbax-above", "_METADATA", _orbax_keys("..", "..", "outside"), SourceError, "_METADATA|cannot be read"),
    ("orbax-absolute", "_METADATA", _orbax_keys("/etc/passwd"), UnsafeError, "which is no name"),
)  # fmt: skip
