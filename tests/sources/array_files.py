"""Small sound files of the formats that hold arrays by names: HDF5 and Keras, MATLAB, MXNet, Flax, NumPy, Orbax."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import msgpack
import numpy as np
import scipy.io

from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "cells",
    "flax",
    "hdf5",
    "keras",
    "keras_weights",
    "mat_5",
    "mat_7",
    "mxnet",
    "npy",
    "orbax",
    "read_all",
    "write_mat_7",
]

_MXNET = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")
Arrays = dict[str, np.ndarray]


def hdf5(**options: Any) -> bytes:
    """A model of Keras 2 with a configuration, in chunks of several filters and not; ``options``: of `h5py.File`."""
    rng, content = np.random.default_rng(0), io.BytesIO()
    layers = [{"class_name": "Dense", "config": {"name": "dense"}}, {"class_name": "Conv2D", "config": {"name": "c"}}]
    packed = {"chunks": (2, 3), "compression": "gzip", "shuffle": True, "fletcher32": True}
    with h5py.File(content, "w", **options) as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = np.array([b"dense", b"c"])
        dense = top.create_group("dense")
        dense.create_dataset("dense/kernel:0", data=rng.standard_normal((4, 5)).astype("f4"), **packed)
        dense["dense/bias:0"] = np.zeros(5, "f4")
        kernel = rng.standard_normal((3, 3, 2, 4)).astype(">f8")
        top.create_dataset("c/c/kernel:0", data=kernel, chunks=(3, 3, 2, 4), compression="lzf")
        for number in range(12):
            top.attrs[f"more{number}"] = "text"
        file["optimizer_weights/slot"] = np.ones(3)
    return content.getvalue()


def keras_weights() -> bytes:
    """Weights of Keras 3: variables by numbers."""
    rng, content = np.random.default_rng(1), io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in (("dense", rng.standard_normal((4, 5))), ("dense_1", rng.standard_normal((5, 3)))):
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["name"] = name
            group["0"] = array.astype("f4")
            group["1"] = np.zeros(array.shape[1], "f4")
        file["optimizer/vars/0"] = np.ones((4, 5), "f4")
    return content.getvalue()


def keras(weights: bytes | None = None, *, packed: bool = False, config: str = "{}") -> bytes:
    """A ``.keras`` archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", keras_weights() if weights is None else weights)
    return content.getvalue()


def cells(*values: Any) -> np.ndarray:
    """A MATLAB cell array of a row."""
    row = np.empty((1, len(values)), object)
    for at, value in enumerate(values):
        row[0, at] = value
    return row


def mat_5(variables: Mapping[str, Any] | None = None, *, packed: bool = True) -> bytes:
    """A MATLAB file of version 5: arrays in cells and structs."""
    rng, content = np.random.default_rng(2), io.BytesIO()
    given = variables or {
        "w": rng.standard_normal((4, 6)).astype("f4"),
        "net": {"name": "text", "layers": cells(rng.standard_normal((3, 4)), np.arange(6.0).reshape(2, 3), "relu")},
    }
    scipy.io.savemat(content, dict(given), do_compression=packed)  # type: ignore[arg-type]  # stubs: no file objects
    return content.getvalue()


