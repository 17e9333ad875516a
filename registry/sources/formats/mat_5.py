"""MATLAB files of version 5 (``save -v6`` and ``-v7``), walked without being held.

Compressed variables are unpacked to a temporary file, with a bound on their size. Numbers of a class may be stored in a
narrower type; they are widened when they are read.

Source: "MAT-File Format", MathWorks, R2023b, chapter 1.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from dataclasses import replace
from typing import BinaryIO, NamedTuple

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_blocks import Blocks
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.lazy_tensors import LazyTensor, in_file
from registry.sources.formats.mat_values import Budget, Value

__all__ = ["Unpacked", "read_mat_5"]

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "float32", 9: "float64",
           12: "int64", 13: "uint64"}  # fmt: skip
_CLASSES = {6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32",
            14: "int64", 15: "uint64"}  # fmt: skip
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
_OTHERS = {_SPARSE: "a sparse matrix", 16: "a function", 17: "an object"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_LOGICAL, _COMPLEX = 0x200, 0x800
_MAX_DIMENSIONS = 32
_MAX_TEXT = 1 << 16
_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion of a file, and bytes below which any expansion is allowed
_PIECE = 1 << 20
_DAMAGED = "download or save it again"


class Unpacked(ByteSource):
    """What was compressed, in a temporary file without a name."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.size, self._most = name, 0, most
        self._file: BinaryIO | None = None

    def add(self, file: ByteSource, start: int, count: int) -> tuple[int, int]:
        """Unpack bytes of another file; where their content starts and ends here."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
        begin, unpacker = self.size, zlib.decompressobj()
        self._file.seek(begin)
        try:
            for at in range(start, start + count, _PIECE):
                data: bytes = bytes(file.read_at(at, min(_PIECE, start + count - at)))
                while data and not unpacker.eof:
                    piece = unpacker.decompress(data, _PIECE)
                    self.size += len(piece)
                    if self.size > self._most:
                        raise UnsafeError(
                            f"{self.name} would unpack {file.size} bytes to more than {self._most}",
                            "save it without compression",
                        )
                    self._file.write(piece)
                    data = unpacker.unconsumed_tail
        except zlib.error as error:
            raise WeightsError(f"{self.name} cannot be unpacked: {error}", _DAMAGED) from error
        if not unpacker.eof:
            raise WeightsError(f"{self.name} ends inside a compressed variable", _DAMAGED)
        return begin, self.size

    def read_at(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes from position ``start``."""
        if self._file is None or start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        self._file.seek(start)
        return self._file.read(count)

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()


class _Element(NamedTuple):
    """A data element: its type, where its content starts and ends, and where the next one starts."""

    kind: int
    start: int
    stop: int
    next: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class _Waiting(NamedTuple):
    """A matrix to be read into a value."""

    file: ByteSource
    element: _Element
    value: Value
    depth: int


def read_mat_5(file: ByteSource) -> tuple[dict[str, Value], Unpacked]:
    """The variables of a file by name, and the file of those that were compressed, which is to be closed.

    Raises
    ------
    UnsafeError
        A variable would unpack to more than a hundred times the file and 64 MiB, there are too many values, or they
        are nested too deeply.
    WeightsError
        The file is damaged.
    """
    reader = _Reader(file)
    try:
        return reader.variables(), reader.unpacked
    except BaseException:
        reader.unpacked.close()
        raise


