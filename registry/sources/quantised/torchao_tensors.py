"""Weights that torchao quantised and wrote to safetensors: tensors of codes and scales, described by the header."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor, Unreadable
from registry.sources.quantised.bit_fields import by_blocks, sign_extended, split_nibbles
from registry.sources.quantised.block_scales import DAMAGED, BlockScales, put_weight
from registry.sources.quantised.fp4 import packed_codes, whole_scales
from registry.sources.quantised.small_floats import E2M3, E3M2, fp4_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

    Values = Callable[[int, int], NDArray[np.floating]]

__all__ = ["REMEDY", "dequantise_torchao"]

REMEDY = "load it with torchao, replace its weights by weight.dequantize(), and save it again"

_CODES = re.compile(r"((?:.*\.)?)_(\w+)_qdata")
_WRAPPERS = ("", "module.", "_orig_mod.")
_LONGEST = 100_000  # characters of what the header says of one tensor
_FP8 = {"float8_e4m3fn": "fp8 e4m3", "float8_e5m2": "fp8 e5m2"}
_PARTS = ("qdata", "scale", "zero_point", "per_tensor_scale", "scale_and_zero")
_INPUTS = ("act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale")


def dequantise_torchao(view: TensorView) -> None:
    """Put weights in place of torchao's parts: ``a.weight`` of ``a._weight_qdata``, ``a._weight_scale`` and others.

    The header of the file names the kind of each tensor. ``Int8Tensor`` and ``IntxUnpackedToInt8Tensor``:
    (code - zero point) x scale. ``Int4Tensor``: code x scale + zero point, signed codes, low nibble first, scales
    (groups, out). ``Float8Tensor``, ``MXTensor`` and ``NVFP4Tensor``: code x scale, times ``per_tensor_scale``; scales
    may lie in tiles of 128 x 4. Other kinds, which are packed for one kind of processor, weights whose inputs are
    scaled, and codes that the header does not describe are refused by name.

    Raises
    ------
    WeightsError
        Parts are missing, do not fit, or are of another dtype. When rows are read: a scale is zero or not finite.
    """
    for name in list(view.tensors):
        found = _CODES.fullmatch(name) if name.endswith("_qdata") else None
        if found is None:
            continue
        prefix, weight = found.groups()
        _put(view, view.tensors[name], f"{prefix}{weight}", f"{prefix}_{weight}_")


def _described(view: TensorView, name: str) -> tuple[str, Mapping[str, Any]]:
    """Kind and settings of a tensor by the file's header; two empty values where it says nothing."""
    for wrapper in _WRAPPERS:
        text = view.facts.metadata.get(wrapper + name)
        if not isinstance(text, str) or len(text) > _LONGEST:
            continue
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, Mapping) and isinstance(told.get("_type"), str):
            settings = told.get("_data")
            return told["_type"], settings if isinstance(settings, Mapping) else {}
    return "", {}


def _put(view: TensorView, codes: EffectiveTensor, name: str, prefix: str) -> None:
    kind, settings = _described(view, name)
    reader = _KINDS.get(kind)
    scaled = f"{prefix}act_pre_scale" in view.tensors
    if reader is None or scaled:
        what = f"torchao weights ({kind}{' with scaled inputs' if scaled else ''})" if kind else "torchao weights"
        each = 2 if codes.dtype == "uint8" else 8 if codes.dtype == "int32" else 1
        view.refuse(codes.name, Unreadable(what, each * codes.info.size, REMEDY))
    else:
        put_weight(view, reader(view, codes, name, prefix, settings))
    for part in (*_PARTS[1:], *_INPUTS, "act_pre_scale"):
        if f"{prefix}{part}" in view.tensors:
            view.skip(f"{prefix}{part}", "part of a torchao weight")


def _part(view: TensorView, name: str) -> EffectiveTensor:
    found = view.tensors.get(name)
    if found is None:
        raise WeightsError(f"{view.where}: {name} is missing", DAMAGED)
    return found


def _made(
    name: str, shape: tuple[int, ...], values: Values, parts: tuple[EffectiveTensor | None, ...], format_: str
) -> EffectiveTensor:
    return EffectiveTensor(
        name,
        "float32",
        shape,
        lambda start, stop: by_blocks(start, stop, shape[1:], values),
        tuple(stored for part in parts if part is not None for stored in part.parts),
        f"{format_} torchao",
    )


