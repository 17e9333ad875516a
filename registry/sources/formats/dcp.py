"""Source for folders of ``torch.distributed.checkpoint``: ``.metadata`` and the tensors' pieces in ``__0_0.distcp``.

``.metadata`` is a pickle of the names, shapes and pieces of all tensors. Each piece is a file of ``torch.save`` within
a ``.distcp`` file, which lies beside; a tensor is put together from those that a read touches. The class
``Metadata`` is in ``torch/distributed/checkpoint/metadata.py``, the places of pieces (``_StorageInfo``) in
``filesystem.py`` beside it.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of
from registry.sources.files.archive import DAMAGED
from registry.sources.files.byte_parts import Section
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor
from registry.sources.formats.nested_torch_files import check_sums_in, lazy_state, tensor_in
from registry.sources.formats.pickles import Global, Instance, Key, as_mapping, read_pickle
from registry.sources.formats.pickles.stored_tensors import StoredTensor, extents
from registry.sources.formats.pickles.torch_legacy import CONSTRUCTORS
from registry.sources.formats.pickles.torch_values import QUANTISED, dtype_name
from registry.sources.shard_sets import MAX_SHARDS
from registry.sources.state_dicts import Content, stripped

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_FILE = re.compile(r"[\w.+-]{1,200}\.distcp", re.ASCII)
_MAX_PIECES = 4096  # of one tensor; each pair of them is compared
_MAX_LEVELS = 16  # of dictionaries in dictionaries
_PREFIX = "torch.distributed.checkpoint."


class _Piece(NamedTuple):
    """A part of a tensor: where it begins, its extents, and the bytes of its file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    section: Section