class _Mat7:
    """What MATLAB writes as version 7.3: reversed axes, cells as references, the class in an attribute."""

    def __init__(self, file: h5py.File) -> None:
        self.references = file.create_group("#refs#")
        self.count = 0

    def put(self, group: Any, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            made = group.create_group(name)
            for key, each in value.items():
                self.put(made, key, each)
            kind = "struct"
        elif isinstance(value, list):
            inside = [self.alone(each) for each in value]
            made = group.create_dataset(name, (len(value), 1), dtype=h5py.ref_dtype)
            for at, each in enumerate(inside):
                made[at, 0] = each.ref
            kind = "cell"
        elif isinstance(value, str):
            made = group.create_dataset(name, data=np.array([[ord(sign)] for sign in value], np.uint16))
            kind = "char"
        else:
            packed = {"chunks": True, "compression": "gzip"} if value.size > 10 else {}
            made = group.create_dataset(name, data=np.ascontiguousarray(value.T), **packed)
            kind = {"float32": "single", "float64": "double"}[value.dtype.name]
        made.attrs["MATLAB_class"] = np.bytes_(kind)
        return made

    def alone(self, value: Any) -> Any:
        self.count += 1
        return self.put(self.references, f"r{self.count}", value)


def write_mat_7(variables: Mapping[str, Any]) -> bytes:
    """A MATLAB file of version 7.3: arrays, texts, structs as dictionaries, cells as lists."""
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=512) as file:
        writer = _Mat7(file)
        for name, value in variables.items():
            writer.put(file, name, value)
    data = bytearray(content.getvalue())
    data[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    return bytes(data)


def mat_7() -> bytes:
    """A MATLAB file of version 7.3 with a network of MatConvNet."""
    rng = np.random.default_rng(3)
    layer = {"type": "conv", "name": "c", "weights": [rng.standard_normal((3, 3, 2, 4)), rng.standard_normal((1, 4))]}
    return write_mat_7({"net": {"layers": [layer, {"type": "relu"}]}})


def mxnet(arrays: Mapping[str, np.ndarray] | None = None, *, version: int = 2) -> bytes:
    """A file of MXNet's parameters, as ``NDArray::Save`` of ``src/ndarray/ndarray.cc`` writes it; 0: the oldest."""
    rng = np.random.default_rng(4)
    given = arrays or {
        "arg:conv0_weight": rng.standard_normal((4, 2, 3, 3)).astype("f4"), "arg:conv0_bias": np.zeros(4, "f4"),
        "aux:bn0_moving_mean": np.ones(4, "f4"), "arg:fc1_weight": rng.standard_normal((3, 4)).astype("f2"),
    }  # fmt: skip
    content = struct.pack("<QQQ", 0x112, 0, len(given))
    for array in given.values():
        if version:
            content += struct.pack("<I", 0xF993FAC8 + version - 1)
        if version > 1:
            content += struct.pack("<i", 0)
        content += struct.pack(f"<i{array.ndim}{'q' if version else 'I'}", array.ndim, *array.shape)
        content += struct.pack("<iii", 1, 0, _MXNET.index(array.dtype.name)) + array.tobytes()
    content += struct.pack("<Q", len(given))
    for name in given:
        content += struct.pack("<Q", len(name)) + name.encode()
    return content


def read_all(path: Path) -> None:
    """Open a file and read everything in it."""
    with open_ref(expand(path)[0]) as checkpoint:
        for info in checkpoint.tensors:
            checkpoint.raw(info.name)
        plan_weights(checkpoint)


def flax_array(array: np.ndarray) -> msgpack.ExtType:
    """An array as Flax packs it."""
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))


def flax(tree: Any = None) -> bytes:
    """A file of Flax."""
    rng = np.random.default_rng(5)
    given = tree or {
        "params": {
            "Conv_0": {"kernel": rng.standard_normal((3, 3, 2, 4)).astype("f4"), "bias": np.zeros(4, "f4")},
            "Dense_0": {"kernel": rng.standard_normal((4, 5)).astype("f4"), "bias": np.zeros(5, "f4")},
        },
        "step": 3,
    }
    packed: bytes = msgpack.packb(given, default=flax_array, strict_types=True)
    return packed


def npy(array: np.ndarray | None = None) -> bytes:
    """A NumPy array."""
    content = io.BytesIO()
    np.save(content, np.random.default_rng(6).standard_normal((4, 3)).astype("f4") if array is None else array)
    return content.getvalue()


def orbax(folder: Path, arrays: Arrays) -> Path:
    """A checkpoint of Orbax with an array in files of its own each, by slashed names; the folder is returned."""
    import tensorstore

    listed = {}
    for name, array in arrays.items():
        parts = name.split("/")
        kvstore = {"driver": "file", "path": f"{folder}/{'.'.join(parts)}/"}
        metadata = {"shape": list(array.shape), "dtype": array.dtype.str, "chunks": [max(1, n) for n in array.shape],
                    "compressor": {"id": "zstd", "level": 1}}  # fmt: skip
        store = tensorstore.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, create=True).result()
        store.write(array).result()
        listed[str(tuple(parts))] = {
            "key_metadata": [{"key": part, "key_type": 2} for part in parts],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": listed, "use_zarr3": False}))
    return folder
