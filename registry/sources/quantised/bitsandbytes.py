"""Weights that bitsandbytes stores: nf4 and fp4 in blocks, and int8 by rows.

4 bits: ``X`` holds two codes a byte, the first one high, in C order of the weight; ``X.quant_map`` gives the value of
each code and ``X.absmax`` a factor for each block. With nested quantisation ``X.absmax`` holds codes itself: a factor
is ``nested_quant_map[code] * nested_absmax[block of blocks] + nested_offset``. Shape, block sizes and that offset are
JSON in the bytes of ``X.quant_state.bitsandbytes__nf4`` (or ``__fp4``).

8 bits: the value is ``X.weight * X.SCB / 127``, one SCB an output. Layouts other than ``row`` are for one kind of GPU
and cannot be read without one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from registry.sources.dtypes import bits_of, is_float
from registry.sources.effective_weights import EffectiveTensor
from registry.sources.quantised.bit_fields import by_blocks, split_nibbles
from registry.sources.quantised.quantised_parts import (
    check_scales,
    contradiction,
    modules_with,
    put_weight,
    refuse_weight,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_bitsandbytes"]

_STATES = ("nf4", "fp4")
_LARGEST_STATE = 1 << 16  # bytes; a state has some 200
_BLOCK_SIZES = tuple(2**power for power in range(5, 13))
_LAYOUTS = {1: "col32", 2: "col_turing", 3: "col_ampere"}
_ROW_REMEDY = "load it with the bitsandbytes that wrote it, on such a GPU, and save model.dequantize()"
# Values of the codes. NF4: appendix E of arXiv:2305.14314. FP4: sign, two bits of exponent, one of mantissa, over 12.
_VALUES = {
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
    "fp4": tuple(sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3)),
}
_NEAR = 1e-3  # of a stored value to that of the format; the nearest two differ by 5e-3


@dataclass(frozen=True, slots=True)
class _Weight:
    """One 4-bit weight: what its state says, and its parts."""

    shape: tuple[int, ...]
    block: int
    packed: EffectiveTensor
    absmax: EffectiveTensor
    values: EffectiveTensor
    nested: _Nested | None


@dataclass(frozen=True, slots=True)
class _Nested:
    """How the factors of blocks are quantised."""

    block: int
    offset: float
    absmax: EffectiveTensor
    values: EffectiveTensor


def dequantise_bitsandbytes(view: TensorView) -> None:
    """Put each weight, in the shape that its state gives, in place of codes, maps and factors.

    Parameters
    ----------
    view
        No configuration is needed.

    Raises
    ------
    WeightsError
        A state is no JSON of at most 64 KiB with the fields that it must have, a part is missing or of another size, or
        the values of the codes are not those of the format. When rows are read: a factor of zero has codes that differ.
    """
    for kind in _STATES:
        suffix = f".quant_state.bitsandbytes__{kind}"
        for name in sorted(name for name in view.tensors if name.endswith(suffix)):
            _four_bits(view, name.removesuffix(suffix), name, kind)
    for prefix in modules_with(view, "SCB", "weight"):
        _eight_bits(view, prefix)


def _part(view: TensorView, state: str, name: str, dtypes: tuple[str, ...], size: int) -> EffectiveTensor:
    """A part of a weight, checked to be there, of a dtype among ``dtypes`` (none: floating point), of ``size``."""
    part = view.tensors.get(name)
    if part is None:
        raise contradiction(view, state, f"has no {name} beside it")
    right = part.dtype in dtypes if dtypes else is_float(part.dtype)
    if not right or part.info.size != size:
        raise contradiction(view, name, f"is {part.dtype} of shape {part.shape}, not {size} elements")
    return part


def _four_bits(view: TensorView, base: str, name: str, kind: str) -> None:
    state = _state(view, name)
    shape = _shape(view, name, state.get("shape"))
    if state.get("quant_type") != kind:
        raise contradiction(view, name, f"says quant_type {str(state.get('quant_type'))[:20]!r}")
    block = _block_size(view, name, state.get("blocksize"))
    elements = math.prod(shape)
    blocks = -(-elements // block)
    packed = view.tensors.get(base)
    if packed is None:
        raise contradiction(view, name, f"has no {base} beside it")
    if packed.info.size * bits_of(packed.dtype, 0) // 8 != -(-elements // 2):
        raise contradiction(view, base, f"is {packed.dtype} of shape {packed.shape}, not two codes a byte of {shape}")
    nested = f"{base}.nested_absmax" in view.tensors or "nested_offset" in state
    names = [f"{base}.absmax", f"{base}.quant_map"]
    inner = None
    if nested:
        names += [f"{base}.nested_absmax", f"{base}.nested_quant_map"]
        inner_block = _block_size(view, name, state.get("nested_blocksize"))
        inner = _Nested(
            inner_block,
            _finite(view, name, state.get("nested_offset")),
            _part(view, name, names[2], (), -(-blocks // inner_block)),
            _part(view, name, names[3], (), 256),
        )
    weight = _Weight(
        shape,
        block,
        packed,
        _part(view, name, names[0], ("uint8",) if nested else (), blocks),
        _part(view, name, names[1], (), 16),
        inner,
    )
    made = EffectiveTensor(
        base,
        "float32",
        shape,
        lambda start, stop: _four_bit_rows(view, weight, kind, start, stop),
        tuple(part for each in [base, *names, name] for part in view.tensors[each].parts),
        f"{kind} bitsandbytes",
    )
    put_weight(view, made, [base, *names, name])


def _state(view: TensorView, name: str) -> dict[str, Any]:
    """The JSON object in a tensor of bytes."""
    info = view.tensors[name].info
    if info.dtype != "uint8" or not 2 <= info.size <= _LARGEST_STATE:
        raise contradiction(view, name, f"is {info.dtype} of {info.size:,} elements, not a short JSON text")

    def other(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        found = json.loads(bytes(view.tensors[name].read().tobytes()).decode(), parse_constant=other)
    except (ValueError, RecursionError):
        raise contradiction(view, name, "holds no valid JSON") from None
    if not isinstance(found, dict):
        raise contradiction(view, name, "holds no JSON object")
    return found


def _shape(view: TensorView, name: str, given: object) -> tuple[int, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= 8:
        raise contradiction(view, name, "gives no shape")
    if not all(isinstance(extent, int) and not isinstance(extent, bool) and 0 < extent < 2**40 for extent in given):
        raise contradiction(view, name, f"gives the shape {str(given)[:60]}")
    return tuple(given)


def _block_size(view: TensorView, name: str, given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given not in _BLOCK_SIZES:
        raise contradiction(view, name, f"gives blocks of {str(given)[:20]}")
    return given


def _finite(view: TensorView, name: str, given: object) -> float:
    """A number of the state as float32 holds it, which is how the library uses it."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or abs(given) > float(np.finfo(np.float32).max):
        raise contradiction(view, name, f"gives the nested_offset {str(given)[:20]}")
    return float(np.float32(given))


