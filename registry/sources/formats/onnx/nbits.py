"""Weights in blocks of a few bits, as ONNX Runtime's MatMulNBits and GatherBlockQuantized store them.

Source: "Contrib Operators", ONNX Runtime: codes lie along the inputs, low bits first. A block has one scale and one
zero point, which is half of the range where it is not given. Zero points are packed like the codes, each row filled up
to whole bytes, or are floating-point numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.files.lazy_tensors import LazyTensor, computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["gathered_blocks", "nbits"]

_REMEDY = "export the model again"


def _codes(packed: NDArray[np.generic], bits: int, count: int) -> NDArray[np.float32]:
    """Codes of each row of bytes, the first ``count``."""
    parts = [packed.view(np.uint8) >> np.uint8(shift) & np.uint8(2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(packed.shape[0], -1)[:, :count].astype(np.float32)


def nbits(codes: LazyTensor, scale: LazyTensor, zero: LazyTensor | None, sizes: Mapping[str, int]) -> LazyTensor:
    """The matrix (out, in) of a MatMulNBits.

    Parameters
    ----------
    codes
        uint8 of shape (N, blocks, block_size * bits / 8).
    scale
        N * blocks numbers.
    zero
        uint8, N rows of packed codes; or as many floating-point numbers as scales; None: 2^(bits - 1).
    sizes
        ``K`` inputs, ``N`` outputs, ``bits`` (2, 4 or 8; 0: 4), ``block_size``.

    Raises
    ------
    WeightsError
        The tensors do not have these sizes.
    """
    inputs, outputs, block = sizes["K"], sizes["N"], sizes["block_size"]
    bits = sizes["bits"] or 4
    if bits not in (2, 4, 8) or min(inputs, outputs, block) < 1 or block * bits % 8:
        raise WeightsError(f"MatMulNBits has sizes {dict(sizes)}, which are not known here", _REMEDY)
    blocks = -(-inputs // block)
    width = block * bits // 8
    packed = -(-blocks * bits // 8)
    fits = codes.dtype == "uint8" and math.prod(codes.shape) == outputs * blocks * width
    fits = fits and math.prod(scale.shape) == outputs * blocks and is_float(scale.dtype)
    if zero is not None:
        fits = fits and math.prod(zero.shape) == outputs * (blocks if is_float(zero.dtype) else packed)
    if not fits:
        raise WeightsError(f"MatMulNBits has tensors that do not fit its sizes {dict(sizes)}", _REMEDY)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        row = blocks * width
        data = np.frombuffer(codes.span(start * row, stop * row), np.uint8).reshape(stop - start, row)
        values = _codes(data, bits, blocks * block).reshape(stop - start, blocks, block)
        if zero is None:
            values -= np.float32(2 ** (bits - 1))
        elif is_float(zero.dtype):
            values -= zero.values().reshape(outputs, blocks)[start:stop, :, None].astype(np.float32)
        else:
            zeros = _codes(zero.values().reshape(outputs, packed)[start:stop], bits, blocks)
            values -= zeros[:, :, None]
        with np.errstate(all="ignore"):
            values *= scale.values().reshape(outputs, blocks)[start:stop, :, None].astype(np.float32)
        return values.reshape(stop - start, -1)[:, :inputs]

    stored = sum(tensor.bytes for tensor in (codes, scale, zero) if tensor is not None)
    return computed("float32", (outputs, inputs), rows, precision=f"int{bits} onnx", stored=stored)


def gathered_blocks(
    codes: LazyTensor, scale: LazyTensor, zero: LazyTensor | None, axis: int, block: int, bits: int
) -> LazyTensor:
    """The table (many, width) of a GatherBlockQuantized whose blocks lie along the width.

    ``codes``: int4, uint4 or int8 values of that shape, or uint8 that hold several codes each.
    """
    shape = codes.shape
    if codes.dtype == "uint8" and not codes.precision and bits in (2, 4) and len(shape) == 2:
        shape = (shape[0], shape[1] * 8 // bits)
    packed = shape != codes.shape
    blocks = -(-shape[-1] // block) if block > 0 and len(shape) == 2 else 0
    fits = len(shape) == 2 and axis in (1, -1) and scale.shape == (shape[0], blocks)
    if not fits or (
        zero is not None and math.prod(zero.shape) not in (shape[0] * blocks, shape[0] * -(-blocks * bits // 8))
    ):
        raise WeightsError(f"GatherBlockQuantized has a table of shape {str(shape)[:80]} that does not fit", _REMEDY)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        if packed:
            width = codes.shape[1]
            data = np.frombuffer(codes.span(start * width, stop * width), np.uint8).reshape(stop - start, width)
            values = _codes(data, bits, shape[1])
        else:
            values = codes.values()[start:stop].astype(np.float32)
        middle = 2 ** (bits - 1) if codes.dtype == "uint8" else 0
        zeros: NDArray[np.floating] = np.full((stop - start, blocks), middle, np.float32)
        if zero is not None and math.prod(zero.shape) == shape[0] * blocks:
            zeros = zero.values().reshape(shape[0], blocks)[start:stop].astype(np.float32)
        elif zero is not None:
            zeros = _codes(zero.values().reshape(shape[0], -1)[start:stop], bits, blocks)
        factor = scale.values()[start:stop].astype(np.float32)
        spread = [np.repeat(each, block, 1)[:, : shape[1]] for each in (zeros, factor)]
        with np.errstate(all="ignore"):
            return np.asarray((values - spread[0]) * spread[1])

    stored = sum(t.bytes if t.stored is None else t.stored for t in (codes, scale, zero) if t is not None)
    return computed("float32", shape, rows, precision=f"int{bits} onnx", stored=stored, whole=codes.whole)
