"""Values of GGUF's blocks: types of numbers, and types that quantise 32 to 256 numbers with common scales.

Every function takes the bytes of n blocks, uint8 (n, bytes of a block), and gives float32 (n, values of a block). The
layouts are those of the structures in ggml-common.h, the formulas those of ggml-quants.c of ggml; float operations are
in the same order, so that values are equal bit for bit to those of the library ``gguf``. Types whose values stand in
tables of up to 2,048 vectors (IQ1, IQ2, IQ3) are left to that library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import SourceError
from registry.sources.quantised.small_floats import E2M1

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["INTERMEDIATE", "REMOVED", "TYPES", "Type", "values_of"]


class Type(NamedTuple):
    """A type of tensors: ``name`` in ggml, ``block`` values in ``size`` bytes.

    ``dtype``: torch's name, of types of plain numbers; else empty. ``values``: what computes a block's values; None:
    the library ``gguf``. ``words``: positions of the two-byte numbers of a block, which are swapped in a big-endian
    file, as ``gguf-convert-endian`` does; None: that does not know the type.
    """

    name: str
    block: int
    size: int
    dtype: str = ""
    values: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    words: tuple[int, ...] | None = None


def _halves(blocks: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    """The float16 at a position of every block; shape (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _fields(codes: NDArray[np.uint8], group: int, bits: int) -> NDArray[np.uint8]:
    """Fields of some bits of bytes (n, g * group): of each group the lowest fields of all bytes, then the next."""
    count = 8 // bits
    out = np.empty((len(codes), codes.shape[1] // group, count, group), np.uint8)
    grouped = codes.reshape(len(codes), -1, group)
    for place in range(count):
        np.right_shift(grouped, bits * place, out=out[:, :, place])
    out &= (1 << bits) - 1
    return out.reshape(len(codes), -1)


def _high_bits(blocks: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """32 bits at a position of every block, each as 16 in a byte of its own."""
    found: NDArray[np.uint8] = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
    return found << np.uint8(4)


def _scaled(
    codes: NDArray[np.generic], scales: NDArray[np.float32], offsets: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """``scale * code - offset`` for groups of codes (n, values) with a scale (n, groups) each."""
    out = codes.astype(np.float32)
    grouped = out.reshape(*scales.shape, -1)
    grouped *= scales[..., None]
    if offsets is not None:
        grouped -= offsets[..., None]
    return out


def _q4_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(_fields(blocks[:, 2:], 16, 4).astype(np.int8) - np.int8(8), _halves(blocks, 0))


def _q4_1(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(_fields(blocks[:, 4:], 16, 4), _halves(blocks, 0)) + _halves(blocks, 2)


def _q5_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    codes = _fields(blocks[:, 6:], 16, 4) | _high_bits(blocks, 2)
    return _scaled(codes.astype(np.int8) - np.int8(16), _halves(blocks, 0))


def _q5_1(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    codes = _fields(blocks[:, 8:], 16, 4) | _high_bits(blocks, 4)
    return _scaled(codes, _halves(blocks, 0)) + _halves(blocks, 2)


def _q8_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(blocks[:, 2:].view(np.int8), _halves(blocks, 0))


def _q2_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """16 bytes of scale and offset (4 bits each), 64 of codes, scale of scales, scale of offsets."""
    scales = _halves(blocks, 80) * (blocks[:, :16] & 15).astype(np.float32)
    offsets = _halves(blocks, 82) * (blocks[:, :16] >> 4).astype(np.float32)
    return _scaled(_fields(blocks[:, 16:80], 32, 2), scales, offsets)


def _q3_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """32 bytes of third bits, 64 of codes, 12 of scales (6 bits each), scale of scales."""
    low = _fields(blocks[:, 96:104], 8, 4)
    high = _fields(blocks[:, 104:108], 4, 2)
    scales = (low | high << 4).astype(np.int8) - np.int8(32)
    codes = _fields(blocks[:, 32:96], 32, 2) | _fields(blocks[:, :32], 32, 1) << 2
    return _scaled(codes.astype(np.int8) - np.int8(4), _halves(blocks, 108) * scales.astype(np.float32))


def _scales_of_k(packed: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Eight scales and eight offsets of 6 bits each from 12 bytes (``get_scale_min_k4``)."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    offsets = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), offsets.astype(np.float32)


def _q4_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale of scales, scale of offsets, 12 bytes of both, 128 of codes."""
    scales, offsets = _scales_of_k(blocks[:, 4:16])
    return _scaled(_fields(blocks[:, 16:], 32, 4), _halves(blocks, 0) * scales, _halves(blocks, 2) * offsets)


def _q5_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As Q4_K, with 32 bytes of fifth bits before the codes."""
    scales, offsets = _scales_of_k(blocks[:, 4:16])
    codes = _fields(blocks[:, 48:], 32, 4) | _fields(blocks[:, 16:48], 32, 1) << 4
    return _scaled(codes, _halves(blocks, 0) * scales, _halves(blocks, 2) * offsets)


def _q6_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """128 bytes of low bits, 64 of the two high ones, 16 scales of 8 bits, scale of scales."""
    scales = _halves(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    codes = _fields(blocks[:, :128], 64, 4) | _fields(blocks[:, 128:192], 32, 2) << 4
    return _scaled(codes.astype(np.int8) - np.int8(32), scales)


_IQ4 = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)  # kvalues_iq4nl


def _iq4_nl(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(_IQ4[_fields(blocks[:, 2:], 16, 4)], _halves(blocks, 0))


def _iq4_xs(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale of scales, two high bits of eight scales, their four low ones, 128 bytes of codes."""
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    high = np.stack([blocks[:, 2:4] >> 2 * place & 3 for place in range(4)], axis=2).reshape(-1, 8)
    scales = ((low | high << 4).astype(np.int8) - np.int8(32)).astype(np.float32)
    return _scaled(_IQ4[_fields(blocks[:, 8:], 16, 4)], _halves(blocks, 0) * scales)


def _tq1_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """48 bytes of five ternary digits and 4 of four; a digit is the integer part of three times the fraction."""
    parts = []
    for start, stop, group, count in ((0, 32, 32, 5), (32, 48, 16, 5), (48, 52, 4, 4)):
        codes = blocks[:, start:stop].reshape(len(blocks), -1, 1, group)
        powers = np.array([3**place for place in range(count)], np.uint8).reshape(1, 1, -1, 1)
        parts.append((codes * powers).reshape(len(blocks), -1))
    digits = np.concatenate(parts, axis=1).astype(np.uint16) * np.uint16(3) >> np.uint16(8)
    return _scaled(digits.astype(np.int8) - np.int8(1), _halves(blocks, 52))


def _tq2_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(_fields(blocks[:, :64], 32, 2).astype(np.int8) - np.int8(1), _halves(blocks, 64))


_E2M1_DOUBLED = (2 * E2M1).astype(np.float32) + np.float32(0)  # no negative zero, as a table of integers has none
# Half of 2^(code - 127), subnormal at the end.
_E8M0_HALVED = np.ldexp(1.0, np.arange(256) - 128).astype(np.float32)


def _mxfp4(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _scaled(_E2M1_DOUBLED[_fields(blocks[:, 1:], 16, 4)], _E8M0_HALVED[blocks[:, :1]])


def _ue4m3_halved() -> NDArray[np.float32]:
    """Half the value of E4M3 codes, whose sign is not looked at; 0x7F, which is NaN there, is zero here."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    size = np.ldexp(mantissa / 8 + (exponent > 0), np.maximum(exponent, 1) - 7)
    size[0x7F] = 0.0
    halved: NDArray[np.float32] = (size / 2).astype(np.float32)
    return halved


_UE4M3_HALVED = _ue4m3_halved()


def _nvfp4(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Four scales, then 8 bytes for each 16 values. A scale of the whole tensor is a tensor of its own."""
    return _scaled(_E2M1_DOUBLED[_fields(blocks[:, 4:], 8, 4)], _UE4M3_HALVED[blocks[:, :4]])


def _q1_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A sign for each value."""
    signs = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.int8) * np.int8(2) - np.int8(1)
    return _scaled(signs, _halves(blocks, 0))


TYPES: dict[int, Type] = {
    0: Type("F32", 1, 4, "float32"),
    1: Type("F16", 1, 2, "float16"),
    2: Type("Q4_0", 32, 18, "", _q4_0, (0,)),
    3: Type("Q4_1", 32, 20, "", _q4_1),
    6: Type("Q5_0", 32, 22, "", _q5_0),
    7: Type("Q5_1", 32, 24, "", _q5_1),
    8: Type("Q8_0", 32, 34, "", _q8_0, (0,)),
    10: Type("Q2_K", 256, 84, "", _q2_k),
    11: Type("Q3_K", 256, 110, "", _q3_k),
    12: Type("Q4_K", 256, 144, "", _q4_k, (0, 2)),
    13: Type("Q5_K", 256, 176, "", _q5_k),
    14: Type("Q6_K", 256, 210, "", _q6_k, (208,)),
    16: Type("IQ2_XXS", 256, 66),
    17: Type("IQ2_XS", 256, 74),
    18: Type("IQ3_XXS", 256, 98),
    19: Type("IQ1_S", 256, 50),
    20: Type("IQ4_NL", 32, 18, "", _iq4_nl),
    21: Type("IQ3_S", 256, 110),
    22: Type("IQ2_S", 256, 82),
    23: Type("IQ4_XS", 256, 136, "", _iq4_xs),
    24: Type("I8", 1, 1, "int8"),
    25: Type("I16", 1, 2, "int16"),
    26: Type("I32", 1, 4, "int32"),
    27: Type("I64", 1, 8, "int64"),
    28: Type("F64", 1, 8, "float64"),
    29: Type("IQ1_M", 256, 56),
    30: Type("BF16", 1, 2, "bfloat16"),
    34: Type("TQ1_0", 256, 54, "", _tq1_0),
    35: Type("TQ2_0", 256, 66, "", _tq2_0),
    39: Type("MXFP4", 32, 17, "", _mxfp4, ()),
    40: Type("NVFP4", 64, 36, "", _nvfp4),
    41: Type("Q1_0", 128, 18, "", _q1_0),
}
"""Types by their number in ``enum ggml_type``."""

REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
"""Types that ggml had once."""

INTERMEDIATE = {9: "Q8_1", 15: "Q8_K"}
"""Types of ggml's intermediate results, which no model is stored in."""


def values_of(kind: Type, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Values of blocks; float32 (n, ``kind.block``).

    Raises
    ------
    SourceError
        The type is left to the library ``gguf``, which is not installed, or is too old to know it.
    """
    if kind.values is not None:
        return kind.values(blocks)
    try:
        library = import_module("gguf")
        number = library.GGMLQuantizationType[kind.name]
        # Some of its tables are looked up with zero-sized steps at the ends of the range; overflow is part of float16.
        with np.errstate(all="ignore"):
            found: NDArray[np.float32] = library.quants.dequantize(blocks, number)
    except (ImportError, AttributeError, KeyError, NotImplementedError) as error:
        raise SourceError(
            f"tensors of the type {kind.name} need the library gguf", "pip install 'architecture-registry[gguf]'"
        ) from error
    return found.reshape(len(blocks), kind.block)
