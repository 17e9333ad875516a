"""Sorted tables of LevelDB, in which TensorFlow keeps the index of a checkpoint.

A table ends with a footer that says where its index lies. The index names the blocks, each of keys that share their
beginnings with the key before, and values. Source: ``doc/table_format.md`` of google/leveldb, which
``tensorflow/core/lib/io/format.cc`` follows.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.formats.tensorflow.crc32c import crc32c, masked
from registry.sources.formats.tensorflow.snappy import SnappyError, decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Entry", "Table"]

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # bytes behind a block: how it is compressed, and its checksum
_MAX_INDEX = 64 * 2**20
_MAX_KEY = 1 << 16
_MAX_BLOCKS = 1_000_000


class Block(NamedTuple):
    """Where a block lies, without its trailer."""

    offset: int
    size: int


class Entry(NamedTuple):
    """An entry: its key, its block, and where its value lies in the block's content."""

    key: bytes
    block: Block
    start: int
    stop: int


class Table:
    """A table in a file; its blocks are read when they are asked for, the last one is kept.

    Raises
    ------
    WeightsError
        The file has no footer of a table, or, while it is read, a block is damaged.
    """

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self._last: tuple[Block, bytearray | memoryview] = (Block(0, 0), bytearray())
        if file.size < _FOOTER:
            raise self._damaged("it is shorter than a footer")
        footer = bytearray(file.read_at(file.size - _FOOTER, _FOOTER))
        if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
            raise self._damaged("it has no footer")
        _, at = self._handle(footer, 0)
        self._index, _ = self._handle(footer, at)

    def __iter__(self) -> Iterator[Entry]:
        """All entries in the order of their keys."""
        if self._index.size > _MAX_INDEX:
            raise UnsafeError(f"{self.file.name} has an index of {self._index.size} bytes", "save it again")
        index = self.content(self._index)
        blocks = [self._handle(index[e.start : e.stop], 0)[0] for e in self._entries(self._index, index)]
        if sum(block.size + _TRAILER for block in blocks) > self.file.size:
            raise self._damaged("its blocks overlap")
        count = 0
        for block in blocks:
            for entry in self._entries(block, self.content(block)):
                count += 1
                if count > MAX_TENSORS:
                    raise UnsafeError(f"{self.file.name} has more than {MAX_TENSORS} entries", "split the file")
                yield entry

    def value(self, entry: Entry) -> bytearray | memoryview:
        """The value of an entry."""
        return self.content(entry.block)[entry.start : entry.stop]

    def content(self, block: Block) -> bytearray | memoryview:
        """The content of a block, its checksum compared."""
        if self._last[0] == block:
            return self._last[1]
        self._last = (Block(0, 0), bytearray())
        stored = memoryview(self.file.read_at(block.offset, block.size + _TRAILER))
        kind, stated = stored[block.size], struct.unpack("<I", stored[-4:])[0]
        if masked(crc32c([stored[:-4]])) != stated:
            raise self._damaged(f"the checksum of its block at byte {block.offset} differs")
        data: bytearray | memoryview = stored[: block.size]
        if kind == 1:
            try:
                data = decompressed(data)
            except SnappyError as error:
                raise self._damaged(f"its block at byte {block.offset} cannot be unpacked: {error}") from error
        elif kind:
            raise self._damaged(f"its block at byte {block.offset} is packed in an unknown way")
        self._last = (block, data)
        return data

    def _entries(self, block: Block, data: bytearray | memoryview) -> Iterator[Entry]:
        if len(data) < 4:
            raise self._damaged("an empty block")
        restarts = int.from_bytes(data[-4:], "little")
        end = len(data) - 4 - 4 * restarts
        if end < 0:
            raise self._damaged(f"a block of {restarts} restarts")
        key, at = b"", 0
        while at < end:
            shared, at = self._varint(data, at)
            added, at = self._varint(data, at)
            size, at = self._varint(data, at)
            if shared > len(key) or shared + added > _MAX_KEY or at + added + size > end:
                raise self._damaged(f"an entry of its block at byte {block.offset} reaches beyond it")
            key = key[:shared] + bytes(data[at : at + added])
            at += added
            yield Entry(key, block, at, at + size)
            at += size

    def _handle(self, data: bytearray | memoryview, at: int) -> tuple[Block, int]:
        offset, at = self._varint(data, at)
        size, at = self._varint(data, at)
        if offset + size + _TRAILER > self.file.size:
            raise self._damaged(f"a block of {size} bytes at byte {offset}, of {self.file.size}")
        return Block(offset, size), at

    def _varint(self, data: bytearray | memoryview, at: int) -> tuple[int, int]:
        value = 0
        for place in range(at, min(at + 10, len(data))):
            value |= (data[place] & 127) << 7 * (place - at)
            if data[place] < 128:
                return value, place + 1
        raise self._damaged("a number that is cut off")

    def _damaged(self, what: str) -> WeightsError:
        return WeightsError(f"{self.file.name} is no sound table of TensorFlow: {what}", "download or save it again")
