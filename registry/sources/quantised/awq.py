"""AWQ checkpoints as AutoAWQ writes them: ``qweight``, ``qzeros`` and ``scales`` of 4 bits.

A weight is ``scales * (code - zero)``, with one scale and zero for each output and group of inputs; zeros are stored as
they are. The layout GEMM packs eight outputs into a word, in the order 0 2 4 6 1 3 5 7: ``qweight`` (in, out / 8),
``qzeros`` (groups, out / 8), ``scales`` (groups, out). GEMV packs eight inputs into a word, in their order:
``qweight`` (out, in / 8), ``qzeros`` (out, w), ``scales`` (out, 8 w), where the w words hold the groups and are padded
to a multiple of 128 / group size where groups are smaller than 128.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.quantised.bit_fields import by_blocks, split_nibbles
from registry.sources.quantised.quantised_parts import (
    check_scales,
    contradiction,
    modules_with,
    put_weight,
    refuse_weight,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_awq"]

_PLACE = (0, 4, 1, 5, 2, 6, 3, 7)  # nibble of a GEMM word that holds its output 0, 1, ...
_METHODS = ("awq", "auto-round", "intel/auto-round")
_GROUPS = (32, 64, 128)
_REMEDY = "quantise it anew with autoawq in the version gemm, or give the model that was quantised"


def dequantise_awq(view: TensorView) -> None:
    """Put the weight (out, in) in place of each layer's packed codes, zeros and scales.

    Parameters
    ----------
    view
        Its ``facts.quantisation`` gives the version (``gemm``, ``gemv``) and the group size; without it, both follow
        from the shapes.

    Raises
    ------
    WeightsError
        Shapes contradict each other or the configuration, or leave the layout open. When rows are read: a scale of
        zero has codes that are not.
    """
    settings = view.facts.quantisation
    method = str(settings.get("quant_method") or "").lower()
    if method and method not in _METHODS:
        return
    for prefix in modules_with(view, "qweight", "scales"):
        _dequantise(view, prefix, settings, named=method == "awq")


def _dequantise(view: TensorView, prefix: str, settings: Mapping[str, Any], *, named: bool) -> None:
    codes, scales = view.tensors[prefix + "qweight"], view.tensors[prefix + "scales"]
    zeros = view.tensors.get(prefix + "qzeros")
    fits = _layouts(codes.shape, scales.shape, None if zeros is None else zeros.shape)
    version = str(settings.get("version") or "").lower() if named else ""
    if version not in ("", "gemm", "gemv") or (named and codes.dtype == "int16"):
        size = codes.info.size * (4 if codes.dtype == "int16" else 8)
        kind = f"AWQ weights of version {version[:40] or 'gemv_fast'}"
        refuse_weight(view, codes.name, kind, size, _REMEDY, [scales.name, prefix + "qzeros"])
        return
    bits = whole_number(view, settings, "bits", "w_bit") if named else None
    if bits not in (None, 4):
        raise contradiction(view, codes.name, f"has codes of {bits} bits, where AWQ has 4", "mend the configuration")
    possible = [layout for layout in fits if version in ("", layout)]
    if codes.dtype != "int32" or not is_float(scales.dtype) or (zeros is not None and zeros.dtype != "int32"):
        possible = []
    if zeros is None or not possible:
        if not named:
            return  # another library's, or damaged
        shapes = f"{codes.shape}, {scales.shape} and {None if zeros is None else zeros.shape}"
        raise contradiction(view, codes.name, f", its scales and zeros have shapes of no AWQ layer: {shapes}")
    if len(possible) > 1:
        raise contradiction(
            view, codes.name, "has a shape of both layouts of AWQ", "put its config.json beside the weights"
        )
    given = whole_number(view, settings, "group_size", "q_group_size") if settings else None
    inputs, outputs = _sizes(possible[0], codes.shape)
    size = _group_size(view, codes, scales, possible[0], given)
    parts = (codes, zeros, scales)
    read = _gemm_rows if possible[0] == "gemm" else _gemv_rows
    made = EffectiveTensor(
        prefix + "weight",
        "float32",
        (outputs, inputs),
        lambda start, stop: read(view, parts, size, start, stop),
        tuple(stored for part in parts for stored in part.parts),
        "int4 awq",
    )
    put_weight(view, made, [part.name for part in parts])


def _layouts(codes: tuple[int, ...], scales: tuple[int, ...], zeros: tuple[int, ...] | None) -> list[str]:
    """The layouts that three shapes fit."""
    if zeros is None or not len(codes) == len(scales) == len(zeros) == 2 or 0 in codes + scales:
        return []
    found = []
    if scales[1] == 8 * codes[1] and zeros == (scales[0], codes[1]) and codes[0] % scales[0] == 0:
        found.append("gemm")
    if scales[0] == codes[0] == zeros[0] and scales[1] == 8 * zeros[1] and scales[1] <= 8 * codes[1]:
        found.append("gemv")
    return found


def _sizes(layout: str, codes: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs."""
    return (codes[0], 8 * codes[1]) if layout == "gemm" else (8 * codes[1], codes[0])


