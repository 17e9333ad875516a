"""4-bit floating point with a power of two for every 32 inputs (MXFP4 of OCP Microscaling Formats 1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.quantised.bit_fields import by_blocks
from registry.sources.quantised.block_scales import DAMAGED, BlockScales, put_weight
from registry.sources.quantised.fp4 import PACKED, block_scales, fp4_rows, packed_codes
from registry.sources.quantised.fp8 import scale_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_mxfp4"]

_BLOCK = 32
_EXPONENTS = ("uint8", "float8_e8m0fnu")


def dequantise_mxfp4(view: TensorView) -> None:
    """Put weights of gpt-oss and of DeepSeek's fp4 experts in place of their codes and exponents.

    gpt-oss: ``a_blocks`` uint8 (E, rows, G, 16) and ``a_scales`` uint8 (E, rows, G), low nibble first, give ``a`` of
    shape (E, 32 G, rows): the orientation (expert, in, out) of the module in transformers, where gate and up alternate
    along the outputs. In OpenAI's own files the names end in ``.blocks`` and ``.scales``; their module has
    (E, rows, 32 G), and so has the weight here. DeepSeek: ``a.weight`` int8 (out, in / 2) with ``weight_scale_inv`` or
    ``scale`` of dtype float8_e8m0fnu or uint8, (out, in / 32).

    Raises
    ------
    WeightsError
        Exponents are missing, do not fit, or (when rows are read) are 255, which is NaN.
    """
    for weight in list(view.tensors.values()):
        if weight.dtype not in PACKED or len(weight.shape) < 2:
            continue
        if weight.dtype == "uint8" and weight.name.endswith(("_blocks", ".blocks")) and len(weight.shape) > 2:
            _put_experts(view, weight)
            continue
        name = scale_of(view, weight.name)
        if name is not None and view.tensors[name].dtype in _EXPONENTS:
            _put_packed(view, weight, view.tensors[name])


def _put_experts(view: TensorView, blocks: EffectiveTensor) -> None:
    """An expert's matrix from blocks of 16 bytes."""
    name, joint = blocks.name[: -len("_blocks")], blocks.name[-len("_blocks")]
    scale = view.tensors.get(f"{name}{joint}scales")
    if scale is None:
        raise WeightsError(f"{view.where}: {blocks.name} has no {name}{joint}scales", DAMAGED)
    if len(blocks.shape) != 4 or blocks.shape[-1] != _BLOCK // 2 or scale.dtype not in _EXPONENTS:
        raise WeightsError(
            f"{view.where}: {blocks.name} of shape {list(blocks.shape)} with {scale.dtype} scales is no mxfp4 tensor",
            DAMAGED,
        )
    if scale.shape != blocks.shape[:-1]:
        raise WeightsError(
            f"{view.where}: scale {scale.name} of shape {list(scale.shape)} does not fit {blocks.name} of shape "
            f"{list(blocks.shape)}",
            DAMAGED,
        )
    experts, outputs, groups, _ = blocks.shape
    inner = (outputs, groups * _BLOCK)
    scales = BlockScales(view, scale, blocks.name, (experts, *inner), (1, _BLOCK))

    def packed(start: int, stop: int) -> NDArray[np.generic]:
        return blocks.rows(start, stop).reshape(stop - start, outputs, groups * _BLOCK // 2)

    rows = fp4_rows(packed, (experts, *inner), scales)
    turned = joint == "_"
    shape = (experts, *inner[::-1]) if turned else (experts, *inner)

    def turned_rows(start: int, stop: int) -> NDArray[np.generic]:
        return by_blocks(start, stop, shape[1:], lambda a, b: rows(a, b).swapaxes(1, 2))  # type: ignore[return-value, arg-type]

    made = EffectiveTensor(name, "float32", shape, turned_rows if turned else rows, (blocks.name, scale.name), "mxfp4")
    put_weight(view, made)


def _put_packed(view: TensorView, weight: EffectiveTensor, scale: EffectiveTensor) -> None:
    packed, stored = packed_codes(view, weight)
    shape = (*stored[:-1], 2 * stored[-1])
    scales = block_scales(view, scale, weight.name, shape, _BLOCK)
    made = EffectiveTensor(
        weight.name, "float32", shape, fp4_rows(packed, shape, scales), (weight.name, scale.name), "mxfp4"
    )
    put_weight(view, made)
