"""Source for Flax's MessagePack files: ``flax.serialization.to_bytes``, ``flax_model.msgpack``, T5X.

The file is walked without being held: the position of each array is kept, and its bytes are read when asked for. Names
are the keys of the nested dictionaries, joined by slashes; `array_layouts` turns the arrays, as those of ``.npz``.
Optimiser state is left out.

Sources: the MessagePack specification (github.com/msgpack/msgpack); ``flax/serialization.py``: an array is extension 1
with (shape, name of dtype, bytes), arrays above a gibibyte are dictionaries of chunks.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import is_remote, open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, in_file
from registry.sources.model_files import facts_beside, with_facts
from registry.types import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelFacts, ModelRef

__all__ = ["SOURCE", "without_optimiser"]

T = TypeVar("T")

_WINDOW = 1 << 16
_MAX_DEPTH = 200
_MAX_ITEMS = 5 * MAX_TENSORS
_MAX_KEY = 1000  # characters
_MAX_DIMENSIONS = 32
_DAMAGED = "download or save it again"
_MAP, _LIST, _TEXT, _BYTES, _EXTENSION, _INTEGER, _OTHER = range(7)
_ARRAY, _SCALAR = 1, 3  # extensions of Flax
_DTYPES = frozenset({
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
})  # fmt: skip
_CHUNKED = "__msgpack_chunked_array__"
_ELSEWHERE = re.compile(r"PLACEHOLDER://|.*//GDA", re.DOTALL)
_OPTIMISERS = frozenset({"opt_state", "opt_states", "param_states", "optimizer_state", "ef_state"})
_TARGETS = ("optimizer/target/", "opt/target/", "target/")
# Lengths in bytes of what follows the first byte of each kind: numbers, and the lengths of texts and containers.
_NUMBERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_LENGTHS = {
    0xC4: (_BYTES, 1), 0xC5: (_BYTES, 2), 0xC6: (_BYTES, 4), 0xC7: (_EXTENSION, 1), 0xC8: (_EXTENSION, 2),
    0xC9: (_EXTENSION, 4), 0xD9: (_TEXT, 1), 0xDA: (_TEXT, 2), 0xDB: (_TEXT, 4), 0xDC: (_LIST, 2), 0xDD: (_LIST, 4),
    0xDE: (_MAP, 2), 0xDF: (_MAP, 4),
}  # fmt: skip


class _Item(NamedTuple):
    """What stands at a place: its kind, its length in bytes or elements or its value, and where its content starts."""

    kind: int
    length: int
    start: int
    code: int = 0


class _Stream:
    """MessagePack items of a file, one after another."""

    def __init__(self, file: ByteSource, at: int = 0, stop: int | None = None) -> None:
        self.file, self.at = file, at
        self.stop = file.size if stop is None else stop
        self._window: bytes | bytearray = b""
        self._low = 0

    def item(self) -> _Item:
        """The next item. The place is then behind it; of a container, before its first element."""
        first = self._bytes(1)[0]
        if first < 0x80 or first >= 0xE0:
            return _Item(_INTEGER, first if first < 0x80 else first - 256, self.at)
        if first < 0x90:
            return _Item(_MAP, first & 15, self.at)
        if first < 0xA0:
            return _Item(_LIST, first & 15, self.at)
        if first < 0xC0:
            return self._skipped(_TEXT, first & 31)
        if first in _NUMBERS:
            value = int.from_bytes(self._bytes(_NUMBERS[first]), "big", signed=first >= 0xD0)
            return _Item(_INTEGER, value, self.at)
        if first in _LENGTHS:
            kind, width = _LENGTHS[first]
            length = int.from_bytes(self._bytes(width), "big")
            if kind in (_MAP, _LIST):
                if length > self.stop - self.at:
                    raise self.damaged(f"a container of {length} elements where {self.stop - self.at} bytes are left")
                return _Item(kind, length, self.at)
            code = self._bytes(1)[0] if kind == _EXTENSION else 0
            return self._skipped(kind, length, code)
        if 0xD4 <= first <= 0xD8:
            code = self._bytes(1)[0]
            return self._skipped(_EXTENSION, 1 << first - 0xD4, code)
        if first in (0xCA, 0xCB):
            return self._skipped(_OTHER, 4 if first == 0xCA else 8)
        if first in (0xC0, 0xC2, 0xC3):
            return _Item(_OTHER, 0, self.at)
        raise self.damaged(f"an item of the unknown kind {first:#x}")

    def text(self, item: _Item) -> str:
        """The text of a short item; wrong UTF-8 is replaced."""
        if item.kind not in (_TEXT, _BYTES) or item.length > 4 * _MAX_KEY:
            raise self.damaged("no text, or one that is too long, where a name belongs")
        return bytes(self.file.read_at(item.start, item.length)).decode("utf-8", "replace")

    def damaged(self, what: str) -> WeightsError:
        """The error for what is not Flax's."""
        return WeightsError(f"{self.file.name} is no whole Flax file: at byte {self.at} it has {what}", _DAMAGED)

    def _skipped(self, kind: int, length: int, code: int = 0) -> _Item:
        start = self.at
        if length > self.stop - start:
            raise self.damaged(f"an item of {length} bytes where {self.stop - start} are left")
        self.at += length
        return _Item(kind, length, start, code)

    def _bytes(self, count: int) -> bytes:
        if self.at + count > self.stop:
            raise self.damaged("its end inside an item")
        inside = self.at - self._low
        if inside < 0 or inside + count > len(self._window):
            self._low = self.at
            self._window = self.file.read_at(self.at, min(_WINDOW, self.stop - self.at))
            inside = 0
        self.at += count
        return bytes(self._window[inside : inside + count])


