"""Decoding of stored bytes against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from registry.sources.dtypes import SAFETENSORS_DTYPES, bits_of, decode_any

SMALL = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
PLAIN = ("int8", "uint8", "int16", "int32", "int64", "bool", "float16", "bfloat16", "float32", "float64", "complex64")


@pytest.mark.parametrize("dtype", SMALL)
def test_every_code_of_8_bits(dtype: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(getattr(torch, dtype)).to(torch.float32).numpy()
    found = decode_any(memoryview(codes.numpy()), dtype, (16, 16))
    np.testing.assert_array_equal(found, expected.reshape(16, 16), strict=True)
    assert len(np.unique(found)) > 200  # the control: not one value for all


@pytest.mark.parametrize("dtype", PLAIN)
def test_plain_dtypes(dtype: str) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) - 7).to(getattr(torch, dtype))
    data = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
    wide = tensor.to(torch.float32) if dtype in ("float16", "bfloat16") else tensor
    np.testing.assert_array_equal(decode_any(data, dtype, (2, 3, 4)), wide.numpy(), strict=True)


def test_packed_codes_stay_packed() -> None:
    data = memoryview(bytes(range(6)))
    assert decode_any(data, "float4_e2m1fn_x2", (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_bits() -> None:
    assert {bits_of(name) for name, _ in SAFETENSORS_DTYPES.values()} == {4, 6, 8, 16, 32, 64}
    assert (bits_of("bfloat16"), bits_of("complex128"), bits_of("odd", 0)) == (16, 128, 0)
    with pytest.raises(KeyError):
        bits_of("odd")
