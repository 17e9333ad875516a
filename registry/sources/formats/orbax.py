"""Source for Orbax's checkpoints: folders of zarr arrays, each in files of its own or all in one OCDBT database.

A folder is one model; the file that stands for it is ``_METADATA``. What is read of it are the keys of the tree: where
an array lies follows from its keys and the folder, and never from what a file says, so that the library is given
nothing but local folders. Arrays are read in the rows that are asked for. Optimiser state is left out; names are the
keys joined by slashes, which `array_layouts` knows from Flax.

Sources: ``orbax/checkpoint/_src/metadata/tree.py`` and ``type_handlers.py`` of orbax-checkpoint 0.11 (``tree_metadata``
and the names of arrays); the drivers ``zarr``, ``zarr3`` and ``ocdbt`` in TensorStore's documentation.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import LocalBytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor
from registry.sources.formats.flax import without_optimiser
from registry.types import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAX_JSON = 64 * 2**20  # bytes
_MAX_FILES = 2_000_000
_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion of a folder, and bytes below which any is allowed
_AT_ONCE = 256  # arrays whose headers are read together
_ARRAYS = frozenset({"jax.Array", "np.ndarray", "scalar"})
_DTYPES = frozenset({
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
})  # fmt: skip
_DAMAGED = "download or save it again"


def open_orbax(ref: ModelRef) -> Checkpoint:
    """Open a folder by its ``_METADATA``; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "leave --key out: all parameters are read")
    path = Path(ref.target)
    with LocalBytes(path) as file:
        if file.size > _MAX_JSON:
            raise UnsafeError(f"{path} has {file.size} bytes", "save the parameters alone")
        text = file.read_at(0, file.size)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no valid JSON", _DAMAGED) from error
    listed = content.get("tree_metadata") if isinstance(content, dict) else None
    if not isinstance(listed, dict):
        raise WeightsError(f"{path} does not list the arrays of a checkpoint", _DAMAGED)
    folder = path.parent.absolute()
    size = _size_of(folder)
    names = dict(_names(listed, path))
    if len(names) > MAX_TENSORS:
        raise UnsafeError(f"{path} lists {len(names)} arrays, more than {MAX_TENSORS}", "split the checkpoint")
    kept = without_optimiser(dict.fromkeys(names), str(folder))
    stored = {name: names[full] for full in names for name in [_same(full, kept)] if name}
    driver = "zarr3" if content.get("use_zarr3") is True else "zarr"
    database = (folder / "manifest.ocdbt").is_file()
    return LazyCheckpoint(ref, _opened(folder, stored, driver, size, database=database), NO_FACTS)


def _same(full: str, kept: Mapping[str, object]) -> str:
    """The name under which an array was kept, as a whole or without what is in front of it; empty if it was not."""
    if full in kept:
        return full
    return next((name for at, sign in enumerate(full) if sign == "/" and (name := full[at + 1 :]) in kept), "")


