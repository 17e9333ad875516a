"""FlatBuffers, read field by field over a file: each offset is checked against the file before it is followed.

Source: "FlatBuffer internals" in the documentation of google/flatbuffers. A table begins with the distance back to its
vtable, which has the size of itself and of the table, and for each field its place in the table, or 0.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Flat", "Table"]

_PAGE = 1 << 16
_PAGES = 64  # kept
_LONGEST = 1 << 16  # bytes of a text
_TEXTS = 64 * 2**20  # bytes of all texts
_TABLES = 5_000_000  # that are visited
_FORMATS = {"b": 1, "B": 1, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8}


class Flat:
    """A file as a FlatBuffer. Some pages of it are kept."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self._pages: dict[int, bytes | bytearray] = {}
        self._texts = 0
        self._tables = 0

    def root(self) -> Table:
        """The table that the file begins with."""
        return self.table(self.number(0, "I"))

    def table(self, at: int) -> Table:
        """The table at a place."""
        self._tables += 1
        if self._tables > _TABLES:
            raise UnsafeError(f"{self.file.name} has more than {_TABLES} parts", "convert the model again")
        return Table(self, at)

    def number(self, at: int, kind: str) -> int:
        """The integer at a place; ``kind``: as of `struct`."""
        return int(struct.unpack("<" + kind, self._bytes(at, _FORMATS[kind]))[0])

    def real(self, at: int) -> float:
        """The float32 at a place."""
        return float(struct.unpack("<f", self._bytes(at, 4))[0])

    def _bytes(self, at: int, count: int) -> bytes:
        """A few bytes, from the pages that are kept."""
        if at < 0 or at + count > self.file.size:
            raise self.damaged(f"it refers to byte {at}, of {self.file.size}")
        page, inside = divmod(at, _PAGE)
        if inside + count > _PAGE:
            return bytes(self.file.read_at(at, count))
        data = self._pages.get(page)
        if data is None:
            if len(self._pages) >= _PAGES:
                self._pages.pop(next(iter(self._pages)))
            data = self.file.read_at(page * _PAGE, min(_PAGE, self.file.size - page * _PAGE))
            self._pages[page] = data
        return bytes(data[inside : inside + count])

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Where the elements of a vector begin, and how many there are."""
        count = self.number(at, "I")
        if at + 4 + count * width > self.file.size:
            raise self.damaged(f"a list of {count} elements at byte {at}")
        return at + 4, count

    def text(self, at: int) -> str:
        """A text; what is no UTF-8 is replaced."""
        start, count = self.vector(at, 1)
        self._texts += count
        if count > _LONGEST or self._texts > _TEXTS:
            raise UnsafeError(f"{self.file.name} has a name of {count} bytes, or too many", "convert the model again")
        return bytes(self.file.read_at(start, count)).decode("utf-8", "replace")

    def damaged(self, what: str) -> WeightsError:
        """The error for content that cannot be."""
        return WeightsError(f"{self.file.name} is damaged: {what}", "download it again, or convert the model again")


class Table:
    """A table; its fields are known by their numbers in the schema."""

    def __init__(self, flat: Flat, at: int) -> None:
        self._flat = flat
        self._at = at
        self._vtable = at - flat.number(at, "i")
        self._size = flat.number(self._vtable, "H")
        if self._size < 4 or self._size % 2 or self._vtable + self._size > flat.file.size:
            raise flat.damaged(f"a table at byte {at} has no fields")

    def _place(self, number: int) -> int:
        entry = 4 + 2 * number
        offset = self._flat.number(self._vtable + entry, "H") if entry + 2 <= self._size else 0
        return self._at + offset if offset else 0

    def number(self, number: int, kind: str, default: int = 0) -> int:
        """A number; ``default`` where the field is missing."""
        place = self._place(number)
        return self._flat.number(place, kind) if place else default

    def real(self, number: int, default: float = 0.0) -> float:
        """A float32; ``default`` where the field is missing."""
        place = self._place(number)
        return self._flat.real(place) if place else default

    def _target(self, number: int) -> int:
        place = self._place(number)
        return place + self._flat.number(place, "I") if place else 0

    def text(self, number: int) -> str:
        """A text; empty where the field is missing."""
        target = self._target(number)
        return self._flat.text(target) if target else ""

    def table(self, number: int) -> Table | None:
        """A table; None where the field is missing."""
        target = self._target(number)
        return self._flat.table(target) if target else None

    def tables(self, number: int, most: int) -> list[Table]:
        """A list of tables; ``UnsafeError`` for more than ``most``."""
        target = self._target(number)
        if not target:
            return []
        start, count = self._flat.vector(target, 4)
        if count > most:
            raise UnsafeError(f"{self._flat.file.name} has a list of {count} parts", "convert the model again")
        places = (start + 4 * place for place in range(count))
        return [self._flat.table(place + self._flat.number(place, "I")) for place in places]

    def numbers(self, number: int, dtype: str, most: int) -> NDArray[np.generic]:
        """A list of numbers of NumPy's ``dtype``; ``UnsafeError`` for more than ``most``."""
        target = self._target(number)
        width = np.dtype(dtype).itemsize
        if not target:
            return np.zeros(0, dtype)
        start, count = self._flat.vector(target, width)
        if count > most:
            raise UnsafeError(f"{self._flat.file.name} has a list of {count} numbers", "convert the model again")
        return np.frombuffer(self._flat.file.read_at(start, count * width), dtype)

    def span(self, number: int, width: int = 1) -> tuple[int, int]:
        """Where a list of elements of ``width`` bytes lies, and how many there are; (0, 0) for a missing field."""
        target = self._target(number)
        return self._flat.vector(target, width) if target else (0, 0)