def open_flax(ref: ModelRef) -> Checkpoint:
    """Open a Flax file; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "leave --key out: it is never wrapped")
    file = open_bytes(ref.target)
    try:
        tensors = without_optimiser(_tensors(file), file.name)
        facts = _beside(ref.target)
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=[file])
    except BaseException:
        file.close()
        raise


def _beside(target: str) -> ModelFacts:
    path = Path(target)
    return facts_beside(path) if is_remote(path) or path.is_file() else NO_FACTS


def _leaves(file: ByteSource) -> Iterator[tuple[str, _Item, _Stream]]:
    """What stands in the nested dictionaries and lists of a file, by the keys that lead to it."""
    stream = _Stream(file)
    item = stream.item()
    if item.kind != _MAP:
        raise stream.damaged("no dictionary at its start")
    stack: list[_Container] = [_Container("", item.kind == _MAP, item.length)]
    for _ in range(_MAX_ITEMS):
        while stack and stack[-1].next >= stack[-1].size:
            stack.pop()
        if not stack:
            if stream.at != file.size:
                raise stream.damaged(f"{file.size - stream.at} bytes behind its dictionary")
            return
        container = stack[-1]
        if container.is_map:
            key_item = stream.item()
            key = str(key_item.length) if key_item.kind == _INTEGER else stream.text(key_item)
        else:
            key = str(container.next)
        container.next += 1
        path = f"{container.path}/{key}" if container.path else key
        if len(path) > 20 * _MAX_KEY:
            raise UnsafeError(f"{file.name} has names of more than {20 * _MAX_KEY} characters", "rename its modules")
        item = stream.item()
        if item.kind in (_MAP, _LIST):
            if len(stack) >= _MAX_DEPTH:
                raise UnsafeError(f"{file.name} nests deeper than {_MAX_DEPTH} levels", "save the parameters alone")
            stack.append(_Container(path, item.kind == _MAP, item.length))
        else:
            yield path, item, stream
    raise UnsafeError(f"{file.name} holds more than {_MAX_ITEMS} items", "save the parameters alone")


class _Container:
    """A dictionary or list that is being walked."""

    __slots__ = ("is_map", "next", "path", "size")

    def __init__(self, path: str, is_map: bool, size: int) -> None:
        self.path, self.is_map, self.size, self.next = path, is_map, size, 0


def _tensors(file: ByteSource) -> dict[str, LazyTensor]:
    """All arrays of a file by the keys that lead to them."""
    found: dict[str, LazyTensor] = {}
    extents: dict[str, int] = {}
    chunked: list[str] = []
    for path, item, stream in _leaves(file):
        if item.kind == _EXTENSION and item.code in (_ARRAY, _SCALAR):
            if path in found:
                raise WeightsError(f"{file.name} holds {path[:100]!r} twice", "save it again")
            if len(found) >= MAX_TENSORS:
                raise UnsafeError(f"{file.name} holds more than {MAX_TENSORS} arrays", "split the file")
            found[path] = _array(file, item)
        elif item.kind == _INTEGER and path.rpartition("/")[0].endswith("/shape"):
            extents[path] = item.length
        elif path.endswith(f"/{_CHUNKED}"):
            chunked.append(path.removesuffix(f"/{_CHUNKED}"))
        elif item.kind == _TEXT and item.length < 4 * _MAX_KEY and _ELSEWHERE.match(stream.text(item)):
            raise WeightsError(
                f"{file.name} holds names of arrays that are in folders beside it",
                "restore it with orbax or T5X, and save the parameters with flax.serialization.to_bytes",
            )
    for path in chunked:
        _join(file, path, found, extents)
    return found


def _array(file: ByteSource, item: _Item) -> LazyTensor:
    """The array in an extension: its shape, the name of its dtype, its bytes."""
    inner = _Stream(file, item.start, item.start + item.length)
    outer = inner.item()
    if outer.kind != _LIST or outer.length != 3:
        raise inner.damaged("an array that is not a shape, a dtype and bytes")
    shape_item = inner.item()
    if shape_item.kind != _LIST or shape_item.length > _MAX_DIMENSIONS:
        raise inner.damaged("an array without a shape")
    extents = [inner.item() for _ in range(shape_item.length)]
    dtype = inner.text(inner.item())
    if dtype not in _DTYPES:
        raise WeightsError(f"{file.name} holds an array of the dtype {dtype[:40]!r}", "save it as float32")
    data = inner.item()
    if any(extent.kind != _INTEGER or extent.length < 0 for extent in extents) or data.kind not in (_BYTES, _TEXT):
        raise inner.damaged("an array without extents or bytes")
    shape = tuple(extent.length for extent in extents)
    if math.prod(shape) * bits_of(dtype) // 8 != data.length:
        raise inner.damaged(f"an array of shape {str(shape)[:80]} in {data.length} bytes")
    return in_file(file, data.start, dtype, shape)


def _join(file: ByteSource, path: str, found: dict[str, LazyTensor], extents: Mapping[str, int]) -> None:
    """Put one array in place of its chunks, which are flat."""
    chunks: list[LazyTensor] = []
    while (chunk := found.pop(f"{path}/chunks/{len(chunks)}", None)) is not None:
        chunks.append(chunk)
    shape: list[int] = []
    while len(shape) <= _MAX_DIMENSIONS and (extent := extents.get(f"{path}/shape/{len(shape)}")) is not None:
        shape.append(extent)
    dtypes = {chunk.dtype for chunk in chunks}
    total = sum(math.prod(chunk.shape) for chunk in chunks)
    if len(dtypes) != 1 or min(shape, default=0) < 0 or math.prod(shape) != total:
        raise WeightsError(f"{file.name}: the chunks of {path[:100]!r} do not make its shape", _DAMAGED)
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + chunk.bytes)

    def span(start: int, stop: int) -> memoryview:
        parts = [
            chunk.span(max(start, low) - low, min(stop, high) - low)
            for chunk, low, high in zip(chunks, starts, starts[1:], strict=False)
            if low < stop and start < high
        ]
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    found[path] = LazyTensor(dtypes.pop(), tuple(shape), span)


def without_optimiser(tensors: dict[str, T], where: str) -> dict[str, T]:
    """Arrays by slashed names without the state of an optimiser; of T5X and flax.optim, what it holds to be trained.

    Raises ``WeightsError``, which names ``where``, if nothing is left.
    """
    for target in _TARGETS:
        inside = {name.removeprefix(target): each for name, each in tensors.items() if name.startswith(target)}
        if inside:
            tensors = inside
            break
    kept = {name: each for name, each in tensors.items() if not _OPTIMISERS.intersection(name.split("/"))}
    kept = {name: each for name, each in kept.items() if name.partition("/")[0] not in ("optimizer", "opt")} or kept
    if not kept:
        raise WeightsError(
            f"{where} holds the state of an optimiser alone" if tensors else f"{where} holds no tensors",
            "save the model's parameters",
        )
    return {name.replace("\0", ""): each for name, each in kept.items()}


SOURCE = Source(name="flax", open=open_flax, headers=True, ranges=True)