def _words_of_zeros(inputs: int, size: int) -> int:
    """Words a row that hold GEMV's zeros: a multiple of 2 for groups of 64, of 4 for groups of 32."""
    multiple = max(1, 128 // size)
    words = -(inputs // size // -8)
    return -(words // -multiple) * multiple


def _group_size(
    view: TensorView, codes: EffectiveTensor, scales: EffectiveTensor, layout: str, given: int | None
) -> int:
    """Inputs a group, by the configuration and the shapes."""
    inputs, _ = _sizes(layout, codes.shape)
    if layout == "gemm":
        size = inputs // scales.shape[0]
        if given is not None and (inputs if given == -1 else given) != size:
            raise contradiction(view, scales.name, f"has groups of {size}, not of {given} as the configuration says")
        return size
    sizes = [*_GROUPS, inputs] if given is None else [inputs if given == -1 else given]
    fits = sorted(
        {
            size
            for size in sizes
            if size > 0 and inputs % size == 0 and 8 * _words_of_zeros(inputs, size) == scales.shape[1]
        }
    )
    if not fits:
        raise contradiction(view, scales.name, f"of shape {scales.shape} has no groups of {given or 'a usual size'}")
    if len(fits) > 1:
        told = ", ".join(map(str, fits))
        raise contradiction(
            view, scales.name, f"has groups of any of {told} inputs", "put its config.json beside the weights"
        )
    return fits[0]


def _gemm_rows(
    view: TensorView, parts: tuple[EffectiveTensor, ...], size: int, start: int, stop: int
) -> NDArray[np.float32]:
    codes, zeros, scales = parts
    words, zero_words = (np.ascontiguousarray(part.read()).view(np.uint8) for part in (codes, zeros))
    factors = scales.read().astype(np.float32, copy=False)

    def decode(first: int, last: int) -> NDArray[np.float32]:
        low, high = first // 8, -(-last // 8)
        inside = slice(first - 8 * low, last - 8 * low)
        offsets = _gemm_codes(words, low, high)[:, inside] - _gemm_codes(zero_words, low, high)[:, inside].repeat(
            size, 0
        )
        factor = factors[:, first:last].repeat(size, 0)
        check_scales(view, scales.name, factor, offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            product: NDArray[np.float32] = (offsets * factor).T
        return product

    return by_blocks(start, stop, (codes.shape[0],), decode)


def _gemm_codes(packed: NDArray[np.uint8], low: int, high: int) -> NDArray[np.float32]:
    """Codes (rows, 8 * words) of the words ``low`` to ``high`` of each row, in the order of the outputs."""
    nibbles = split_nibbles(packed[:, 4 * low : 4 * high]).reshape(len(packed), high - low, 8)
    return nibbles[..., _PLACE].reshape(len(packed), -1).astype(np.float32)


def _gemv_rows(
    view: TensorView, parts: tuple[EffectiveTensor, ...], size: int, start: int, stop: int
) -> NDArray[np.float32]:
    codes, zeros, scales = parts
    inputs = 8 * codes.shape[1]

    def decode(first: int, last: int) -> NDArray[np.float32]:
        words, zero_words = (np.ascontiguousarray(part.rows(first, last)).view(np.uint8) for part in (codes, zeros))
        zero = split_nibbles(zero_words)[:, : inputs // size].astype(np.float32).repeat(size, 1)
        factor = scales.rows(first, last)[:, : inputs // size].astype(np.float32).repeat(size, 1)
        offsets = split_nibbles(words).astype(np.float32) - zero
        check_scales(view, scales.name, factor, offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            product: NDArray[np.float32] = offsets * factor
        return product

    return by_blocks(start, stop, (inputs,), decode)
