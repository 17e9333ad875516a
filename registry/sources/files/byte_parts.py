"""Bytes that are a part of a file, in memory, or in a temporary file: sources like the file that they are from."""

from __future__ import annotations

from typing import IO

from registry.errors import SourceError
from registry.sources.files.byte_source import ByteSource

__all__ = ["InMemory", "Section", "Temporary"]


class Section(ByteSource):
    """Bytes ``start`` to ``start + size`` of another source, which stays open when this is closed.

    Raises ``WeightsError`` if the source does not have them. ``name``: for messages; by default the source's.
    """

    def __init__(self, source: ByteSource, start: int, size: int, name: str = "") -> None:
        if start < 0 or size < 0 or start + size > source.size:
            raise source.ends_early(start, size)
        self._source = source
        self._start = start
        self.size = size
        self.name = name or source.name

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        return self._source.read_at(self._start + start, count)


class InMemory(ByteSource):
    """Bytes in memory. ``name``: of the file that they are from, for messages."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str) -> None:
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)
        self.name = name

    def read_at(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        return bytes(self._data[start : start + count])


class Temporary(ByteSource):
    """The ``size`` bytes of a temporary file, which is gone when it is closed."""

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file = file
        self.size = size
        self.name = name

    def read_at(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        try:
            self._file.seek(start)
            data = self._file.read(count)
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read: {error.strerror}", "check the disk") from error
        if len(data) < count:
            raise self.ends_early(start, count)
        return data

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