def _block(view: TensorView, name: str, settings: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents of a block along all axes, as the header states them; () where it does not."""
    stated = settings.get("block_size")
    if stated is None or stated == []:
        return ()
    if not isinstance(stated, list) or not all(isinstance(extent, int) and 0 < extent < 2**31 for extent in stated):
        raise WeightsError(f"{view.where}: the header states blocks of {str(stated)[:60]} for {name}", DAMAGED)
    if len(stated) > len(shape):
        raise WeightsError(f"{view.where}: blocks of {stated} do not fit {name} of shape {list(shape)}", DAMAGED)
    return tuple(stated)


def _integers(
    view: TensorView, codes: EffectiveTensor, name: str, prefix: str, settings: Mapping[str, Any]
) -> EffectiveTensor:
    """One code a byte."""
    scale, zero = _part(view, f"{prefix}scale"), view.tensors.get(f"{prefix}zero_point")
    if codes.dtype != "int8":
        raise WeightsError(f"{view.where}: {codes.name} is {codes.dtype}, not int8", DAMAGED)
    scales = BlockScales(view, scale, name, codes.shape, _block(view, name, settings, codes.shape))
    if zero is not None and (zero.shape != scale.shape or not (zero.dtype == "int8" or is_float(zero.dtype))):
        raise WeightsError(
            f"{view.where}: {zero.name} of {zero.dtype} and shape {list(zero.shape)} does not fit {scale.name}", DAMAGED
        )

    def values(start: int, stop: int) -> NDArray[np.floating]:
        found = codes.rows(start, stop).astype(np.float32)
        if zero is not None:
            found -= scales.spread(scales.stored(start, stop, zero), start, stop)
        by = scales.rows(start, stop)
        scales.check_zeros(by, found)
        found *= by
        return found

    target = settings.get("target_dtype")
    stated = str(target.get("_data")) if isinstance(target, Mapping) else "int8"
    if not re.fullmatch(r"int[1-8]", stated):
        raise WeightsError(f"{view.where}: {name} has codes of {stated[:20]}", DAMAGED)
    return _made(name, codes.shape, values, (codes, scale, zero), stated)


def _nibbles(
    view: TensorView, codes: EffectiveTensor, name: str, prefix: str, settings: Mapping[str, Any]
) -> EffectiveTensor:
    """Two signed codes a byte, whose scales and zero points have the groups in front of the outputs."""
    scale, zero = _part(view, f"{prefix}scale"), _part(view, f"{prefix}zero_point")
    if codes.dtype not in ("int8", "uint8") or len(codes.shape) not in (2, 3):
        raise WeightsError(f"{view.where}: {codes.name} is {codes.dtype} of shape {list(codes.shape)}", DAMAGED)
    shape = (*codes.shape[:-1], 2 * codes.shape[-1])
    if zero.shape != scale.shape or len(scale.shape) != len(shape) or not is_float(zero.dtype):
        raise WeightsError(f"{view.where}: {zero.name} of shape {list(zero.shape)} does not fit {scale.name}", DAMAGED)
    turned, zeros = _turned(scale), _turned(zero)
    scales = BlockScales(view, turned, name, shape, _block(view, name, settings, shape))

    def values(start: int, stop: int) -> NDArray[np.floating]:
        packed = np.ascontiguousarray(codes.rows(start, stop)).view(np.uint8)
        found = sign_extended(split_nibbles(packed), 4).astype(np.float32)
        by = scales.rows(start, stop)
        scales.check_zeros(by, found)
        found *= by
        found += scales.spread(scales.stored(start, stop, zeros), start, stop)
        return found

    return _made(name, shape, values, (codes, scale, zero), "int4")


def _turned(tensor: EffectiveTensor) -> EffectiveTensor:
    """A tensor with its last two axes exchanged."""
    shape = (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        if len(shape) > 2:
            return tensor.rows(start, stop).swapaxes(-1, -2)
        return tensor.read().T[start:stop]

    return EffectiveTensor(tensor.name, tensor.dtype, shape, rows, tensor.parts)


def _float8(
    view: TensorView, codes: EffectiveTensor, name: str, prefix: str, settings: Mapping[str, Any]
) -> EffectiveTensor:
    """One code a byte, in 8-bit floating point."""
    scale = _part(view, f"{prefix}scale")
    if codes.dtype not in _FP8:
        raise WeightsError(f"{view.where}: {codes.name} is {codes.dtype}, not float8", DAMAGED)
    scales = BlockScales(view, scale, name, codes.shape, _block(view, name, settings, codes.shape))
    return _made(name, codes.shape, _times(codes.rows, scales), (codes, scale), _FP8[codes.dtype])


def _times(
    codes: Callable[[int, int], NDArray[np.generic]],
    scales: BlockScales,
    whole: BlockScales | None = None,
) -> Values:
    def values(start: int, stop: int) -> NDArray[np.floating]:
        found = np.asarray(codes(start, stop), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found where layers are read
            by = scales.rows(start, stop)
            scales.check_zeros(by, found)
            if whole is not None:
                factor = whole.rows(start, stop)
                whole.check_zeros(factor, by)
                by = by * factor
            return found * by

    return values


def _small_floats(
    view: TensorView, codes: EffectiveTensor, name: str, prefix: str, settings: Mapping[str, Any]
) -> EffectiveTensor:
    """Codes of 4, 6 or 8 bits with a scale for every 16 or 32 inputs."""
    scale, whole = _part(view, f"{prefix}scale"), view.tensors.get(f"{prefix}per_tensor_scale")
    elements = settings.get("elem_dtype")
    element = elements.get("_data") if isinstance(elements, Mapping) else elements
    given = settings.get("block_size")
    if not isinstance(given, int) or not 0 < given < 2**31:
        raise WeightsError(f"{view.where}: the header states blocks of {str(given)[:60]} for {name}", DAMAGED)
    shape, decode = codes.shape, codes.rows
    if codes.dtype in _FP8:
        kind = "mxfp8"
    elif element in ("fp6_e2m3", "fp6_e3m2") and codes.dtype == "uint8":
        kind, table = "mxfp6", E2M3 if element == "fp6_e2m3" else E3M2

        def decode(start: int, stop: int) -> NDArray[np.generic]:
            return np.take(table, codes.rows(start, stop).astype(np.intp) & 63)
    elif codes.dtype in ("uint8", "float4_e2m1fn_x2") and element in (None, "float4_e2m1fn_x2"):
        kind = "nvfp4" if element is None else "mxfp4"
        packed, stored = packed_codes(view, codes)
        shape = (*stored[:-1], 2 * stored[-1])

        def decode(start: int, stop: int) -> NDArray[np.generic]:
            return fp4_values(packed(start, stop))  # type: ignore[arg-type]
    else:
        raise WeightsError(f"{view.where}: {codes.name} is {codes.dtype} of {str(element)[:20]}", DAMAGED)
    if len(shape) < 2 or shape[-1] % given:
        raise WeightsError(f"{view.where}: blocks of {given} do not fit {name} of shape {list(shape)}", DAMAGED)
    plain = _untiled(view, scale, shape, given) if settings.get("is_swizzled_scales") is True else scale
    blocks = (*(1 for _ in shape[1:]), given)
    scales = BlockScales(view, plain, name, shape, blocks, some_zero=scale.dtype == "float8_e4m3fn")
    factor = None if whole is None else whole_scales(view, whole, name, shape)
    return _made(name, shape, _times(decode, scales, factor), (codes, scale, whole), kind)


def _untiled(view: TensorView, scale: EffectiveTensor, shape: tuple[int, ...], block: int) -> EffectiveTensor:
    """Scales (…, out, in / block) from tiles of 128 x 4, of which rows 0, 32, 64 and 96 lie beside each other.

    The layout of block scaling factors in NVIDIA's cuBLAS documentation.
    """
    height = int(np.prod(shape[:-1], dtype=np.int64))
    width = shape[-1] // block
    down, across = -(-height // 128), -(-width // 4)
    if scale.info.size != down * across * 512:
        raise WeightsError(f"{view.where}: scale {scale.name} of shape {list(scale.shape)} has no whole tiles", DAMAGED)
    plain = (*shape[:-1], width)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        tiles = scale.read().reshape(down, across, 32, 4, 4).transpose(0, 3, 2, 1, 4)
        return tiles.reshape(down * 128, across * 4)[:height, :width].reshape(plain)[start:stop]

    return EffectiveTensor(scale.name, scale.dtype, plain, rows, scale.parts)


_KINDS = {
    "Int8Tensor": _integers,
    "IntxUnpackedToInt8Tensor": _integers,
    "Int4Tensor": _nibbles,
    "Float8Tensor": _float8,
    "MXTensor": _small_floats,
    "NVFP4Tensor": _small_floats,
}
