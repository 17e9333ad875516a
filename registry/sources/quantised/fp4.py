"""Rows of weights in 4- and 6-bit floating point with scales for blocks along the inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.quantised.bit_fields import by_blocks, unpack_fields
from registry.sources.quantised.block_scales import DAMAGED, BlockScales
from registry.sources.quantised.small_floats import E2M3, fp4_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.sources.effective_weights import EffectiveTensor, Rows, TensorView

__all__ = ["PACKED", "block_scales", "fp4_rows", "packed_codes", "whole_scales"]

PACKED = ("uint8", "int8", "float4_e2m1fn_x2")
"""Dtypes of tensors whose bytes hold two codes of 4 bits."""


def packed_codes(view: TensorView, tensor: EffectiveTensor) -> tuple[Rows, tuple[int, ...]]:
    """Function of rows of a tensor's bytes as uint8, and their shape; safetensors counts codes of dtype F4 instead."""
    shape, rows = tensor.shape, tensor.rows
    if tensor.dtype != "float4_e2m1fn_x2":
        return (lambda start, stop: np.ascontiguousarray(rows(start, stop)).view(np.uint8)), shape
    width, rest = divmod(view.bytes_of(tensor.name), max(1, math.prod(shape[:-1])))
    if rest or width not in (shape[-1], shape[-1] / 2):
        raise WeightsError(f"{view.where}: the fp4 weight {tensor.name} has rows of unequal size", DAMAGED)
    inner = (*shape[1:-1], width)
    step = math.prod(inner)

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        return np.frombuffer(view.span(tensor.name, start * step, stop * step), np.uint8).reshape(-1, *inner)

    return read, (shape[0], *inner)


def block_scales(
    view: TensorView,
    scale: EffectiveTensor,
    weight: str,
    shape: tuple[int, ...],
    block: int,
    *,
    some_zero: bool = False,
) -> BlockScales:
    """Scales of ``block`` inputs each; raises ``WeightsError`` where they are of another number."""
    return BlockScales(view, scale, weight, shape, (*(1 for _ in shape[1:]), block), some_zero=some_zero)


def whole_scales(view: TensorView, scale: EffectiveTensor, weight: str, shape: tuple[int, ...]) -> BlockScales:
    """The scale of a whole tensor, or one for each expert; raises ``WeightsError`` where there are more."""
    stacked = len(shape) > 2 and scale.info.size > 1
    return BlockScales(
        view, scale, weight, shape, (1 if stacked else max(1, shape[0]), *(max(1, n) for n in shape[1:]))
    )


def fp4_rows(
    packed: Rows,
    shape: tuple[int, ...],
    scales: BlockScales,
    combined: Callable[[NDArray[np.floating], int, int], NDArray[np.floating]] | None = None,
    bits: int = 4,
) -> Rows:
    """Function of rows of a weight whose codes are packed along its last axis, the first in the lowest bits.

    ``combined(scales, start, stop)``: the scales of these rows with what the tensor has besides. ``bits``: 4 (E2M1) or
    6 (E2M3, four codes in three bytes).
    """

    def decode(start: int, stop: int) -> NDArray[np.floating]:
        codes = packed(start, stop)
        values = fp4_values(codes) if bits == 4 else np.take(E2M3, unpack_fields(codes, bits))  # type: ignore[arg-type]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found where layers are read
            by = scales.rows(start, stop)
            scales.check_zeros(by, values)
            return values * (by if combined is None else combined(by, start, stop))

    return lambda start, stop: by_blocks(start, stop, shape[1:], decode)
