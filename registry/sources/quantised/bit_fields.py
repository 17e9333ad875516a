"""Codes of 1 to 8 bits that are packed into bytes and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["by_blocks", "sign_extended", "split_nibbles", "unpack_fields", "unpack_high_first", "unpack_padded"]

_BLOCK = 1 << 22
"""Elements that are decoded at once, so that what is needed beside the result stays below some 100 MB."""


def unpack_fields(packed: NDArray[np.uint8], bits: int, count: int | None = None) -> NDArray[np.uint8]:
    """Codes of a dense stream, low bits first; a code may lie in two bytes or words.

    Little-endian words of any width, seen as bytes, are such a stream.

    Parameters
    ----------
    packed
        Shape (..., bytes): the last axis is one stream.
    bits
        Width of a code, 1 to 8.
    count
        Codes wanted of each stream; without it, as many as there are.

    Returns
    -------
    ndarray
        uint8 of shape (..., count).

    Raises
    ------
    ValueError
        The width is none of 1 to 8, or the stream is too short for ``count``.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"a code of {bits} bits")
    size = packed.shape[-1]
    there = size * 8 // bits
    wanted = there if count is None else count
    if not 0 <= wanted <= there:
        raise ValueError(f"{wanted} codes of {bits} bits in {size} bytes")
    if bits == 8:
        return packed[..., :wanted]
    if 8 % bits == 0:
        return _fields(packed, bits, 8 // bits)[..., :wanted]
    # Eight codes lie in as many bytes as a code has bits.
    groups = -(-size // bits)
    whole = np.zeros((*packed.shape[:-1], groups, 8), np.uint8)
    padded = packed
    if size != groups * bits:
        padded = np.zeros((*packed.shape[:-1], groups * bits), np.uint8)
        padded[..., :size] = packed
    whole[..., :bits] = padded.reshape(*packed.shape[:-1], groups, bits)
    return _fields(whole.view("<u8")[..., 0], bits, 8)[..., :wanted]


def _fields(words: NDArray[np.unsignedinteger], bits: int, each: int) -> NDArray[np.uint8]:
    """The lowest ``each`` codes of each word: shape (..., n) to (..., n * each)."""
    codes = np.empty((*words.shape, each), np.uint8)
    kind = words.dtype.type
    for at in range(each):  # whole arrays, one code at a time: NumPy is slow along short axes
        codes[..., at] = words >> kind(at * bits) & kind(2**bits - 1)
    return codes.reshape(*words.shape[:-1], -1)


def unpack_padded(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint8]:
    """Codes of 32-bit words that hold ``32 // bits`` whole codes each, low bits first; higher bits are unused.

    ``words`` has shape (..., n), the result (..., n * (32 // bits)) and dtype uint8. Raises ``ValueError`` where the
    width is none of 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"a code of {bits} bits")
    return _fields(words, bits, 32 // bits)


def split_nibbles(packed: NDArray[np.uint8], *, high_first: bool = False) -> NDArray[np.uint8]:
    """Both 4-bit codes of each byte: shape (..., n) to (..., 2 n), the low one first unless ``high_first``."""
    codes = np.empty((*packed.shape, 2), np.uint8)
    codes[..., int(high_first)] = packed & 15
    codes[..., int(not high_first)] = packed >> 4
    return codes.reshape(*packed.shape[:-1], -1)


def unpack_high_first(packed: NDArray[np.uint8], bits: int, skipped: int, count: int) -> NDArray[np.integer]:
    """``count`` codes of a dense stream of at most 8 bits each, high bits first, behind ``skipped`` bits."""
    stored = np.concatenate([packed, np.zeros(2, np.uint8)]).astype(np.uint16)
    first = skipped + bits * np.arange(count)
    at, inside = first >> 3, first & 7
    found: NDArray[np.integer] = (((stored[at] << 8) | stored[at + 1]) >> (16 - bits - inside)) & ((1 << bits) - 1)
    return found


def sign_extended(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """Codes of ``bits`` bits read as two's complement."""
    sign = 1 << (bits - 1)
    return ((codes.astype(np.int16) ^ sign) - sign).astype(np.int8)


def by_blocks(
    start: int, stop: int, rest: tuple[int, ...], decode: Callable[[int, int], NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Rows ``start`` to ``stop`` as float32 of shape (stop - start, *rest), decoded a few million elements at a time.

    ``decode(a, b)`` gives rows a to b. It is called on consecutive parts, so that its temporary arrays stay small.
    """
    made = np.empty((stop - start, *rest), np.float32)
    step = max(1, _BLOCK // max(1, int(np.prod(rest, dtype=np.int64))))
    for at in range(start, stop, step):
        end = min(stop, at + step)
        made[at - start : end - start] = decode(at, end)
    return made
