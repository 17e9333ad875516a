"""A file read in blocks, for structures that are many small reads close together."""

from __future__ import annotations

from collections import OrderedDict

from registry.sources.files.byte_source import ByteSource

__all__ = ["Blocks"]

_BLOCK, _BLOCKS = 1 << 16, 128  # bytes fetched at once, and blocks kept


class Blocks(ByteSource):
    """A file of which the blocks last read are kept, 8 MiB at most. Closing it leaves the file open."""

    def __init__(self, file: ByteSource) -> None:
        self.name, self.size, self._file = file.name, file.size, file
        self._kept: OrderedDict[int, bytes | bytearray] = OrderedDict()

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        if count > 4 * _BLOCK or start < 0 or start + count > self.size:
            return self._file.read_at(start, count)
        first, last = start // _BLOCK, max(start, start + count - 1) // _BLOCK
        data = b"".join(bytes(self._block(number)) for number in range(first, last + 1))
        return data[start - first * _BLOCK : start - first * _BLOCK + count]

    def _block(self, number: int) -> bytes | bytearray:
        if number not in self._kept:
            start = number * _BLOCK
            self._kept[number] = self._file.read_at(start, min(_BLOCK, self.size - start))
            if len(self._kept) > _BLOCKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]
