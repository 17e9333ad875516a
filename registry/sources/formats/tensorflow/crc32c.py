"""CRC-32C (Castagnoli), as LevelDB tables and TensorFlow's checkpoints store it, at some hundred MB a second in NumPy.

A checksum is linear over GF(2): the data are cut into lanes that are reduced side by side, and the lanes' remainders
are joined, each moved on by the zeros behind it. Sources: RFC 3720, appendix B.4 (polynomial 0x1EDC6F41, reflected);
LevelDB's ``util/crc32c.h`` (masking).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["crc32c", "masked"]

_POLYNOMIAL = 0x82F63B78
_LANES, _LANE = 4096, 1024  # lanes and bytes a lane of one piece
_PIECE = _LANES * _LANE
_SMALL = 2048  # bytes that are reduced one after another


def crc32c(pieces: Iterable[bytes | bytearray | memoryview]) -> int:
    """The checksum of bytes that come in pieces of any sizes."""
    register = 0xFFFFFFFF
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            register = _extended(register, memoryview(piece)[start : start + _PIECE])
    return register ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """The form in which LevelDB and TensorFlow store a checksum: rotated by 15 bits, and a constant added."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _extended(register: int, data: memoryview) -> int:
    """The register after at most `_PIECE` bytes."""
    if len(data) < _SMALL:
        table = _bytewise()
        for byte in data:
            register = table[(register ^ byte) & 255] ^ register >> 8
        return register
    lanes = _LANES if len(data) > _PIECE // 8 else 64
    lane = -(-len(data) // (8 * lanes)) * 8
    padded = np.zeros(lanes * lane, np.uint8)  # zeros in front change no remainder
    padded[lanes * lane - len(data) :] = np.frombuffer(data, np.uint8)
    rest = _remainders(padded.reshape(lanes, lane))
    while len(rest) > 1:
        rest = _moved(rest[::2], lane) ^ rest[1::2]
        lane *= 2
    return int(_moved(np.array([register], np.uint32), len(data))[0] ^ rest[0])


def _remainders(lanes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The remainder of each row, whose length is a multiple of eight bytes."""
    tables = _tables()
    columns = np.ascontiguousarray(lanes.view("<u4").T)  # one word of each lane in a row
    rest = np.zeros(len(lanes), np.uint32)
    for place in range(0, len(columns), 2):
        first, second = columns[place] ^ rest, columns[place + 1]
        rest = tables[7][first & 255] ^ tables[6][first >> 8 & 255] ^ tables[5][first >> 16 & 255]
        rest ^= tables[4][first >> 24] ^ tables[3][second & 255] ^ tables[2][second >> 8 & 255]
        rest ^= tables[1][second >> 16 & 255] ^ tables[0][second >> 24]
    return rest


def _moved(rest: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """Remainders after ``count`` zero bytes more."""
    power = 0
    while count:
        if count & 1:
            low, second, third, high = _zeros(power)
            rest = low[rest & 255] ^ second[rest >> 8 & 255] ^ third[rest >> 16 & 255] ^ high[rest >> 24]
        count >>= 1
        power += 1
    return rest


@cache
def _zeros(power: int) -> NDArray[np.uint32]:
    """For each byte of a remainder, what 2^power zero bytes make of it: shape (4, 256)."""
    codes = np.arange(256, dtype=np.uint32)
    shifted = np.stack([codes << np.uint32(8 * place) for place in range(4)])
    if power == 0:
        return np.asarray(_tables()[0][shifted & 255] ^ shifted >> np.uint32(8), np.uint32)
    low, second, third, high = _zeros(power - 1)
    half = _zeros(power - 1)
    return np.asarray(low[half & 255] ^ second[half >> 8 & 255] ^ third[half >> 16 & 255] ^ high[half >> 24], np.uint32)


@cache
def _tables() -> NDArray[np.uint32]:
    """What a byte followed by 0 to 7 zero bytes leaves: shape (8, 256)."""
    tables = np.zeros((8, 256), np.uint32)
    codes = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        codes = np.where(codes & 1, codes >> 1 ^ np.uint32(_POLYNOMIAL), codes >> 1).astype(np.uint32)
    tables[0] = codes
    for place in range(1, 8):
        tables[place] = tables[0][tables[place - 1] & 255] ^ tables[place - 1] >> np.uint32(8)
    return tables


@cache
def _bytewise() -> list[int]:
    return [int(entry) for entry in _tables()[0]]
