"""Source for TensorFlow's checkpoints of both kinds, and for the variables of a SavedModel; TensorFlow is not needed.

Since 2016 (V2) a checkpoint is an ``.index``, a table of `leveldb_tables` that says for each tensor its dtype, shape,
file, place and checksum, and ``.data-NNNNN-of-NNNNN`` files of their bytes. Before (V1) it was one table of tensors,
``model.ckpt``. A checkpoint of objects has a graph of them, with the names that the variables had in the program.

Weights come in torch's layout (out, in, *kernel). How each is used says ``MODEL.meta`` or ``saved_model.pb`` where it
is there, else its name. Sources: ``tensor_bundle.proto``, ``saved_tensor_slice.proto`` and
``trackable_object_graph.proto`` in ``tensorflow/core/protobuf``; ``saved_tensor_slice_util.cc`` and
``ordered_code.cc`` for the keys of slices; ``tensor_bundle.cc`` for texts.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source, common_prefix
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.byte_parts import InMemory
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, in_file
from registry.sources.files.wire import BYTES, VARINT, Message
from registry.sources.formats.tensorflow.crc32c import crc32c, masked
from registry.sources.formats.tensorflow.graph import graph_in, open_graph
from registry.sources.formats.tensorflow.leveldb_tables import Table
from registry.sources.formats.tensorflow.nodes import laid, uses_of
from registry.sources.formats.tensorflow.tensors import Ahead, plain_type, shape_in, short, tensor_in
from registry.sources.formats.tensorflow.variables import chosen, kind_of, shorter
from registry.sources.layer_order import layer_order
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.outputs_last import outputs_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.formats.tensorflow.leveldb_tables import Entry
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_TEXT = 7
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_ATTRIBUTE = "/.ATTRIBUTES/"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_COPIES = "_all_variables/"
_VARIABLES = ("VariableV2", "Variable", "VarHandleOp")
_MAX_SHARDS = 10_000
_MAX_GRAPH = 256 * 2**20
_PIECE = 4 * 2**20
_AGAIN = "download or save it again"

Slice = tuple[tuple[int, int], ...]  # start and length of each axis; (0, -1): all of it


@dataclass
class _Stored:
    """An entry of an index."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int | None = None
    slices: list[Slice] = field(default_factory=list)


@dataclass
class _Opened:
    """What was found: tensors by key, the files that are open, checks, and the names of the object graph by key."""

    tensors: dict[str, LazyTensor]
    files: list[ByteSource]
    check: Callable[[], None] | None
    full_names: dict[str, str]


def open_checkpoint(ref: ModelRef) -> Checkpoint:
    """Open a checkpoint by its index or single file, or a SavedModel by its ``saved_model.pb``.

    Raises the errors of `open_ref`.
    """
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "checkpoints are never wrapped: leave --key out")
    index = _index_of(path)
    if index is None:
        return _graph_alone(ref, path)
    files: list[ByteSource] = []
    try:
        found = _read(index, files)
        return _checkpoint(ref, path, index, found)
    except BaseException:
        for file in files:
            file.close()
        raise


def _graph_alone(ref: ModelRef, path: Path) -> Checkpoint:
    """A SavedModel without variables, whose weights are in its graph."""
    checkpoint = open_graph(ref)
    if not any(len(info.shape) > 1 for info in checkpoint.tensors):
        checkpoint.close()
        with open_bytes(path) as file:
            nodes = graph_in(Message(Ahead(file))).nodes.values()
            if any(node.op in _VARIABLES for node in nodes):
                raise WeightsError(f"{path} needs its folder variables, which is not beside it", _AGAIN)
        return open_graph(ref)
    return checkpoint


def _index_of(path: Path) -> Path | None:
    """The index of a checkpoint or SavedModel; None for a SavedModel without variables."""
    if path.name != "saved_model.pb":
        return path
    folder = path.with_name("variables")
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path.parent)):
        raise UnsafeError(f"{folder} is a link that leads out of its folder", "copy the variables into the folder")
    index = _beside(folder / "variables.index", "variables.index")
    if index is None:
        return None
    index.close()
    return folder / "variables.index"


