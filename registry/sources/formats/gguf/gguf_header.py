"""Header of a GGUF file: metadata, and name, shape, type and place of every tensor.

Layout (docs/gguf.md of ggml): ``GGUF``, version (uint32), number of tensors and of metadata entries (uint64 each). An
entry is a key, a type (uint32) and a value. Text is a length (uint64) and UTF-8. An array is the type of its elements,
their number (uint64) and the elements. A tensor is a name, a number of dimensions (uint32), its extents (uint64, the
fastest first), a type (uint32) and an offset (uint64) from the start of the data, which is the next multiple of
``general.alignment``. A file of big-endian numbers has its version so, too.

The vocabulary of a tokenizer makes up nearly all of a header. Its words are skipped, and no object is made of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import UnsafeError, WeightsError

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource

__all__ = ["Array", "Header", "Stored", "Value", "read_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST = 64 * 2**20  # bytes of a header; a vocabulary of 256,000 words takes about ten
_READ_AHEAD = 60_000  # bytes read at a time, where more are not known to belong to the header
_MAX_ENTRIES = 65_536
_MAX_TENSORS = 65_536
_MAX_TEXT = 65_536  # bytes of a text that is kept
_MAX_NAME = 1_000
_MAX_KEPT = 4_096  # numbers of an array that are kept
_MAX_DEPTH = 16  # of arrays in arrays
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_REMEDY = "download or convert it again"

_TEXT, _ARRAY = 8, 9
# Type numbers of metadata, as struct's letters.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SMALLEST = {**{kind: struct.calcsize(f"<{letter}") for kind, letter in _NUMBERS.items()}, _TEXT: 8, _ARRAY: 12}


class Array(NamedTuple):
    """An array of metadata: how many elements it has, and these, where they are numbers and few."""

    length: int
    values: tuple[int | float, ...] = ()


Value = int | float | str | Array


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the header has it: ``shape`` in torch's order, the fastest axis last; ``kind``: number of the type.

    ``offset`` counts from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header: ``metadata`` by key, without long texts; ``big``: the numbers of the file are big-endian.

    ``size``: bytes up to the data. ``alignment``: that of every tensor's offset.
    """

    metadata: dict[str, Value]
    tensors: tuple[Stored, ...]
    big: bool
    size: int
    alignment: int


class _Cursor:
    """A position in the header, and the bytes from there on that have been read."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self.order = "<"
        self._base = self._at = 0
        self._data: bytes | bytearray = b""

    @property
    def place(self) -> int:
        """Position in the file."""
        return self._base + self._at

    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self.file.size - self.place

    def ahead(self, count: int) -> None:
        """Have ``count`` bytes at hand, which belong to the header."""
        if len(self._data) - self._at >= count:
            return
        place = self.place
        if place + count > _MOST:
            raise UnsafeError(
                f"{self.file.name} has a header of more than {_MOST // 2**20} MiB",
                "such a header holds no model: convert it again",
            )
        if place + count > self.file.size:
            raise self.file.ends_early(place, count)
        kept = bytes(self._data[self._at :])
        wanted = min(max(count, _READ_AHEAD), self.file.size - place) - len(kept)
        if kept:
            self._data = kept + self.file.read_at(place + len(kept), wanted)
        else:
            self._data = self.file.read_at(place, wanted)
        self._base, self._at = place, 0

    def number(self, letter: str) -> int | float:
        """The number of that format of `struct`."""
        layout = self.order + letter
        size = struct.calcsize(layout)
        self.ahead(size)
        (value,) = struct.unpack_from(layout, self._data, self._at)
        self._at += size
        return value  # type: ignore[no-any-return]

    def whole(self, letter: str) -> int:
        """The integer of that format of `struct`."""
        return int(self.number(letter))

    def taken(self, count: int) -> bytes:
        """The next bytes."""
        self.ahead(count)
        found = bytes(self._data[self._at : self._at + count])
        self._at += count
        return found

    def skip(self, count: int) -> None:
        """Go on by so many bytes, which are not read."""
        place = self.place
        if count > self.left():
            raise self.file.ends_early(place, count)
        if count <= len(self._data) - self._at:
            self._at += count
        else:
            self._base, self._at, self._data = place + count, 0, b""

    def text(self, most: int) -> str | None:
        """A text of at most so many bytes; None for a longer one, which is skipped."""
        length = self.whole("Q")
        if length > most:
            self.skip(length)
            return None
        return self.taken(length).decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        """Skip so many texts. Each has a length at least, so that as many bytes may be read ahead."""
        length = struct.Struct(self.order + "Q").unpack_from
        while count:
            self.ahead(8 * min(count, 2**17))
            data, at, last = self._data, self._at, len(self._data) - 8
            while count and at <= last:
                at += 8 + length(data, at)[0]
                count -= 1
            if at <= len(data):
                self._at = at
            else:  # the last of them ends behind what is at hand
                beyond = at - len(data)
                self._at = len(data)
                self.skip(beyond)


def read_header(file: ByteSource) -> Header:
    """Read the header of a GGUF file, in parts of some 60 kB; no byte of the tensors beyond these.

    Raises
    ------
    UnsafeError
        It is larger than 64 MiB, or has more than 65,536 entries or tensors, or arrays nested more than 16 deep.
    WeightsError
        It is of another version, ends early, or contradicts itself.
    """
    cursor = _Cursor(file)
    if file.size < 24:
        raise WeightsError(f"{file.name} ends within its header: it has {file.size} bytes", _REMEDY)
    if cursor.taken(4) != _MAGIC:
        raise WeightsError(f"{file.name} is no GGUF file: it does not begin with GGUF", _REMEDY)
    cursor.order = _order(cursor, file.name)
    tensors, entries = cursor.whole("Q"), cursor.whole("Q")
    for count, most, least, what in (
        (entries, _MAX_ENTRIES, 13, "metadata entries"), (tensors, _MAX_TENSORS, 32, "tensors"),
    ):  # fmt: skip
        if count * least > cursor.left():
            raise WeightsError(f"{file.name} claims {count} {what} in {file.size} bytes", _REMEDY)
        if count > most:
            raise UnsafeError(f"{file.name} claims {count} {what}, more than {most}", "split the file")
    metadata = _metadata(cursor, entries)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise WeightsError(f"{file.name} states an alignment of {str(alignment)[:40]}, no power of two", _REMEDY)
    listed = _tensors(cursor, tensors)
    size = cursor.place
    start = -(-size // alignment) * alignment
    placed = tuple(Stored(t.name, t.shape, t.kind, start + t.offset) for t in listed)
    return Header(metadata, placed, cursor.order == ">", size, alignment)


def _order(cursor: _Cursor, name: str) -> str:
    """Byte order of the file's numbers, by its version."""
    raw = cursor.taken(4)
    little, big = (int.from_bytes(raw, order) for order in ("little", "big"))
    if little in _VERSIONS:
        return "<"
    if big in _VERSIONS:
        return ">"
    raise WeightsError(
        f"{name} is of GGUF version {min(little, big)}; versions 2 and 3 are read",
        "convert the model again with llama.cpp's convert_hf_to_gguf.py",
    )


