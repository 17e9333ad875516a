"""Values of floating-point codes below 8 bits, and of exponents without a mantissa."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["E2M1", "E2M3", "E3M2", "exponents", "fp4_values"]


def _values(exponent_bits: int, mantissa_bits: int, bias: int) -> NDArray[np.float32]:
    """Values of all codes of a format with a sign bit, subnormals and neither infinity nor NaN.

    The element formats of OCP Microscaling Formats 1.0, section 5.3.
    """
    codes = np.arange(2 ** (1 + exponent_bits + mantissa_bits))
    mantissa = codes & (2**mantissa_bits - 1)
    exponent = codes >> mantissa_bits & (2**exponent_bits - 1)
    fraction = mantissa / 2**mantissa_bits + (exponent > 0)
    size = np.ldexp(fraction, np.maximum(exponent, 1) - bias)
    signed: NDArray[np.float32] = np.where(codes >> (exponent_bits + mantissa_bits), -size, size).astype(np.float32)
    return signed


E2M1 = _values(2, 1, 1)
"""FP4: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same with the sign."""

E2M3 = _values(2, 3, 1)
"""FP6 with three bits of mantissa; the largest value is 7.5."""

E3M2 = _values(3, 2, 3)
"""FP6 with two bits of mantissa; the largest value is 28."""


_EXPONENTS = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)


# Both values of each byte, as one number of eight bytes: a table of 256 entries is read faster than one of 16 twice.
_PAIRS = np.stack([E2M1[np.arange(256) & 15], E2M1[np.arange(256) >> 4]], axis=1).view(np.uint64).reshape(256)


def fp4_values(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """E2M1: both values of each byte, that of the low nibble first; shape (..., n) to (..., 2 n)."""
    return np.take(_PAIRS, packed).view(np.float32)


def exponents(codes: NDArray[np.generic]) -> NDArray[np.float32]:
    """E8M0: 2^(code - 127) of uint8 codes; 255 is NaN."""
    return _EXPONENTS[codes.astype(np.uint8)]