def _read(index: Path, files: list[ByteSource]) -> _Opened:
    file = open_bytes(index)
    files.append(file)
    table = Table(file)
    first = next(iter(table), None)
    if first is None or first.key:
        raise WeightsError(f"{index} is a LevelDB table, but no TensorFlow checkpoint", "give the model's own file")
    header = Message(InMemory(table.value(first), file.name))
    kind = next((each.wire for each in header if each.number == 1), VARINT)
    return _single(table, header, files) if kind == BYTES else _bundle(index, table, header, files)


def _bundle(index: Path, table: Table, header: Message, files: list[ByteSource]) -> _Opened:
    """The tensors of an index and its data files."""
    shards, big = 0, False
    for each in header:
        if each.number == 1:
            shards = each.value
        elif each.number == 2:
            big = each.value == 1
    if not 0 < shards <= _MAX_SHARDS:
        raise WeightsError(f"{index} claims {shards} data files", _AGAIN)
    entries = {entry.key: _stored(table, entry) for entry in table if entry.key}
    opened: dict[int, ByteSource] = {}

    def data(shard: int) -> ByteSource:
        if shard not in opened:
            name = f"{index.name.removesuffix('.index')}.data-{shard:05}-of-{shards:05}"
            found = _beside(index, name) if 0 <= shard < shards else None
            if found is None:
                raise WeightsError(f"{index} needs {short(name[-80:])}, which is not beside it", "put it there")
            opened[shard] = found
            files.append(found)
        return opened[shard]

    def plain(stored: _Stored) -> LazyTensor:
        dtype = plain_type(stored.dtype)
        tensor = in_file(data(stored.shard), stored.offset, dtype, stored.shape, big=big)
        if stored.size != tensor.bytes:
            raise WeightsError(f"{index} has a tensor of {stored.size} bytes for {tensor.bytes}", _AGAIN)
        return tensor

    tensors: dict[str, LazyTensor] = {}
    sums: dict[str, _Stored] = {}
    for key, stored in entries.items():
        if key[:1] == b"\0" or not plain_type(stored.dtype):
            continue  # a slice, which its tensor names; or text
        name = key.decode("utf-8", "backslashreplace")
        if not stored.slices:
            tensors[name] = plain(stored)
            sums[name] = stored
            continue
        parts: dict[Slice, LazyTensor] = {}
        for extents in stored.slices:
            part = entries.get(_slice_key(key, extents))
            if part is None or part.slices or part.dtype != stored.dtype:
                raise WeightsError(f"{index} lacks a part of {short(name)}", _AGAIN)
            parts[extents] = plain(part)
            sums[f"{name}{extents}"] = part
        tensors[name] = _joined(name, stored.shape, parts)

    used: Counter[int] = Counter()
    for stored in sums.values():
        used[stored.shard] += stored.size
    if any(size > data(shard).size for shard, size in used.items()):
        raise WeightsError(f"{index} has tensors that overlap", _AGAIN)

    def check() -> None:
        for name, stored in sums.items():
            if stored.checksum is not None and masked(crc32c(_pieces(data(stored.shard), stored))) != stored.checksum:
                raise WeightsError(f"{data(stored.shard).name}: the checksum of {short(name)} differs", _AGAIN)

    graph = entries.get(_GRAPH.encode())
    names = {} if graph is None or graph.dtype != _TEXT else _full_names(data(graph.shard), graph)
    return _Opened(tensors, files, check, names)


def _beside(path: Path, name: str) -> ByteSource | None:
    """A file beside another one; None if there is none."""
    try:
        return open_bytes(path.with_name(name))
    except NotFoundError:
        return None


def _pieces(file: ByteSource, stored: _Stored) -> Iterator[bytes | bytearray]:
    for start in range(0, stored.size, _PIECE):
        yield file.read_at(stored.offset + start, min(_PIECE, stored.size - start))