def _names(listed: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    """The name of every array, and that by which it is stored."""
    for entry in listed.values():
        values = entry.get("value_metadata") if isinstance(entry, dict) else None
        keys = entry.get("key_metadata") if isinstance(entry, dict) else None
        if not isinstance(values, dict) or not isinstance(keys, list):
            raise WeightsError(f"{path} does not list the arrays of a checkpoint", _DAMAGED)
        if values.get("value_type") not in _ARRAYS or values.get("skip_deserialize") is True:
            continue
        parts = [key.get("key") if isinstance(key, dict) else None for key in keys]
        texts = [part for part in parts if isinstance(part, str)]
        stored = ".".join(texts)
        if len(texts) < len(parts) or not stored or set("/\\\0") & set(stored) or stored in (".", ".."):
            raise UnsafeError(f"{path} lists an array {stored[:60]!r}, which is no name", "save it again")
        yield "/".join(texts), stored


def _size_of(folder: Path) -> int:
    """Bytes of all files of a folder.

    Raises ``UnsafeError`` for a link anywhere in it: the library would follow it, wherever it leads.
    """
    total = files = 0
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            files += 1
            status = os.lstat(os.path.join(here, name))  # noqa: PTH118 - of many thousands
            if files > _MAX_FILES:
                raise UnsafeError(f"{folder} holds more than {_MAX_FILES} files", "save it with OCDBT")
            if os.path.islink(os.path.join(here, name)):  # noqa: PTH114, PTH118
                raise UnsafeError(f"{folder} holds a link, {name[:60]!r}", "copy the folder with its files: cp -rL")
            total += status.st_size
    return total


def _opened(
    folder: Path, stored: Mapping[str, str], driver: str, size: int, *, database: bool
) -> dict[str, LazyTensor]:
    """The arrays of a folder by name; their headers are read."""
    try:
        import tensorstore
    except ImportError as error:
        raise SourceError(
            f"{folder} is a checkpoint of Orbax, and tensorstore is not installed",
            "pip install 'architecture-registry[orbax]'",
        ) from error
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}})
    found: dict[str, LazyTensor] = {}
    claimed = 0
    names = list(stored)
    for start in range(0, len(names), _AT_ONCE):
        waiting = []
        for name in names[start : start + _AT_ONCE]:
            base = {"driver": "file", "path": f"{folder}/"}
            store: dict[str, Any] = {"driver": "file", "path": f"{folder}/{stored[name]}/"}
            if database:
                store = {"driver": "ocdbt", "base": base, "path": f"{stored[name]}/"}
            spec = {"driver": driver, "kvstore": store}
            waiting.append((name, tensorstore.open(spec, open=True, read=True, context=context)))
        for name, future in waiting:
            array = _result(future, folder, name)
            tensor, chunk = _tensor(array, folder, name)
            claimed += tensor.bytes
            if max(claimed, chunk) > max(_MAX_RATIO * size, _HARMLESS):
                raise UnsafeError(
                    f"{folder} would unpack {size} bytes to {max(claimed, chunk)}", "save it without compression"
                )
            found[name] = tensor
    return found


def _result(future: Any, folder: Path, name: str) -> Any:
    """What an operation of the library gives; its errors are one line."""
    try:
        return future.result()
    except (ValueError, OSError, RuntimeError, NotImplementedError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{folder}: {name[:100]} cannot be read: {reason}", _DAMAGED) from error


def _tensor(array: Any, folder: Path, name: str) -> tuple[LazyTensor, int]:
    """An array whose rows are read when asked for, and the bytes of one of its chunks."""
    dtype, shape = str(array.dtype.name), tuple(int(extent) for extent in array.shape)
    if dtype not in _DTYPES:
        raise WeightsError(f"{folder}: {name[:100]} is of type {dtype[:40]}", "save it as float32")
    if any(extent < 0 for extent in array.domain.origin) or any(array.domain.origin):
        raise WeightsError(f"{folder}: {name[:100]} does not start at zero", _DAMAGED)
    if "blosc" in json.dumps(array.codec.to_json() if array.codec is not None else ""):
        # The library takes as much memory for it as a chunk claims; of Orbax's own zstd no more than a chunk has.
        raise UnsafeError(f"{folder}: {name[:100]} is packed by blosc, which Orbax does not use", "save it with Orbax")
    width = bits_of(dtype) // 8
    row = math.prod(shape[1:]) * width

    def span(start: int, stop: int) -> memoryview:
        if stop <= start or not row:
            return memoryview(b"")
        low, high = start // row, min(shape[0] if shape else 1, -(-stop // row))
        values = _result((array[low:high] if shape else array).read(), folder, name)
        data: memoryview = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        return data[start - low * row : stop - low * row]

    chunk = array.chunk_layout.read_chunk.shape
    return LazyTensor(dtype, shape, span), math.prod(chunk or shape) * width


SOURCE = Source(name="orbax", open=open_orbax, headers=True)