class _Reader:
    def __init__(self, file: ByteSource) -> None:
        mark = bytes(file.read_at(126, 2))
        if 0 in file.read_at(0, 4):  # which MATLAB looks at; later formats begin with a text
            raise WeightsError(
                f"{file.name} is a file of MATLAB 4, which is not read", "load it in MATLAB and save it with -v7.3"
            )
        if mark not in (b"IM", b"MI"):
            raise WeightsError(f"{file.name} does not state its byte order", _DAMAGED)
        self.big = mark == b"MI"
        self.file = file
        self.name = file.name
        self.unpacked = Unpacked(file.name, max(_MAX_RATIO * file.size, _HARMLESS))
        self.budget = Budget(file.name)
        self.blocks = Blocks(file)

    def variables(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        waiting: list[_Waiting] = []
        at = 128
        while at < self.file.size:
            element = self.element(self.blocks, at, self.file.size)
            at = element.next
            source: ByteSource = self.file
            if element.kind == _COMPRESSED:
                start, stop = self.unpacked.add(self.file, element.start, element.size)
                source = self.unpacked
                element = self.element(source, start, stop)
            if element.kind != _MATRIX:
                raise WeightsError(f"{self.name} holds an element of type {element.kind} for a variable", _DAMAGED)
            self.budget.take(1, 0)
            value = Value()
            name = self.matrix(_Waiting(source, element, value, 0), waiting)
            if name in found:
                raise WeightsError(f"{self.name} holds the variable {name[:100]!r} twice", "save it again")
            found[name] = value
        while waiting:
            self.matrix(waiting.pop(), waiting)
        return found

    def element(self, file: ByteSource, at: int, stop: int) -> _Element:
        """The element at a position, whose content ends before ``stop``."""
        if at + 8 > stop:
            raise WeightsError(f"{self.name} is damaged at byte {at}: an element that is cut off", _DAMAGED)
        tag = file.read_at(at, 8)
        first = self.number(tag[:4])
        if first >> 16:
            kind, size, start, following = first & 0xFFFF, first >> 16, at + 4, at + 8
            if size > 4:
                raise WeightsError(f"{self.name} is damaged at byte {at}: a small element of {size} bytes", _DAMAGED)
        else:
            kind, size, start = first, self.number(tag[4:8]), at + 8
            following = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > stop:
            raise WeightsError(
                f"{self.name} is damaged at byte {at}: an element of {size} bytes where {stop - start} are left",
                _DAMAGED,
            )
        return _Element(kind, start, start + size, min(following, stop))

    def number(self, data: bytes | bytearray) -> int:
        return int.from_bytes(data, "big" if self.big else "little")

    def numbers(self, file: ByteSource, element: _Element, most: int) -> list[int]:
        """The 32-bit numbers of an element."""
        if element.kind not in (5, 6) or element.size > 4 * most or element.size % 4:
            raise WeightsError(f"{self.name} is damaged at byte {element.start}: no dimensions or flags", _DAMAGED)
        data = file.read_at(element.start, element.size)
        return [int(value) for value in np.frombuffer(data, ">i4" if self.big else "<i4")]

    def text(self, file: ByteSource, element: _Element, most: int = 1000) -> str:
        if element.size > most:
            raise UnsafeError(f"{self.name} has a name of {element.size} bytes", "rename it, then save again")
        return bytes(file.read_at(element.start, element.size)).decode("utf-8", "replace").rstrip("\0")

    def matrix(self, task: _Waiting, waiting: list[_Waiting]) -> str:
        """Read the header of a matrix into its value, and put what is inside of it with what is waiting; its name."""
        file, element, value, _ = task
        if element.kind != _MATRIX:
            raise WeightsError(f"{self.name} holds an element of type {element.kind} in a cell", _DAMAGED)
        blocks: ByteSource = self.blocks if file is self.file else file
        if not element.size:
            value.shape, value.other = (0, 0), "empty"
            return ""
        at = element.start
        flags_element = self.element(blocks, at, element.stop)
        flags = self.numbers(blocks, flags_element, 2)[0] if flags_element.size else 0
        kind = flags & 0xFF
        if kind == 17:  # an object without dimensions
            value.other = _OTHERS[17]
            return ""
        dims = self.element(blocks, flags_element.next, element.stop)
        value.shape = tuple(self.numbers(blocks, dims, _MAX_DIMENSIONS))
        if any(extent < 0 for extent in value.shape):
            raise WeightsError(f"{self.name} is damaged at byte {at}: a negative dimension", _DAMAGED)
        named = self.element(blocks, dims.next, element.stop)
        name = self.text(blocks, named)
        at = named.next
        if kind in (_CELL, _STRUCT, _OBJECT):
            self.inside(blocks, task, kind, at, waiting)
        elif kind == _CHAR:
            value.text = self.characters(blocks, self.element(blocks, at, element.stop))
        elif kind in _CLASSES:
            self.values(file, blocks, task, kind, flags, at)
        else:
            value.other = _OTHERS.get(kind, "of an unknown class")
        return name

    def inside(self, blocks: ByteSource, task: _Waiting, kind: int, at: int, waiting: list[_Waiting]) -> None:
        """Put the elements of a cell array, or the fields of structs, with what is waiting."""
        file, element, value, depth = task
        count = math.prod(value.shape)
        names = [""]
        if kind != _CELL:
            if kind == _OBJECT:
                at = self.element(blocks, at, element.stop).next
            width = self.element(blocks, at, element.stop)
            [length] = self.numbers(blocks, width, 1) or [0]
            listed = self.element(blocks, width.next, element.stop)
            at = listed.next
            if length < 1 or listed.size % length or listed.size > 64 * 2**20:
                raise WeightsError(f"{self.name} is damaged at byte {at}: names of fields", _DAMAGED)
            self.budget.take(listed.size // length, depth)
            data = bytes(blocks.read_at(listed.start, listed.size))
            names = [
                data[start : start + length].partition(b"\0")[0].decode("utf-8", "replace")
                for start in range(0, len(data), length)
            ]
        if count * len(names) * 8 > element.stop - at:
            raise WeightsError(f"{self.name} is damaged at byte {at}: {count} values of {len(names)} fields", _DAMAGED)
        self.budget.take(count * len(names), depth + 1)
        inner = [Value() for _ in range(count * len(names))]
        for each in inner:
            child = self.element(blocks, at, element.stop)
            waiting.append(_Waiting(file, child, each, depth + 1))
            at = child.next
        if kind == _CELL:
            value.cells = inner
        else:
            value.fields = {name: inner[place :: len(names)] for place, name in enumerate(names)}

    def characters(self, blocks: ByteSource, element: _Element) -> str:
        if element.size > _MAX_TEXT:
            return ""
        encoding = _ENCODINGS.get(element.kind, "latin-1")
        if encoding.startswith("utf-") and encoding != "utf-8":
            encoding += "-be" if self.big else "-le"
        return bytes(blocks.read_at(element.start, element.size)).decode(encoding, "replace")

    def values(self, file: ByteSource, blocks: ByteSource, task: _Waiting, kind: int, flags: int, at: int) -> None:
        """The numbers of an array."""
        value, element = task.value, task.element
        data = self.element(blocks, at, element.stop)
        dtype = "bool" if flags & _LOGICAL else _CLASSES[kind]
        stored = _STORED.get(data.kind)
        count = math.prod(value.shape)
        if flags & _COMPLEX:
            value.other = "complex numbers"
            return
        if count == 0:
            value.other = "empty"
            return
        if stored is None or data.size * 8 != count * bits_of(stored):
            raise WeightsError(
                f"{self.name} is damaged at byte {at}: an array of shape {str(value.shape)[:80]} in {data.size} bytes",
                _DAMAGED,
            )
        value.tensor = in_file(file, data.start, stored, value.shape, big=self.big, fortran=True)
        if stored != dtype:
            value.tensor = _widened(value.tensor, dtype)


def _widened(tensor: LazyTensor, dtype: str) -> LazyTensor:
    """Numbers that are stored in another type than that of their class, as MATLAB does where none is lost."""

    def span(start: int, stop: int) -> memoryview:
        narrow = np.frombuffer(tensor.span(0, tensor.bytes), np.dtype(tensor.dtype).newbyteorder("<"))
        data: memoryview = narrow.astype(np.dtype(dtype).newbyteorder("<")).view(np.uint8).data
        return data[start:stop]

    return replace(tensor, dtype=dtype, span=span, whole=True, stored=tensor.bytes)