def _stored(table: Table, entry: Entry) -> _Stored:
    """A BundleEntryProto."""
    message = Message(InMemory(table.value(entry), table.file.name))
    found = _Stored()
    for each in message:
        if each.number == 1:
            found.dtype = each.value
        elif each.number == 2:
            found.shape = shape_in(message.message(each))
        elif each.number == 3:
            found.shard = each.value
        elif each.number == 4:
            found.offset = each.value
        elif each.number == 5:
            found.size = each.value
        elif each.number == 6:
            found.checksum = each.value
        elif each.number == 7:
            found.slices.append(_slice(message.message(each)))
    return found


def _slice(message: Message) -> Slice:
    """A TensorSliceProto."""
    extents: list[tuple[int, int]] = []
    for extent in message.messages(1):
        start, length = 0, -1
        for each in extent:
            if each.number == 1:
                start = each.value
            elif each.number == 2:
                length = each.value
        extents.append((start, length))
    if len(extents) > 255:
        raise WeightsError(f"{message.file.name} has a slice of {len(extents)} axes", _AGAIN)
    return tuple(extents)


def _slice_key(name: bytes, extents: Slice) -> bytes:
    """The key of a slice: 0, the name, the number of axes, and start and length of each, in ordered code."""
    escaped = name.replace(b"\xff", b"\xff\x01").replace(b"\0", b"\0\xff").replace(b"\xff\x01", b"\xff\0")
    axes = bytes([1, len(extents)]) if extents else b"\0"
    return b"\0" + escaped + b"\0\x01" + axes + b"".join(_signed(n) for pair in extents for n in pair)


