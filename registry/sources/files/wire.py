"""Protocol Buffers messages, walked field by field over a file, without the message types.

Only tags and lengths are read; the content of a field is read when it is asked for, so that a message of gigabytes
takes no memory. Source: "Encoding", Protocol Buffers documentation (protobuf.dev). Groups, which were deprecated before
any of these formats, are an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Field", "Message"]

_WINDOW = 1 << 16  # bytes read at once while fields are walked
_LONGEST_TEXT = 1 << 20
_MAX_FIELDS = 50_000_000  # of one walk
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, wire type, value (of numbers), and where its content lies (of bytes)."""

    number: int
    wire: int
    value: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return self.stop - self.start


class Message:
    """Bytes ``start`` to ``stop`` of a file, taken as a message.

    Raises
    ------
    WeightsError
        While it is walked: a field is cut off, reaches beyond the message, or has an unknown wire type.
    """

    def __init__(self, file: ByteSource, start: int = 0, stop: int | None = None, depth: int = 0) -> None:
        self.file = file
        self.start = start
        self.stop = file.size if stop is None else stop
        self.depth = depth

    def __iter__(self) -> Iterator[Field]:
        """The fields in the order of the file."""
        file, at, end = self.file, self.start, self.stop
        low = high = at
        window: bytes | bytearray = b""
        for _ in range(_MAX_FIELDS):
            if at >= end:
                return
            if high - at < 20 and high < end:  # a tag and a length take at most twenty bytes
                low, high = at, min(end, at + _WINDOW)
                window = file.read_at(low, high - low)
            tag, at = self._varint(window, low, at)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, at = self._varint(window, low, at)
                yield Field(number, wire, value, at, at)
                continue
            if wire == BYTES:
                size, at = self._varint(window, low, at)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise self._damaged(at, f"a field of unknown wire type {wire}")
            if not number or size > end - at:
                raise self._damaged(at, f"a field of {size} bytes where {end - at} are left")
            value = 0
            if wire != BYTES:
                inside = window[at - low : at - low + size] if at + size <= high else file.read_at(at, size)
                value = int.from_bytes(inside, "little")
            yield Field(number, wire, value, at, at + size)
            at += size
        raise UnsafeError(f"{self.file.name} has a message of more than {_MAX_FIELDS} fields", "split the file")

    def _varint(self, window: bytes | bytearray, low: int, at: int) -> tuple[int, int]:
        value = shift = 0
        for place in range(at - low, min(at - low + 10, len(window))):
            byte = window[place]
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), low + place + 1
            shift += 7
        raise self._damaged(at, "a number that is cut off")

    def _damaged(self, at: int, what: str) -> WeightsError:
        return WeightsError(f"{self.file.name} is damaged at byte {at}: {what}", "download or save it again")

    def message(self, field: Field) -> Message:
        """The content of a field as a message. Raises ``UnsafeError`` deeper than 100 levels."""
        if field.wire != BYTES:
            raise self._damaged(field.start, f"field {field.number} is a number in place of a message")
        if self.depth >= 100:
            raise UnsafeError(f"{self.file.name} nests messages deeper than 100 levels", "save it again")
        return Message(self.file, field.start, field.stop, self.depth + 1)

    def messages(self, number: int) -> Iterator[Message]:
        """The contents of all fields of a number as messages."""
        return (self.message(field) for field in self if field.number == number)

    def data(self, field: Field, limit: int | None = None) -> bytes | bytearray:
        """The bytes of a field; ``UnsafeError`` if they are more than ``limit``."""
        if limit is not None and field.size > limit:
            raise UnsafeError(
                f"{self.file.name} has a field of {field.size} bytes where at most {limit} make sense", "save it again"
            )
        return self.file.read_at(field.start, field.size)

    def text(self, field: Field) -> str:
        """The text of a field, of at most 1 MiB; wrong UTF-8 is replaced."""
        return self.data(field, _LONGEST_TEXT).decode("utf-8", "replace")

    def integers(self, field: Field) -> list[int]:
        """The signed 64-bit numbers of a repeated field: one, or packed in its bytes (at most 64 MiB)."""
        if field.wire != BYTES:
            return [_signed(field.value)]
        data = self.data(field, 1 << 26)
        found, at = [], 0
        while at < len(data):
            value, at = self._varint(data, 0, at)
            found.append(_signed(value))
        return found

    def numbers(self, field: Field, dtype: str) -> NDArray[np.generic]:
        """The values of a repeated field of fixed width, packed or one: ``<f4``, ``<f8``, ``<u4``, ``<i8``."""
        data = self.data(field) if field.wire == BYTES else struct.pack("<Q", field.value)[: np.dtype(dtype).itemsize]
        if len(data) % np.dtype(dtype).itemsize:
            raise self._damaged(field.start, f"{len(data)} bytes of numbers of {np.dtype(dtype).itemsize} bytes")
        return np.frombuffer(data, dtype)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
