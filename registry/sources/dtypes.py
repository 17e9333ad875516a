"""Tensor dtypes under torch's names, and conversion of their bytes to NumPy arrays without torch."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLOATS", "SAFETENSORS_DTYPES", "bits_of", "decode", "decode_any", "is_float"]

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})

# safetensors' header name -> (torch's name, bits an element)
SAFETENSORS_DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 8),
    "F4": ("float4_e2m1fn_x2", 4),
    "F6_E2M3": ("float6_e2m3fn", 6),
    "F6_E3M2": ("float6_e3m2fn", 6),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "C64": ("complex64", 64),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}


_BITS = dict(SAFETENSORS_DTYPES.values()) | {"complex128": 128, "complex32": 32}
_BYTES = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8))  # torch's, of a byte each
_BITS |= dict.fromkeys(_BYTES, 8)
# Exponent and mantissa bits, bias, and whether the format has infinities; "fnuz" has no negative zero.
_SMALL_FLOATS = {
    "float8_e4m3fn": (4, 3, 7),
    "float8_e5m2": (5, 2, 15),
    "float8_e4m3fnuz": (4, 3, 8),
    "float8_e5m2fnuz": (5, 2, 16),
}


def bits_of(dtype: str, unknown: int | None = None) -> int:
    """Bits of one element. Raises ``KeyError`` for an unknown dtype, unless ``unknown`` is given."""
    return _BITS[dtype] if unknown is None else _BITS.get(dtype, unknown)


def is_float(dtype: str) -> bool:
    """Whether the dtype is float16, bfloat16, float32 or float64; only these weights have spectra."""
    return dtype in FLOATS


def decode(data: memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Array of ``shape`` from little-endian bytes: float64 for float64, else float32.

    float16 and bfloat16 widen to float32 exactly; bfloat16 is the upper half of a float32, shifted by 16 bits.
    """
    values: NDArray[np.floating]
    if dtype == "bfloat16":
        values = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "float16":
        values = np.frombuffer(data, dtype="<f2").astype(np.float32)
    else:
        values = np.frombuffer(data, dtype="<f8" if dtype == "float64" else "<f4")
    return values.reshape(shape)


def decode_any(data: memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Array of ``shape`` from little-endian bytes of any dtype that NumPy or the OCP formats define.

    Floating-point formats of 16 and of 8 bits (OCP 8-bit Floating Point Specification 1.0; the fnuz variants of
    arXiv:2206.02915; E8M0 of OCP Microscaling Formats 1.0) become float32, exactly. Integers and booleans keep their
    type. Integers below 8 bits are returned as the uint8 that hold them, so ``shape`` is that of the bytes.
    """
    if is_float(dtype):
        return decode(data, dtype, shape)
    if dtype in _SMALL_FLOATS or dtype == "float8_e8m0fnu":
        return _small_float_values(dtype)[np.frombuffer(data, np.uint8)].reshape(shape)
    if dtype == "complex32":
        return np.frombuffer(data, "<f2").astype(np.float32).view(np.complex64).reshape(shape)
    if _BITS.get(dtype, 0) < 8 or dtype not in _BITS or dtype in _BYTES:
        return np.frombuffer(data, np.uint8).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)


@cache
def _small_float_values(dtype: str) -> NDArray[np.float32]:
    """The values of all 256 codes of an 8-bit format."""
    codes = np.arange(256)
    if dtype == "float8_e8m0fnu":  # powers of two alone; 255 is NaN
        values = np.ldexp(np.ones(256), codes - 127)
        values[255] = np.nan
    else:
        values = _signed_values(codes, dtype)
    table: NDArray[np.float32] = values.astype(np.float32)
    return table


def _signed_values(codes: NDArray[np.integer], dtype: str) -> NDArray[np.float64]:
    """Values of codes with a sign bit, an exponent and a mantissa; subnormal where the exponent is zero."""
    exponent_bits, mantissa_bits, bias = _SMALL_FLOATS[dtype]
    mantissa = codes & (2**mantissa_bits - 1)
    exponent = codes >> mantissa_bits & (2**exponent_bits - 1)
    normal = exponent > 0
    sign = np.where(codes >> 7, -1.0, 1.0)
    values: NDArray[np.float64] = sign * np.ldexp(
        mantissa / 2**mantissa_bits + normal, np.where(normal, exponent, 1) - bias
    )
    if dtype.endswith("fnuz"):
        values[codes == 128] = np.nan
    elif dtype == "float8_e4m3fn":
        values[codes & 127 == 127] = np.nan
    else:
        top = exponent == 2**exponent_bits - 1
        values[top] = np.where(mantissa[top] > 0, np.nan, sign[top] * np.inf)
    return values