def _signed(number: int) -> bytes:
    """A number in ordered code: seven bits a byte, big-endian, the first bits telling how many bytes there are."""
    width = max(1, -(-((~number if number < 0 else number).bit_length() + 1) // 7))
    head = (0xFF << (8 - width) & 0xFF) << 8 if width <= 8 else 0xFF00 | (0xFF << (16 - width) & 0xFF)
    data = bytearray((number & (1 << 8 * width) - 1).to_bytes(width, "big"))
    data[0] ^= head >> 8
    if width > 1:
        data[1] ^= head & 255
    return bytes(data)


def _joined(name: str, shape: tuple[int, ...], parts: Mapping[Slice, LazyTensor]) -> LazyTensor:
    """A tensor of parts that lie side by side; raises ``WeightsError`` where they do not fill it."""
    places: list[tuple[tuple[slice, ...], LazyTensor]] = []
    for extents, part in parts.items():
        if len(extents) != len(shape):
            raise WeightsError(f"a part of {short(name)} has {len(extents)} axes, not {len(shape)}", _AGAIN)
        whole = [
            (0, extent) if length < 0 else (start, length)
            for (start, length), extent in zip(extents, shape, strict=True)
        ]
        if any(start + length > extent for (start, length), extent in zip(whole, shape, strict=True)):
            raise WeightsError(f"a part of {short(name)} reaches beyond it", _AGAIN)
        if tuple(length for _, length in whole) != part.shape:
            raise WeightsError(f"a part of {short(name)} has another shape than its place", _AGAIN)
        places.append((tuple(slice(start, start + length) for start, length in whole), part))
    first = next(iter(parts.values()), None)
    if first is None or sum(math.prod(part.shape) for part in parts.values()) != math.prod(shape):
        raise WeightsError(f"the parts of {short(name)} do not fill it", _AGAIN)
    width = max(1, bits_of(first.dtype) // 8)

    def span(start: int, stop: int) -> memoryview:
        values = np.zeros(shape, f"V{width}")
        for place, part in places:
            values[place] = np.frombuffer(part.span(0, part.bytes), f"V{width}").reshape(part.shape)
        data: memoryview = values.reshape(-1).view(np.uint8).data
        return data[start:stop]

    return LazyTensor(first.dtype, shape, span, whole=True)


def _single(table: Table, header: Message, files: list[ByteSource]) -> _Opened:
    """The tensors of a checkpoint of one file: listed in the first entry, their values in the others."""
    file = table.file
    shapes: dict[str, tuple[int, tuple[int, ...], list[Slice]]] = {}
    for meta in header.messages(1):
        for each in meta.messages(1):
            name, kind = "", 0
            shape: tuple[int, ...] = ()
            slices: list[Slice] = []
            for field_ in each:
                if field_.number == 1:
                    name = each.text(field_)
                elif field_.number == 2:
                    shape = shape_in(each.message(field_))
                elif field_.number == 3:
                    kind = field_.value
                elif field_.number == 4:
                    slices.append(_slice(each.message(field_)))
            shapes[name] = (kind, shape, slices)
            if len(shapes) > MAX_TENSORS:
                raise UnsafeError(f"{file.name} has more than {MAX_TENSORS} tensors", "split the file")
    entries: dict[tuple[str, Slice], Entry] = {}

    def places() -> dict[tuple[str, Slice], Entry]:
        if not entries:
            for entry in table:
                saved = _saved(table, entry) if entry.key else None
                if saved is not None:
                    entries[saved[0], saved[1]] = entry
        return entries

    def part(name: str, extents: Slice, kind: int, shape: tuple[int, ...]) -> LazyTensor:
        dtype = plain_type(kind)

        def span(start: int, stop: int) -> memoryview:
            entry = places().get((name, extents))
            saved = None if entry is None else _saved(table, entry)
            tensor = None if saved is None else tensor_in(saved[2], dtype, shape)
            if tensor is None or tensor.dtype != dtype or math.prod(tensor.shape) != math.prod(shape):
                raise WeightsError(f"{file.name} lacks the values of {short(name)}", _AGAIN)
            return tensor.span(start, stop)

        return LazyTensor(dtype, shape, span, whole=True)

    tensors: dict[str, LazyTensor] = {}
    for name, (kind, shape, slices) in shapes.items():
        if not plain_type(kind):
            continue
        parts: dict[Slice, LazyTensor] = {}
        for extents in slices or [((0, -1),) * len(shape)]:
            if len(extents) != len(shape):
                raise WeightsError(f"{file.name}: a part of {short(name)} has {len(extents)} axes", _AGAIN)
            size = tuple(full if length < 0 else length for (_, length), full in zip(extents, shape, strict=True))
            parts[extents] = part(name, extents, kind, size)
        tensors[name] = (
            next(iter(parts.values())) if len(parts) == 1 and not _cut(parts) else _joined(name, shape, parts)
        )
    claimed = sum(tensor.bytes for tensor in tensors.values())
    if claimed > 22 * file.size:  # blocks are packed to a twentieth at best
        raise WeightsError(f"{file.name} claims {claimed} bytes of tensors, and has {file.size}", _AGAIN)
    return _Opened(tensors, files, None, {})


def _cut(parts: Mapping[Slice, LazyTensor]) -> bool:
    return any(length >= 0 for extents in parts for _, length in extents)


def _saved(table: Table, entry: Entry) -> tuple[str, Slice, Message] | None:
    """Name, slice and tensor of a SavedSlice; None if the entry has none."""
    message = Message(InMemory(table.value(entry), table.file.name))
    inner = next(message.messages(2), None)
    if inner is None:
        return None
    name, data = "", None
    extents: Slice = ()
    for each in inner:
        if each.number == 1:
            name = inner.text(each)
        elif each.number == 2:
            extents = _slice(inner.message(each))
        elif each.number == 3:
            data = inner.message(each)
    return None if data is None else (name, extents, data)


def _full_names(file: ByteSource, stored: _Stored) -> dict[str, str]:
    """By key, the name that a variable had in the program, in the order of the objects."""
    start, length = stored.offset, 0
    if stored.size > _MAX_GRAPH or start + stored.size > file.size:
        raise WeightsError(f"{file.name} has an object graph of {stored.size} bytes", _AGAIN)
    head = file.read_at(start, min(10, stored.size))
    for place, byte in enumerate(head):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            start += place + 1 + 4  # and a checksum of the length
            break
    if start + length > stored.offset + stored.size:
        raise WeightsError(f"{file.name} has an object graph that is cut off", _AGAIN)
    names: dict[str, str] = {}
    for node in Message(file, start, start + length).messages(1):
        for attribute in node.messages(2):
            texts = {each.number: attribute.text(each) for each in attribute if each.number in (1, 2, 3)}
            if texts.get(1) == "VARIABLE_VALUE" and texts.get(3):
                names[texts[3]] = texts.get(2, "")
    return names


def _checkpoint(ref: ModelRef, path: Path, index: Path, found: _Opened) -> LazyCheckpoint:
    keys = [key for key in found.tensors if _ATTRIBUTE not in key or key.endswith(_VALUE)]
    short = {key.removesuffix(_VALUE): key for key in keys}
    picked = chosen(short)
    stored = {shown: short[name] for shown, name in picked.names.items()}
    objects = bool(found.full_names)
    if objects:
        stored = _without_copies(stored, found.full_names)
        full = {shown: found.full_names.get(key, "") for shown, key in stored.items()}
        better = {shown: name for shown, name in full.items() if name}
        if len(better) == len(stored) and len(set(better.values())) == len(stored):
            names = shorter(full.values())
            stored = {names[full[shown]]: key for shown, key in stored.items()}
    raw = {name: found.tensors[key] for name, key in stored.items()}
    raw = {name: tensor for name, tensor in raw.items() if tensor.shape or is_float(tensor.dtype)}
    cut = len(common_prefix(raw))
    raw = {name[cut:]: tensor for name, tensor in raw.items()}
    shapes = {name: tensor.shape for name, tensor in raw.items()}
    uses, notes = _uses(path, index, shapes, found.files)
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in raw.items():
        kind, inputs = kind_of(name, tensor.shape, shapes)
        if name in uses:
            tensor, kind, inputs = uses[name](tensor)
        shown = f"{name}/kernel" if kind == "transposed" and name.endswith("weight") else name
        tensors[shown] = outputs_first(tensor, kind, inputs=inputs)
    facts = facts_beside(path)
    order: tuple[str, ...] = ()
    if objects:
        order = layer_order({name: tensor.shape for name, tensor in tensors.items()})
    facts = replace(facts, laid_out=True, order=order, notes=(*facts.notes, *filter(None, (picked.note, notes))))
    return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=found.files, check=found.check)


def _without_copies(stored: Mapping[str, str], full: Mapping[str, str]) -> dict[str, str]:
    """Variables without those that Keras 3 exports a second time, in the order of a set."""
    rest = {shown: key for shown, key in stored.items() if not shown.startswith(_COPIES)}
    names = {full.get(key) for key in rest.values()}
    copies = [key for shown, key in stored.items() if shown.startswith(_COPIES)]
    return rest if copies and all(full.get(key) in names for key in copies) else dict(stored)


Laid = tuple[LazyTensor, str, int]


def _uses(
    path: Path, index: Path, shapes: Mapping[str, tuple[int, ...]], files: list[ByteSource]
) -> tuple[dict[str, Callable[[LazyTensor], Laid]], str]:
    """How the graph beside a checkpoint uses its variables, by their names; and a note where it cannot be read."""
    saved = path.name == "saved_model.pb"
    name = path.name if saved else f"{index.name.removesuffix('.index')}.meta"
    try:
        beside = _beside(path if saved else index, name)
        if beside is None:
            return {}, ""
        file = Ahead(beside)
        files.append(file)
        graph = graph_in(Message(file))
        variables = {
            node.name: shapes[name]
            for node in graph.nodes.values()
            if node.op in _VARIABLES and (name := str(node.attrs.get("shared_name") or node.name)) in shapes
        }
        found = uses_of(graph.nodes, variables)
    except SourceError as error:
        if saved:
            raise
        return {}, f"{name} is ignored: {error.message}"
    uses: dict[str, Callable[[LazyTensor], Laid]] = {}
    for source, use in found.items():
        if use.kind != "vector":
            name = str(graph.nodes[source].attrs.get("shared_name") or source)
            uses[name] = partial(laid, use=use, integers=graph.integers)
    return uses, ""


SOURCE = Source(name="tf_checkpoint", open=open_checkpoint, headers=True, ranges=True)
