"""Tensor dtypes under torch's names, and conversion of their bytes to NumPy arrays without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLOATS", "SAFETENSORS_DTYPES", "decode", "is_float"]

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
