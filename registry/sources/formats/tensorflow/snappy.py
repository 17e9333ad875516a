"""Decompression of Snappy's raw format, in which LevelDB tables may store their blocks.

Source: ``format_description.txt`` of google/snappy. An element of three bytes makes at most 64, which bounds what a
block can claim.
"""

from __future__ import annotations

__all__ = ["SnappyError", "decompressed"]

_RATIO = 22  # bytes that one compressed byte can become, rounded up


class SnappyError(ValueError):
    """The data are no Snappy block. Callers say which file it is of."""


def decompressed(data: bytes | bytearray | memoryview) -> bytearray:
    """The content of a block.

    Raises
    ------
    SnappyError
        An element is cut off, reaches before the start, or the length differs from the one stated.
    """
    length = shift = at = 0
    while True:
        if at >= min(len(data), 5):
            raise SnappyError("no length")
        length |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            break
    if length > _RATIO * len(data):
        raise SnappyError(f"{len(data)} bytes cannot become {length}")
    made = bytearray()
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            size = tag >> 2
            if size >= 60:
                width = size - 59
                size = int.from_bytes(data[at : at + width], "little")
                at += width
            size += 1
            if at + size > end or len(made) + size > length:
                raise SnappyError("a literal that is cut off")
            made += data[at : at + size]
            at += size
            continue
        width = (0, 1, 2, 4)[kind]
        if at + width > end:
            raise SnappyError("a copy that is cut off")
        offset = int.from_bytes(data[at : at + width], "little")
        at += width
        if kind == 1:
            size = 4 + (tag >> 2 & 7)
            offset |= tag >> 5 << 8
        else:
            size = 1 + (tag >> 2)
        if not 0 < offset <= len(made) or len(made) + size > length:
            raise SnappyError("a copy from outside")
        start = len(made) - offset
        if offset >= size:
            made += made[start : start + size]
        else:  # it repeats what it writes
            made += (made[start:] * (size // offset + 1))[:size]
    if len(made) != length:
        raise SnappyError(f"{len(made)} bytes in place of {length}")
    return made