def _four_bit_rows(view: TensorView, weight: _Weight, kind: str, start: int, stop: int) -> NDArray[np.float32]:
    values = weight.values.read().astype(np.float32).reshape(16)
    if not np.allclose(values, _VALUES[kind], rtol=0, atol=_NEAR):
        raise contradiction(view, weight.values.name, f"holds other values than {kind} has")
    row = math.prod(weight.shape[1:])
    base = weight.packed.parts[0]

    def decode(first: int, last: int) -> NDArray[np.float32]:
        low, high = first * row, last * row
        data = np.frombuffer(view.span(base, low // 2, -(-high // 2)), np.uint8)
        codes = split_nibbles(data, high_first=True)[low % 2 :][: high - low]
        blocks = low // weight.block, -(-high // weight.block)
        factors = _factors(weight, *blocks).repeat(weight.block)
        within = low - blocks[0] * weight.block
        made = values[codes]
        factor = factors[within:][: high - low]
        _check_blocks(view, weight, codes, factor, low)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite factors are reported with the whole layer
            made *= factor
        return made.reshape(last - first, *weight.shape[1:])

    return by_blocks(start, stop, weight.shape[1:], decode)


def _check_blocks(
    view: TensorView, weight: _Weight, codes: NDArray[np.uint8], factors: NDArray[np.float32], low: int
) -> None:
    """Refuse a factor of zero over codes that differ; a block of zeros has one code throughout, which may be any."""
    if (factors != 0).all():
        return
    same_block = np.arange(low + 1, low + codes.size) % weight.block != 0
    lost = (factors[1:] == 0) & (codes[1:] != codes[:-1]) & same_block
    check_scales(view, weight.absmax.name, np.zeros(1, np.float32), lost)


def _factors(weight: _Weight, start: int, stop: int) -> NDArray[np.float32]:
    """Factors of the blocks ``start`` to ``stop``."""
    stored = weight.absmax.rows(start, stop).reshape(-1)
    if weight.nested is None:
        return stored.astype(np.float32, copy=False)
    nested = weight.nested
    values = nested.values.read().astype(np.float32, copy=False).reshape(-1)
    first, last = start // nested.block, -(-stop // nested.block)
    outer = nested.absmax.rows(first, last).reshape(-1).astype(np.float32).repeat(nested.block)
    within = start - first * nested.block
    with np.errstate(over="ignore", invalid="ignore"):
        made: NDArray[np.float32] = values[stored] * outer[within:][: stop - start] + np.float32(nested.offset)
    return made


def _eight_bits(view: TensorView, prefix: str) -> None:
    weight, scales = view.tensors[prefix + "weight"], view.tensors[prefix + "SCB"]
    if weight.dtype != "int8":
        raise contradiction(view, scales.name, f"is beside a weight of {weight.dtype}, not int8")
    if len(weight.shape) < 2 or not is_float(scales.dtype) or scales.info.size != weight.shape[0]:
        raise contradiction(view, scales.name, f"is {scales.dtype} of shape {scales.shape} for {weight.shape} codes")
    layout = view.tensors.get(prefix + "weight_format")
    names = [weight.name, scales.name] + ([layout.name] if layout else [])
    if layout is not None:
        if layout.info.size != 1 or layout.dtype not in ("uint8", "int8", "int32", "int64"):
            raise contradiction(view, layout.name, f"is {layout.dtype} of shape {layout.shape}, not one number")
        number = int(layout.read().reshape(-1)[0])
        if number:
            kind = f"int8 bitsandbytes weights in the layout {_LAYOUTS.get(number, number)}"
            refuse_weight(view, weight.name, kind, weight.info.size, _ROW_REMEDY, names[1:])
            return
    made = EffectiveTensor(
        weight.name,
        "float32",
        weight.shape,
        lambda start, stop: _eight_bit_rows(view, weight, scales, start, stop),
        (*weight.parts, *scales.parts),
        "int8 bitsandbytes",
    )
    put_weight(view, made, names)


def _eight_bit_rows(
    view: TensorView, weight: EffectiveTensor, scales: EffectiveTensor, start: int, stop: int
) -> NDArray[np.float32]:
    rest = weight.shape[1:]
    all_factors = scales.read().astype(np.float32, copy=False).reshape(-1, *(1 for _ in rest))
    inverse = np.float32(1 / 127)

    def decode(first: int, last: int) -> NDArray[np.float32]:
        codes = weight.rows(first, last).astype(np.float32)
        factors = all_factors[first:last]
        check_scales(view, scales.name, factors, codes)
        with np.errstate(over="ignore", invalid="ignore"):
            made: NDArray[np.float32] = codes * factors * inverse  # rounded as often as the library does
        return made

    return by_blocks(start, stop, rest, decode)
