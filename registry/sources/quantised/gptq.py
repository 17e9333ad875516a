"""GPTQ checkpoints as AutoGPTQ and GPTQModel write them: ``qweight``, ``qzeros``, ``scales``, ``g_idx``.

A weight is ``scales[g, o] * (code[i, o] - zero[g, o])`` for input i of group ``g = g_idx[i]`` and output o. Codes of 2,
3, 4 or 8 bits are one stream along the inputs for each output, low bits first, in ``qweight`` (in * bits / 32, out);
zeros are such a stream along the outputs for each group, in ``qzeros`` (groups, out * bits / 32). Version 1 stores
each zero less one, version 2 as it is; ``checkpoint_format`` of the configuration tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.quantised.bit_fields import by_blocks, unpack_fields
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

__all__ = ["dequantise_gptq"]

_BITS = (2, 3, 4, 8)
_PLANAR_BITS = (5, 6, 7)
_SMALLEST_GROUP = 16
_METHODS = ("gptq", "auto-round", "intel/auto-round")
_FORMATS = {"gptq": 1, "auto_round:auto_gptq": 1, "gptq_v2": 2}
_REMEDY = "dequantise it with gptqmodel (model.dequantize_model), or save it in the format gptq, then ingest that"
_NO_CONFIGURATION = "put its config.json or quantize_config.json beside the weights"


@dataclass(frozen=True, slots=True)
class _Layer:
    """What is known of one quantised layer: its parts by suffix, and its sizes."""

    prefix: str
    bits: int
    inputs: int
    outputs: int
    groups: int
    group_size: int
    version: int
    carries: bool


def dequantise_gptq(view: TensorView) -> None:
    """Put the weight (out, in) in place of each layer's packed codes, zeros, scales and group indices.

    Parameters
    ----------
    view
        Its ``facts.quantisation`` gives bits, group size, version and the library that wrote the file. Without it,
        sizes follow from the shapes, version 1 is assumed, and a note says so.

    Raises
    ------
    WeightsError
        Shapes contradict each other or the configuration, or leave the number of bits open. When rows are read: a
        group index is out of range, or a scale of zero has codes that are not.
    """
    settings = view.facts.quantisation
    method = str(settings.get("quant_method") or settings.get("method") or "").lower()
    if method and method not in _METHODS:
        return
    found = [prefix for prefix in modules_with(view, "qweight", "scales") if method or _has_gptq_shapes(view, prefix)]
    if not found:
        return
    layout = _layout(settings)
    if layout not in _FORMATS:
        if method != "gptq" and "awq" in layout:
            return
        for prefix in found:
            shape = view.tensors[prefix + "qweight"].shape
            size = int(np.prod(shape, dtype=np.int64)) * 32 // (whole_number(view, settings, "bits") or 4)
            _refuse(view, prefix, f"GPTQ weights in the format {layout[:40]}", size)
        return
    version = _FORMATS[layout]
    carries = "gptqmodel" in str(_quantizer(settings)).lower()
    made = sum(_dequantise(view, prefix, version, carries=carries) for prefix in found)
    if made:
        _note(view, settings, version, carries=carries)


def _has_gptq_shapes(view: TensorView, prefix: str) -> bool:
    """Whether shapes are GPTQ's where no configuration says so: AWQ's codes have other ones."""
    codes, scales = view.tensors[prefix + "qweight"], view.tensors[prefix + "scales"]
    if len(codes.shape) != 2 or len(scales.shape) != 2 or codes.dtype != "int32" or not is_float(scales.dtype):
        return False
    if codes.shape[1] != scales.shape[1]:
        return False
    if prefix + "g_idx" in view.tensors:
        return True
    bits = _bits_of_zeros(view, prefix)  # a GEMV layer of AWQ can look like groups of 8
    return any(codes.shape[0] * 32 // b >= _SMALLEST_GROUP * scales.shape[0] for b in bits)


def _layout(settings: Mapping[str, Any]) -> str:
    """Name of the layout, in lower case: ``gptq`` where the configuration does not say."""
    if settings.get("is_marlin_format") is True:
        return "marlin"
    if "auto-round" in str(settings.get("quant_method")).lower():
        return str(settings.get("packing_format") or "auto_round").lower()
    return str(settings.get("checkpoint_format") or settings.get("format") or "gptq").lower()


def _quantizer(settings: Mapping[str, Any]) -> object:
    """Who wrote the file, as its configuration says: ``gptqmodel:1.2.0``, or a list of such."""
    meta = settings.get("meta")
    return meta.get("quantizer", "") if isinstance(meta, dict) else ""


def _note(view: TensorView, settings: Mapping[str, Any], version: int, *, carries: bool) -> None:
    if not settings:
        view.notes.append(
            "no quantisation configuration: GPTQ version 1, which stores zero points less one, is assumed"
        )
    carries = carries and whole_number(view, settings, "bits") != 3  # whose codes lie across words
    if version == 1 and settings.get("sym") is not True:
        view.notes.append(
            "GPTQ zero points that are stored as the largest code are read as gptqmodel reads them: with a carry into "
            "the next one"
            if carries
            else "GPTQ zero points that are stored as the largest code are read as 0, as AutoGPTQ reads them"
        )


def _refuse(view: TensorView, prefix: str, kind: str, elements: int) -> None:
    companions = [prefix + part for part in ("qzeros", "scales", "g_idx")]
    refuse_weight(view, prefix + "qweight", kind, elements, _REMEDY, companions)


def _bits_of_zeros(view: TensorView, prefix: str) -> list[int]:
    """Widths that fit the size of the zeros; all where there are none to tell."""
    zeros = view.tensors.get(prefix + "qzeros")
    outputs = view.tensors[prefix + "scales"].shape[1]
    if zeros is None or len(zeros.shape) != 2:
        return [*_BITS, *_PLANAR_BITS]
    return [bits for bits in (*_BITS, *_PLANAR_BITS) if zeros.shape[1] == -(-outputs * bits // 32)]


def _dequantise(view: TensorView, prefix: str, version: int, *, carries: bool) -> bool:
    """Put the weight in place of its parts; False if its layout is known and not read."""
    name = prefix + "qweight"
    codes, scales = view.tensors[name], view.tensors[prefix + "scales"]
    order = view.tensors.get(prefix + "g_idx")
    if codes.dtype != "int32" or len(codes.shape) != 2:
        _refuse(view, prefix, f"GPTQ weights packed into {codes.dtype} of shape {codes.shape}", codes.info.size)
        return False
    if len(scales.shape) != 2 or scales.shape[1] != codes.shape[1] or 0 in scales.shape or not is_float(scales.dtype):
        raise contradiction(view, scales.name, f"is {scales.dtype} of shape {scales.shape} for codes of {codes.shape}")
    groups, outputs = scales.shape
    if prefix + "qzeros" not in view.tensors:
        raise contradiction(view, name, f"has no {prefix}qzeros beside it")
    bits, group_size = _bits(view, prefix)
    if order is None:
        inputs = codes.shape[0] * 32 // bits
    else:
        inputs = order.shape[0] if len(order.shape) == 1 else 0
        if order.dtype not in ("int32", "int64") or -(-inputs * bits // 32) != codes.shape[0]:
            raise contradiction(
                view, order.name, f"is {order.dtype} of shape {order.shape} for codes of {codes.shape} at {bits} bits"
            )
    zeros = view.tensors[prefix + "qzeros"]
    if zeros.dtype != "int32" or zeros.shape != (groups, -(-outputs * bits // 32)):
        raise contradiction(
            view, zeros.name, f"is {zeros.dtype} of shape {zeros.shape} for scales of {scales.shape} at {bits} bits"
        )
    if bits in _PLANAR_BITS:
        _refuse(view, prefix, f"planar GPTQ weights of {bits} bits", inputs * outputs)
        return False
    if group_size is None:
        group_size = -(-inputs // groups)
    size = inputs if group_size == -1 else group_size
    if size < 1 or -(-inputs // size) != groups:
        raise contradiction(view, scales.name, f"has {groups} groups, not those of {group_size} of {inputs} inputs")
    layer = _Layer(prefix, bits, inputs, outputs, groups, size, version, carries)
    parts = [prefix + part for part in ("qweight", "qzeros", "scales", "g_idx") if prefix + part in view.tensors]
    stored = {part.removeprefix(prefix): view.tensors[part] for part in parts}
    made = EffectiveTensor(
        prefix + "weight",
        "float32",
        (outputs, inputs),
        lambda start, stop: _rows(view, layer, stored, start, stop),
        tuple(part for each in stored.values() for part in each.parts),
        f"int{bits} gptq",
    )
    put_weight(view, made, parts)
    return True


def _bits(view: TensorView, prefix: str) -> tuple[int, int | None]:
    """Bits and group size of a layer: those of the configuration, checked by shapes, or those of the shapes."""
    settings = view.facts.quantisation
    name = prefix + "qweight"
    order = view.tensors.get(prefix + "g_idx")
    fitting = _bits_of_zeros(view, prefix)
    if order is not None and len(order.shape) == 1:
        words = view.tensors[name].shape[0]
        fitting = [bits for bits in fitting if -(-order.shape[0] * bits // 32) == words]
    given = whole_number(view, settings, "bits", "w_bit")
    if given is not None and not settings.get("dynamic"):  # which sets bits and groups for single layers
        if given not in (*_BITS, *_PLANAR_BITS):
            raise contradiction(view, name, f"has codes of {given} bits, which GPTQ does not", "mend the configuration")
        if given not in fitting:
            raise contradiction(
                view,
                name,
                f"and its zeros and group indices have no shapes of {given} bits, which the configuration gives",
            )
        return given, whole_number(view, settings, "group_size")
    if len(fitting) != 1:
        told = ", ".join(map(str, fitting)) or "none"
        raise contradiction(
            view, name, f"has a width of codes that its shapes leave open (possible: {told})", _NO_CONFIGURATION
        )
    return fitting[0], None


def _rows(
    view: TensorView, layer: _Layer, stored: Mapping[str, EffectiveTensor], start: int, stop: int
) -> NDArray[np.float32]:
    words = stored["qweight"].read().astype("<i4", copy=False).view(np.uint32)
    scales = stored["scales"].read().astype(np.float32, copy=False)
    zeros = _zeros(layer, stored["qzeros"].read())
    order = _order(view, layer, stored.get("g_idx"))

    regular = layer.inputs == layer.groups * layer.group_size and np.array_equal(order, _plain_order(layer))

    def decode(first: int, last: int) -> NDArray[np.float32]:
        stream = np.ascontiguousarray(words[:, first:last].T).view(np.uint8)
        codes = unpack_fields(stream, layer.bits, layer.inputs).astype(np.float32)
        zero, factor = (np.ascontiguousarray(part[:, first:last].T) for part in (zeros, scales))
        if regular:
            codes = codes.reshape(last - first, layer.groups, layer.group_size)
            zero, factor = zero[..., None], factor[..., None]
        else:
            zero, factor = zero.take(order, 1), factor.take(order, 1)
        codes -= zero
        check_scales(view, stored["scales"].name, factor, codes)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite scales are reported with the whole layer
            codes *= factor
        return codes.reshape(last - first, layer.inputs)

    return by_blocks(start, stop, (layer.inputs,), decode)


def _zeros(layer: _Layer, packed: NDArray[np.generic]) -> NDArray[np.float32]:
    """Zero points (groups, out)."""
    words = np.ascontiguousarray(packed).view(np.uint32)
    if layer.version == 1 and layer.carries and layer.bits != 3:  # one is added to all codes of a word at once
        words = words + np.uint32(sum(1 << at for at in range(0, 32, layer.bits)))
    zeros = unpack_fields(words.view(np.uint8), layer.bits, layer.outputs)
    if layer.version == 1 and not (layer.carries and layer.bits != 3):
        zeros = (zeros + np.uint8(1)) & np.uint8(2**layer.bits - 1)
    return zeros.astype(np.float32)


def _order(view: TensorView, layer: _Layer, stored: EffectiveTensor | None) -> NDArray[np.intp]:
    """The group of each input."""
    if stored is None:
        return _plain_order(layer)
    order = stored.read().astype(np.intp)
    if order.min() < 0 or order.max() >= layer.groups:
        raise contradiction(
            view, stored.name, f"has group {int(order.min() if order.min() < 0 else order.max())} of {layer.groups}"
        )
    if layer.groups > 1 and not order.any():
        if view.facts.quantisation.get("desc_act") is False:
            return _plain_order(layer)  # and the file was written without group indices
        raise contradiction(view, stored.name, f"is all zero, for {layer.groups} groups", _NO_CONFIGURATION)
    return order


def _plain_order(layer: _Layer) -> NDArray[np.intp]:
    return np.arange(layer.inputs, dtype=np.intp) // layer.group_size