class ShardedTensor(StoredTensor):
    """A tensor in pieces."""

    __slots__ = ("dtype", "pieces", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], pieces: Sequence[_Piece]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.pieces = pieces

    @property
    def place(self) -> Hashable:
        """The record itself: no two share their bytes."""
        return id(self)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of the elements, and bytes of the pieces."""
        return math.prod(self.shape) * bits_of(self.dtype) // 8, sum(piece.section.size for piece in self.pieces)

    def lazy(self, name: str) -> LazyTensor:
        """The tensor, put together when it is read."""
        read = _Assembly(name, self.dtype, self.shape, self.pieces)
        return LazyTensor(self.dtype, self.shape, read.span)


class _Assembly:
    """Rows of a tensor from its pieces. A piece's file is looked at when it is first read."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], pieces: Sequence[_Piece]) -> None:
        self._name = name
        self._dtype = dtype
        self._shape = shape or (1,)
        self._width = bits_of(dtype) // 8
        self._pieces = [_Piece(p.offsets or (0,), p.sizes or (1,), p.section) for p in pieces]
        self._opened: dict[int, LazyTensor] = {}

    def span(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the whole tensor in C order."""
        row = math.prod(self._shape[1:]) * self._width
        if stop <= start or not row:
            return memoryview(b"")
        if len(self._pieces) == 1:  # which is the tensor
            return self._piece(0).span(start, stop)
        low, high = start // row, -(-stop // row)
        rows = np.zeros((high - low, *self._shape[1:]), f"V{self._width}")
        for number, piece in enumerate(self._pieces):
            first, last = max(low, piece.offsets[0]), min(high, piece.offsets[0] + piece.sizes[0])
            if first >= last:
                continue
            size = math.prod(piece.sizes[1:]) * self._width
            at = piece.offsets[0]
            data = self._piece(number).span((first - at) * size, (last - at) * size)
            part = np.frombuffer(data, f"V{self._width}").reshape(last - first, *piece.sizes[1:])
            within = tuple(slice(o, o + s) for o, s in zip(piece.offsets[1:], piece.sizes[1:], strict=True))
            rows[(slice(first - low, last - low), *within)] = part
        data = memoryview(rows.reshape(-1).view(np.uint8).data)
        return data[start - low * row : stop - low * row]

    def _piece(self, number: int) -> LazyTensor:
        found = self._opened.get(number)
        if found is None:
            piece = self._pieces[number]
            found = lazy_state({self._name: tensor_in(piece.section)}, piece.section)[self._name]
            sizes = found.shape or (1,)
            if found.dtype != self._dtype or sizes != piece.sizes:
                raise WeightsError(
                    f"{piece.section.name}: a piece of {self._name[:100]} is {found.dtype} {found.shape}, and the "
                    f"metadata say {self._dtype} {piece.sizes}",
                    DAMAGED,
                )
            self._opened[number] = found
        return found


class _Files:
    """The files of a checkpoint, all in its folder, opened once each."""

    def __init__(self, folder: Path, main: Path) -> None:
        self._folder = folder
        self._main = main
        self.open: dict[str, ByteSource] = {}

    def section(self, name: object, offset: object, length: object) -> Section:
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise UnsafeError(
                f"{self._main} names {str(name)[:60]!r}, which is not a .distcp file beside it",
                "download the checkpoint again",
            )
        if name not in self.open:
            if len(self.open) >= MAX_SHARDS:
                raise UnsafeError(f"{self._main} consists of more than {MAX_SHARDS} files", "save it in fewer files")
            self.open[name] = open_bytes(self._folder / name)
        if type(offset) is not int or type(length) is not int:
            raise WeightsError(f"{self._main} gives no place for a piece", DAMAGED)
        return Section(self.open[name], offset, length)


def open_dcp(ref: ModelRef) -> Checkpoint:
    """Open the checkpoint that a ``.metadata`` file describes; raises the errors of `open_ref`."""
    path = Path(ref.target)
    files = _Files(path.parent, path)
    try:
        with open_bytes(path) as source:
            described = read_pickle(source, constructors=CONSTRUCTORS).value
            flat, paths = _tensors(path, described, files)
        chosen = Content(_nested(flat, paths), str(path)).select(ref.key)
        state = stripped(chosen.state)
        tensors = {name: tensor.lazy(name) for name, tensor in state.items()}
        sections = [piece.section for t in state.values() if isinstance(t, ShardedTensor) for piece in t.pieces]

        def check() -> None:
            for section in sections:
                check_sums_in(section)

        return LazyCheckpoint(
            replace(ref, key=chosen.entry or None), tensors, files=tuple(files.open.values()), check=check
        )
    except BaseException:
        for file in files.open.values():
            file.close()
        raise


def _tensors(path: Path, described: object, files: _Files) -> tuple[dict[str, StoredTensor], Mapping[object, object]]:
    """Tensors by their flat names, and the keys that lead to each in the state dict that was saved."""
    metadata = _attributes(described, "Metadata")
    entries, places = (as_mapping(metadata.get(name)) for name in ("state_dict_metadata", "storage_data"))
    if entries is None or places is None:
        raise WeightsError(f"{path} is not the metadata of torch.distributed.checkpoint", DAMAGED)
    if len(entries) > MAX_TENSORS or len(places) > MAX_TENSORS:
        raise UnsafeError(f"{path} describes more than {MAX_TENSORS} tensors or pieces", "save it in parts")
    where: dict[tuple[str, tuple[int, ...]], Instance] = {}
    for key, info in places.items():
        index = _attributes(key.value if isinstance(key, Key) else key, "MetadataIndex")
        name, offset = index.get("fqn"), index.get("offset")
        if isinstance(name, str) and isinstance(info, Instance):
            where[name, _extents(path, name, offset) if offset is not None else ()] = info
    found: dict[str, StoredTensor] = {}
    for name, entry in entries.items():
        kind = entry.kind.name if isinstance(entry, Instance) and isinstance(entry.kind, Global) else ""
        if isinstance(name, str) and kind == "TensorStorageMetadata" and isinstance(entry, Instance):
            found[name] = _tensor(path, name, entry, where, files)
    return found, as_mapping(metadata.get("planner_data")) or {}


def _attributes(record: object, name: str) -> Mapping[object, object]:
    """The attributes of an object of a class of the library; empty for any other."""
    if isinstance(record, Instance) and record.class_name.startswith(_PREFIX) and record.class_name.endswith(name):
        return record.attributes
    return {}


def _extents(path: Path, name: str, values: object) -> tuple[int, ...]:
    try:
        return extents(values)
    except ValueError as error:
        raise WeightsError(f"{path}: the extents of {name[:100]} are not valid: {error}", DAMAGED) from error


def _tensor(
    path: Path, name: str, entry: Instance, where: Mapping[tuple[str, tuple[int, ...]], Instance], files: _Files
) -> ShardedTensor:
    properties = entry.attributes.get("properties")
    state = properties.state if isinstance(properties, Instance) else None
    shape = _extents(path, name, entry.attributes.get("size"))
    chunks = entry.attributes.get("chunks")
    try:
        dtype = dtype_name(state[0]) if isinstance(state, tuple) and state else ""
    except ValueError:
        dtype = ""
    if not dtype or dtype in QUANTISED or bits_of(dtype) < 8 or not isinstance(chunks, list):
        raise WeightsError(f"{path}: tensor {name[:100]} has no known dtype or no pieces", DAMAGED)
    if len(chunks) > _MAX_PIECES:
        raise UnsafeError(f"{path}: tensor {name[:100]} is in {len(chunks)} pieces", "save it in fewer")
    pieces = []
    for chunk in chunks:
        described = _attributes(chunk, "ChunkStorageMetadata")
        offsets, sizes = (_extents(path, name, described.get(part)) for part in ("offsets", "sizes"))
        if len(offsets) != len(shape) or len(sizes) != len(shape):
            raise WeightsError(f"{path}: a piece of {name[:100]} has other dimensions", DAMAGED)
        info = where.get((name, offsets))
        if info is None:
            raise WeightsError(f"{path} says of no file that it holds {name[:100]} at {offsets}", DAMAGED)
        place = info.attributes
        if place.get("transform_descriptors"):
            raise WeightsError(
                f"{path}: the pieces of {name[:100]} are compressed or otherwise transformed",
                "save the checkpoint without extensions",
            )
        section = files.section(place.get("relative_path"), place.get("offset"), place.get("length"))
        pieces.append(_Piece(offsets, sizes, section))
    _check_cover(path, name, shape, pieces)
    if math.prod(shape) * bits_of(dtype) // 8 > sum(piece.section.size for piece in pieces):
        raise UnsafeError(f"{path}: tensor {name[:100]} claims more than its pieces hold", DAMAGED)
    return ShardedTensor(dtype, shape, pieces)


def _check_cover(path: Path, name: str, shape: tuple[int, ...], pieces: Sequence[_Piece]) -> None:
    """Raise ``WeightsError`` unless every element is in exactly one piece."""
    total = math.prod(shape)
    filled = [piece for piece in pieces if math.prod(piece.sizes)]
    starts = np.array([piece.offsets for piece in filled], np.int64).reshape(len(filled), len(shape))
    stops = starts + np.array([piece.sizes for piece in filled], np.int64).reshape(len(filled), len(shape))
    whole = sum(math.prod(piece.sizes) for piece in filled) == total
    if whole and (not filled or (stops <= np.array(shape, np.int64)).all()):
        apart = all(
            not np.logical_and(starts[at] < stops[at + 1 :], starts[at + 1 :] < stops[at]).all(axis=1).any()
            for at in range(len(filled) - 1)
        )
        if apart:
            return
    raise WeightsError(
        f"{path}: the pieces of {name[:100]} do not make up its shape {str(shape)[:60]}",
        "download all files of the checkpoint",
    )


def _nested(flat: Mapping[str, StoredTensor], paths: Mapping[object, object]) -> dict[object, object]:
    """The dictionaries that were saved, of tensors alone."""
    root: dict[object, object] = {}
    for name, tensor in flat.items():
        path = paths.get(name)
        keys = [str(key) if isinstance(key, int) else key for key in path] if isinstance(path, tuple) else [name]
        if not keys or len(keys) > _MAX_LEVELS or not all(isinstance(key, str) for key in keys):
            keys = [name]
        at = root
        for key in keys[:-1]:
            inner = at.setdefault(key, {})
            if not isinstance(inner, dict):  # a tensor of that name, too
                at, keys = root, [name]
                break
            at = inner
        at[keys[-1] if keys[-1] not in at else name] = tensor
    return root


SOURCE = Source(name="dcp", open=open_dcp, headers=True)
