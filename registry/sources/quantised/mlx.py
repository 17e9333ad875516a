"""Weights that MLX quantises: words in ``X.weight`` beside ``X.scales`` and, in the mode ``affine``, ``X.biases``.

Codes are one stream along the inputs, low bits first, in 32-bit words (..., out, in * bits / 32). In the mode
``affine`` a value is ``scale * code + bias``, with one of each for a group of 32, 64 or 128 inputs, and codes of 2, 3,
4, 5, 6 or 8 bits. The other modes have no biases: ``mxfp4`` and ``mxfp8`` (groups of 32) are those of OCP Microscaling
Formats 1.0, with scales that are powers of two; ``nvfp4`` (groups of 16) has scales of float8 e4m3. The weights of all
experts may be in one tensor (experts, out, in).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from registry.sources.dtypes import decode_any, is_float
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.quantised.bit_fields import by_blocks, unpack_fields
from registry.sources.quantised.quantised_parts import (
    check_scales,
    contradiction,
    modules_with,
    put_weight,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_mlx"]

_BITS = (2, 3, 4, 5, 6, 8)
_GROUPS = (32, 64, 128)
_NO_CONFIGURATION = "put its config.json beside the weights"
# Magnitudes of float4 e2m1, OCP Microscaling Formats 1.0; the highest bit of a code is the sign.
_E2M1 = np.array([sign * value for sign in (1, -1) for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6)], np.float32)


class _Mode(NamedTuple):
    """Bits of a code and inputs that share a scale."""

    name: str
    bits: int
    group: int


_DEFAULT = _Mode("affine", 4, 64)
_FLOAT_MODES = (_Mode("mxfp4", 4, 32), _Mode("mxfp8", 8, 32), _Mode("nvfp4", 4, 16))
_MODES = ("affine", *(mode.name for mode in _FLOAT_MODES))


def dequantise_mlx(view: TensorView) -> None:
    """Put the weight (..., out, in) in place of words, scales and biases; embeddings and stacked experts too.

    Parameters
    ----------
    view
        Its ``facts.quantisation`` gives mode, bits and group size, also for single modules by their names. Without it,
        they follow from the shapes where these leave no choice.

    Raises
    ------
    WeightsError
        Shapes contradict each other or the configuration, or leave bits and group size open. When rows are read: a
        scale of zero has codes that are not.
    """
    for prefix in modules_with(view, "weight", "scales"):
        if view.tensors[prefix + "weight"].dtype == "uint32":
            _dequantise(view, prefix)


def _dequantise(view: TensorView, prefix: str) -> None:
    words, scales = view.tensors[prefix + "weight"], view.tensors[prefix + "scales"]
    biases = view.tensors.get(prefix + "biases")
    if len(words.shape) < 2 or words.shape[:-1] != scales.shape[:-1] or 0 in words.shape + scales.shape:
        raise contradiction(view, scales.name, f"has shape {scales.shape} for words of shape {words.shape}")
    if not (is_float(scales.dtype) if biases else scales.dtype in ("uint8", "float8_e8m0fnu", "float8_e4m3fn")):
        raise contradiction(view, scales.name, f"is {scales.dtype} {'with' if biases else 'without'} biases beside it")
    if biases is not None and (biases.shape != scales.shape or biases.dtype != scales.dtype):
        raise contradiction(
            view, biases.name, f"is {biases.dtype} of shape {biases.shape} for {scales.dtype} scales of {scales.shape}"
        )
    if prefix + "global_scale" in view.tensors:
        raise contradiction(view, prefix + "global_scale", "is beside MLX's codes, which is not known")
    mode = _mode(view, prefix, affine=biases is not None)
    inputs = scales.shape[-1] * mode.group
    if inputs * mode.bits != 32 * words.shape[-1]:
        raise contradiction(
            view,
            words.name,
            f"has {words.shape[-1]} words a row, not {scales.shape[-1]} groups of {mode.group} at {mode.bits} bits",
            "mend the quantisation in config.json",
        )
    shape = (*words.shape[:-1], inputs)
    parts = [words, scales] + ([biases] if biases else [])
    made = EffectiveTensor(
        words.name,
        "float32",
        shape,
        lambda start, stop: _rows(view, mode, parts, shape[1:], start, stop),
        tuple(stored for part in parts for stored in part.parts),
        f"{f'int{mode.bits}' if mode.name == 'affine' else mode.name} mlx",
    )
    put_weight(view, made, [part.name for part in parts])


def _settings(view: TensorView, prefix: str) -> Mapping[str, Any]:
    """The configuration of a module: its own entry, which inherits nothing but MLX's defaults, or that of the model."""
    settings = view.facts.quantisation
    own = settings.get(prefix.removesuffix("."))
    if not isinstance(own, dict):
        return settings
    mode = own.get("mode", "affine")
    default = next((each for each in (_DEFAULT, *_FLOAT_MODES) if each.name == mode), _DEFAULT)
    return {"mode": mode, "bits": default.bits, "group_size": default.group, **own}