def _metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    name = cursor.file.name
    found: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.text(_MAX_NAME)
        if key is None:
            raise UnsafeError(f"{name} has a metadata key of more than {_MAX_NAME} bytes", _REMEDY)
        if key in found:
            raise WeightsError(f"{name} has the metadata key {key[:100]!r} twice", _REMEDY)
        kind = cursor.whole("I")
        if kind == _TEXT:
            text = cursor.text(_MAX_TEXT)
            found[key] = "" if text is None else text
        elif kind == _ARRAY:
            found[key] = _array(cursor, key)
        elif kind in _NUMBERS:
            found[key] = cursor.number(_NUMBERS[kind])
        else:
            raise _unknown(name, key, kind)
    return found


def _unknown(name: str, key: str, kind: int) -> WeightsError:
    return WeightsError(f"{name}: the metadata {key[:100]!r} is of the unknown type {kind}", _REMEDY)


def _array(cursor: _Cursor, key: str) -> Array:
    """An array: short ones of numbers are kept; arrays within it are skipped, level by level."""
    first, pending = True, [1]
    outer = Array(0)
    while pending:
        pending[-1] -= 1
        kind, count = cursor.whole("I"), cursor.whole("Q")
        if kind not in _SMALLEST:
            raise _unknown(cursor.file.name, key, kind)
        if count * _SMALLEST[kind] > cursor.left():
            raise WeightsError(
                f"{cursor.file.name}: the metadata {key[:100]!r} claims {count} elements, and {cursor.left()} bytes "
                "follow",
                _REMEDY,
            )
        values: tuple[int | float, ...] = ()
        if kind == _TEXT:
            cursor.skip_texts(count)
        elif kind == _ARRAY:
            pending.append(count)
        elif first and count <= _MAX_KEPT:
            layout = np.dtype(cursor.order + _NUMBERS[kind])
            values = tuple(np.frombuffer(cursor.taken(count * layout.itemsize), layout).tolist())
        else:
            cursor.skip(count * _SMALLEST[kind])
        outer, first = Array(count, values) if first else outer, False
        while pending and not pending[-1]:
            pending.pop()
        if len(pending) > _MAX_DEPTH:
            raise UnsafeError(
                f"{cursor.file.name}: the metadata {key[:100]!r} is nested more than {_MAX_DEPTH} deep", _REMEDY
            )
    return outer


def _tensors(cursor: _Cursor, count: int) -> list[Stored]:
    name = cursor.file.name
    found: dict[str, Stored] = {}
    for _ in range(count):
        own = cursor.text(_MAX_NAME)
        if own is None:
            raise UnsafeError(f"{name} has a tensor name of more than {_MAX_NAME} bytes", _REMEDY)
        if own in found:
            raise WeightsError(f"{name} has the tensor {own[:100]!r} twice", _REMEDY)
        dimensions = cursor.whole("I")
        if dimensions > _MAX_DIMENSIONS:
            raise WeightsError(
                f"{name}: tensor {own[:100]!r} has {dimensions} dimensions; GGUF has at most {_MAX_DIMENSIONS}", _REMEDY
            )
        extents = [cursor.whole("Q") for _ in range(dimensions)]
        kind, offset = cursor.whole("I"), cursor.whole("Q")
        found[own] = Stored(own, tuple(extents[::-1]), kind, offset)
    return list(found.values())
