"""NVIDIA's 4-bit floating point as modelopt stores it: E2M1 codes, a scale for 16 inputs, and one for the tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor, Unreadable
from registry.sources.quantised.block_scales import DAMAGED, REMEDY, put_weight
from registry.sources.quantised.fp4 import PACKED, block_scales, fp4_rows, packed_codes, whole_scales
from registry.sources.quantised.fp8 import scale_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_nvfp4"]

_BLOCK = 16


def dequantise_nvfp4(view: TensorView) -> None:
    """Put the weights of modelopt's NVFP4 in place of their parts.

    ``a.weight``: uint8 (out, in / 2), low nibble first. ``a.weight_scale``: float8_e4m3fn (out, in / 16).
    ``a.weight_scale_2``: float32, one number. The weight is code x scale x scale_2. Stacked experts have one more axis
    in front, and their scales the names ``w_weight_scale`` or ``w_scale``. Weights with ``pre_quant_scale`` (AWQ), and
    modelopt's 4-bit integers, are refused by name.

    Raises
    ------
    WeightsError
        A scale is missing, does not fit, or (when rows are read) is not finite or zero.
    """
    for weight in list(view.tensors.values()):
        if weight.dtype not in PACKED or len(weight.shape) < 2:
            continue
        name = scale_of(view, weight.name)
        if name is None:
            continue
        scale = view.tensors[name]
        stem = weight.name.removesuffix("weight")
        if f"{stem}pre_quant_scale" in view.tensors:
            view.refuse(weight.name, Unreadable("weights with scaled inputs (modelopt)", 2 * weight.info.size, REMEDY))
            _skip(view, name, f"{name}_2", f"{stem}pre_quant_scale")
        elif scale.dtype == "float8_e4m3fn":
            _put(view, weight, scale)
        elif weight.dtype == "uint8" and is_float(scale.dtype) and scale.shape[:1] == (2 * weight.shape[0],):
            view.refuse(weight.name, Unreadable("packed int4 weights (modelopt)", 2 * weight.info.size, REMEDY))
            _skip(view, name)


def _skip(view: TensorView, *names: str) -> None:
    for name in names:
        if name in view.tensors:
            view.skip(name, "scale of unreadable weights")


def _put(view: TensorView, weight: EffectiveTensor, scale: EffectiveTensor) -> None:
    second = view.tensors.get(f"{scale.name}_2")
    if second is None:
        raise WeightsError(f"{view.where}: the nvfp4 weight {weight.name} has no {scale.name}_2", DAMAGED)
    packed, stored = packed_codes(view, weight)
    shape = (*stored[:-1], 2 * stored[-1])
    scales = block_scales(view, scale, weight.name, shape, _BLOCK, some_zero=True)
    whole = whole_scales(view, second, weight.name, shape)

    def combined(values: NDArray[np.floating], start: int, stop: int) -> NDArray[np.floating]:
        factor = whole.rows(start, stop)
        whole.check_zeros(factor, values)
        return values * factor

    made = EffectiveTensor(
        weight.name,
        "float32",
        shape,
        fp4_rows(packed, shape, scales, combined),
        (weight.name, scale.name, second.name),
        "nvfp4 modelopt",
    )
    put_weight(view, made)