def _mode(view: TensorView, prefix: str, *, affine: bool) -> _Mode:
    """Mode, bits and group size of a module, by its configuration or its shapes."""
    settings = _settings(view, prefix)
    words, scales = view.tensors[prefix + "weight"], view.tensors[prefix + "scales"]
    name = settings.get("mode")
    if name is not None and name not in _MODES:
        raise contradiction(view, words.name, f"is in the unknown mode {str(name)[:20]!r}", "mend config.json")
    if name is not None and (name == "affine") != affine:
        raise contradiction(view, words.name, f"has {'biases' if affine else 'no biases'} in the mode {name}")
    bits, group = whole_number(view, settings, "bits"), whole_number(view, settings, "group_size")
    if affine and bits is not None and group is not None:
        if bits not in _BITS or group not in _GROUPS:
            raise contradiction(
                view, words.name, f"is given as {bits} bits in groups of {group}, which MLX has not", "mend config.json"
            )
        return _Mode("affine", bits, group)
    a_group = 32 * words.shape[-1] / scales.shape[-1]  # bits
    fits = [
        mode
        for mode in (tuple(_Mode("affine", b, g) for b in _BITS for g in _GROUPS) if affine else _FLOAT_MODES)
        if mode.bits * mode.group == a_group
        and bits in (None, mode.bits)
        and group in (None, mode.group)
        and name in (None, mode.name)
    ]
    if len(fits) != 1:
        told = " or ".join(f"{mode.bits} bits in groups of {mode.group}" for mode in fits) or "no known layout"
        raise contradiction(view, words.name, f"and its scales have shapes of {told}", _NO_CONFIGURATION)
    return fits[0]


def _rows(
    view: TensorView, mode: _Mode, parts: list[EffectiveTensor], rest: tuple[int, ...], start: int, stop: int
) -> NDArray[np.float32]:
    """Rows of the first axis; with stacked experts, one expert after the other in parts of its own rows."""
    words, scales, *biases = parts
    if len(rest) == 1:
        return by_blocks(
            start,
            stop,
            rest,
            lambda first, last: _values(view, mode, parts, [part.rows(first, last) for part in parts]),
        )
    made = np.empty((stop - start, *rest), np.float32)
    lines = math.prod(rest[:-1])
    for at in range(start, stop):
        stored = [part.rows(at, at + 1).reshape(lines, -1) for part in (words, scales, *biases)]

        def decode(first: int, last: int, stored: list[NDArray[np.generic]] = stored) -> NDArray[np.float32]:
            return _values(view, mode, parts, [part[first:last] for part in stored])

        made[at - start] = by_blocks(0, lines, rest[-1:], decode).reshape(rest)
    return made


def _values(
    view: TensorView, mode: _Mode, parts: list[EffectiveTensor], stored: list[NDArray[np.generic]]
) -> NDArray[np.float32]:
    """Values (rows, in) of some rows of words, scales and biases."""
    words, scales, *biases = stored
    stream = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
    codes = unpack_fields(stream, mode.bits).reshape(len(words), -1, mode.group)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite scales are reported with the whole layer
        if mode.name == "affine":
            made = codes.astype(np.float32)
            factor, offset = (part.astype(np.float32)[..., None] for part in (scales, *biases))
            check_scales(view, parts[1].name, factor, codes)
            made *= factor
            made = _rounded(_rounded(made, parts[1].dtype) + offset, parts[1].dtype)
        else:
            made = _E2M1[codes] if mode.bits == 4 else _decoded(codes, "float8_e4m3fn")
            made = made * _float_scales(mode, parts[1].dtype, scales)[..., None]
    return made.reshape(len(words), -1)


def _float_scales(mode: _Mode, dtype: str, scales: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scales of the modes without biases, which MLX stores as bytes."""
    if dtype != "uint8":
        return scales.astype(np.float32)
    return _decoded(scales.astype(np.uint8, copy=False), "float8_e4m3fn" if mode.name == "nvfp4" else "float8_e8m0fnu")


def _decoded(codes: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    return decode_any(memoryview(codes.tobytes()), dtype, codes.shape).astype(np.float32)


def _rounded(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Values as ``dtype`` holds them: MLX rounds the product and the sum to the dtype of the scales."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        kept = bits >> np.uint32(16)
        kept &= np.uint32(1)  # a half is rounded to even
        kept += np.uint32(0x7FFF)
        kept += bits
        kept &= np.uint32(0xFFFF0000)
        rounded = kept.view(np.float32)
        finite = np.isfinite(values)
        return rounded if finite.all() else np.where(finite, rounded, values)
    return values
