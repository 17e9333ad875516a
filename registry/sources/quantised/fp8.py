"""Weights in 8-bit floating point, with a scale for the tensor, each output or each block, or with none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.effective_weights import EffectiveTensor, Unreadable
from registry.sources.quantised.bit_fields import by_blocks
from registry.sources.quantised.block_scales import DAMAGED, REMEDY, BlockScales
from registry.sources.quantised.quantisation_config import block_size, method_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_fp8", "scale_of"]

_FORMATS = {
    "float8_e4m3fn": "fp8 e4m3",
    "float8_e5m2": "fp8 e5m2",
    "float8_e4m3fnuz": "fp8 e4m3",
    "float8_e5m2fnuz": "fp8 e5m2",
}
_SCALES = ("_scale", "_scale_inv", "scale", "scale_weight", "weight_scale", "weight_scale_inv")


def dequantise_fp8(view: TensorView) -> None:
    """Put weights times their scales in place of both; a weight without a scale is what its codes say.

    The scale of ``a.weight`` is ``a.weight_scale`` or ``a.weight_scale_inv`` (compressed-tensors, transformers and
    others; both are factors), ``a.scale`` (DeepSeek) or ``a.scale_weight`` (ComfyUI); that of a stacked tensor
    ``experts.w`` is ``experts.w_scale`` or ``experts.w_scale_inv``. Blocks are those of ``weight_block_size``, or of
    ``block_structure`` in the groups of compressed-tensors, else those that the shapes tell.

    Raises
    ------
    WeightsError
        A scale does not fit its weight or the configuration; a weight has two; or one has none although the
        configuration or other weights say so. When rows are read: a scale is zero or not finite.
    """
    weights = [
        tensor
        for tensor in view.tensors.values()
        if tensor.dtype in _FORMATS and tensor.shape and not tensor.name.endswith(("_scale", "_scale_inv", ".scale"))
    ]
    scales = {weight.name: scale_of(view, weight.name) for weight in weights}
    claimed = bool(method_of(view)) or any(scales.values())
    for weight in weights:
        scale, inputs = scales[weight.name], f"{weight.name.removesuffix('weight')}pre_quant_scale"
        if inputs in view.tensors:
            view.refuse(weight.name, Unreadable("weights with scaled inputs (modelopt)", weight.info.size, REMEDY))
            continue
        if scale is not None:
            view.put(_scaled(view, weight, view.tensors[scale]), (scale,))
        elif claimed and len(weight.shape) > 1:
            raise WeightsError(f"{view.where}: the fp8 weight {weight.name} has no scale", DAMAGED)
        else:
            view.put(
                EffectiveTensor(
                    weight.name, "float32", weight.shape, weight.rows, weight.parts, _FORMATS[weight.dtype], weight.cut
                )
            )


def scale_of(view: TensorView, weight: str) -> str | None:
    """Name of the tensor that holds the scales of a weight. Raises ``WeightsError`` where there are two."""
    stem = weight.removesuffix("weight") if weight.endswith(".weight") or weight == "weight" else None
    names = [weight + end for end in _SCALES[:2]]
    names += [weight + "_" + end for end in _SCALES[4:]] if stem is None else [stem + end for end in _SCALES[2:4]]
    found = [name for name in names if name in view.tensors]
    if len(found) > 1:
        raise WeightsError(f"{view.where}: {weight} has two scales, {found[0]} and {found[1]}", DAMAGED)
    return found[0] if found else None


def _scaled(view: TensorView, weight: EffectiveTensor, scale: EffectiveTensor) -> EffectiveTensor:
    shape = weight.shape
    given = block_size(view) if len(shape) > 1 else ()
    if len(shape) > 2 and given and "gate_up" in weight.name and shape[-2] // 2 % given[0]:
        given = _halves(view, weight, scale, given)
    scales = BlockScales(view, scale, weight.name, shape, given, ragged=True)
    rows_of = weight.rows

    def decode(start: int, stop: int) -> NDArray[np.floating]:
        values = np.array(rows_of(start, stop), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found where layers are read
            by = scales.rows(start, stop)
            scales.check_zeros(by, values)
            values *= by
        return values

    precision = _FORMATS[weight.dtype]
    if given or scales.in_blocks:
        precision = "mxfp8" if scales.are_exponents and scales.blocks[-2:] == (1, 32) else f"{precision} (blocks)"
    return EffectiveTensor(
        weight.name,
        "float32",
        shape,
        lambda start, stop: by_blocks(start, stop, shape[1:], decode),
        (*weight.parts, *scale.parts),
        precision,
        weight.cut,
    )


def _halves(
    view: TensorView, weight: EffectiveTensor, scale: EffectiveTensor, given: tuple[int, ...]
) -> tuple[int, ...]:
    """Blocks of fused experts whose gate and up have scales of their own and are no whole number of blocks long."""
    if len(scale.shape) == len(weight.shape) and scale.shape[-2] == 2 and weight.shape[-2] % 2 == 0:
        return (weight.shape[-2] // 2, given[1])
    raise WeightsError(
        f"{view.where}: gate and up in {weight.name} share blocks of {given[0]} outputs, whose scales are ambiguous",
        "save the experts apart",
    )
