"""Weights that compressed-tensors (of vLLM and llm-compressor) has packed, quantised or made sparse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor, Unreadable
from registry.sources.quantised.bit_fields import by_blocks, unpack_fields, unpack_padded
from registry.sources.quantised.block_scales import DAMAGED, BlockScales, finite_scales, put_weight
from registry.sources.quantised.fp4 import block_scales, fp4_rows, whole_scales
from registry.sources.quantised.fp8 import scale_of
from registry.sources.quantised.quantisation_config import block_size, method_of, stated_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["dequantise_compressed_tensors"]

_METHOD = "compressed-tensors"
_REMEDY = (
    "decompress it with compressed-tensors: AutoModelForCausalLM.from_pretrained, then save its dequantised weights"
)
_LARGEST = 2**31  # extent of an axis; shapes are stored as numbers, which a damaged file may hold any of
_PEEK = 1 << 14  # words that tell packings of one length apart
_ENOUGH = 256  # so many words do not have two clear bits by chance
_FP4, _FP6, _NVFP4 = 16, 24, 8  # bytes of codes that have a common scale


def dequantise_compressed_tensors(view: TensorView) -> None:
    """Put weights in place of what compressed-tensors stores for them.

    ``pack-quantized``: ``weight_packed`` int32, ``weight_scale``, ``weight_shape``, perhaps ``weight_zero_point``
    (packed along the outputs) and ``weight_g_idx`` (group of each input). Codes of 1 to 8 bits, plus 2^(b - 1), lie
    close together; older versions put 32 // b whole codes into a word, which the shapes tell. The weight is
    (code - 2^(b - 1) - zero) x scale. ``int-quantized`` and ``naive-quantized``: ``weight`` int8 x ``weight_scale``,
    less ``weight_zero_point``. ``nvfp4-pack-quantized``: ``weight_packed`` uint8 x ``weight_scale`` float8 /
    ``weight_global_scale``. ``mxfp4-`` and ``mxfp6-pack-quantized``: ``weight_packed`` uint8 x 2^(scale - 127).
    ``sparse-bitmask``: the values that are not zero and a bit for each. ``marlin-24`` is refused by name. Weights of
    ``float-quantized`` and ``mxfp8-quantized`` are those of `fp8`.

    Raises
    ------
    WeightsError
        Shapes, scales, bits or groups contradict each other or the configuration. When rows are read: a scale is zero
        or not finite, or a group does not exist.
    """
    _unpack_sparse(view)
    for name in list(view.tensors):
        tensor = view.tensors.get(name)
        if tensor is None:
            continue
        stem, dot, last = name.rpartition(".")
        prefix = stem + dot
        if last == "weight_packed" and f"{prefix}scale_packed" in view.tensors:
            _refuse_marlin(view, tensor, prefix)
        elif last == "weight_packed" and tensor.dtype == "int32":
            _put_integers(view, _Parts.of(view, prefix))
        elif last == "weight_packed" and tensor.dtype == "uint8":
            _put_small_floats(view, _Parts.of(view, prefix))
        elif last == "weight" and tensor.dtype == "int8" and (scale := scale_of(view, name) or "").startswith(name):
            _put_bytes(view, tensor, view.tensors[scale], prefix)


class _Parts(NamedTuple):
    """The tensors of one packed weight."""

    name: str
    packed: EffectiveTensor
    scale: EffectiveTensor
    shape: EffectiveTensor | None
    zero: EffectiveTensor | None
    groups: EffectiveTensor | None
    whole: EffectiveTensor | None

    @classmethod
    def of(cls, view: TensorView, prefix: str) -> _Parts:
        got = view.tensors.get
        packed, scale = view.tensors[f"{prefix}weight_packed"], got(f"{prefix}weight_scale")
        if scale is None:
            raise WeightsError(f"{view.where}: {packed.name} has no {prefix}weight_scale", DAMAGED)
        rest = (got(f"{prefix}weight_{part}") for part in ("shape", "zero_point", "g_idx", "global_scale"))
        return cls(f"{prefix}weight", packed, scale, *rest)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self[1:] if isinstance(part, EffectiveTensor))


class _Packing(NamedTuple):
    """Width of a code, and whether words hold whole codes alone."""

    bits: int
    padded: bool

    def words(self, codes: int) -> int:
        return -(-codes // (32 // self.bits)) if self.padded else -(-codes * self.bits // 32)

    def unpack(self, words: NDArray[np.generic], codes: int) -> NDArray[np.uint8]:
        """The codes of each row of 32-bit words."""
        if self.padded:
            return unpack_padded(np.ascontiguousarray(words).view(np.uint32), self.bits)[..., :codes]
        return unpack_fields(np.ascontiguousarray(words).view(np.uint8), self.bits, codes)


def _put_integers(view: TensorView, parts: _Parts) -> None:
    shape = _shape_of(view, parts)
    packing = _packing_of(view, parts, shape)
    scales = BlockScales(
        view, parts.scale, parts.name, shape, _grid(view, parts.name, shape, ordered=parts.groups is not None)
    )
    zeros = _check_zeros(view, parts, scales, packing)
    inner = shape[-1]
    offset = np.float32(1 << (packing.bits - 1))

    def decode(start: int, stop: int) -> NDArray[np.floating]:
        codes = packing.unpack(parts.packed.rows(start, stop), inner).astype(np.float32)
        codes -= offset
        by = finite_scales(view, parts.scale, scales.stored(start, stop))
        less = None if zeros is None else _zeros(zeros, scales, packing, start, stop)
        if grouped is not None:
            index = _group_index(view, grouped, scales.aligned[-1])
            by, less = by[..., index], None if less is None else less[..., index]
        else:
            by, less = scales.spread(by, start, stop), None if less is None else scales.spread(less, start, stop)
        if less is not None:
            codes -= less
        scales.check_zeros(by, codes)
        codes *= by
        return codes

    grouped = parts.groups
    if grouped is None and stated_values(view, "actorder") in ({"group"}, {"dynamic"}, {True}):
        raise WeightsError(f"{view.where}: {parts.name} has no weight_g_idx, which the configuration states", DAMAGED)
    if grouped is not None and (grouped.shape != (inner,) or len(shape) != 2 or scales.aligned[0] != shape[0]):
        raise WeightsError(f"{view.where}: {grouped.name} of shape {list(grouped.shape)} does not fit", DAMAGED)
    if grouped is not None and scales.aligned[-1] == 1:
        grouped = None
    made = EffectiveTensor(
        parts.name,
        "float32",
        shape,
        lambda start, stop: by_blocks(start, stop, shape[1:], decode),
        parts.names,
        f"int{packing.bits} {_METHOD}",
    )
    put_weight(view, made)


def _shape_of(view: TensorView, parts: _Parts) -> tuple[int, ...]:
    """Shape of the weight: (out, in), or (expert, out, in)."""
    packed = parts.packed.shape
    if parts.shape is None:
        raise WeightsError(f"{view.where}: {parts.packed.name} has no weight_shape", DAMAGED)
    if parts.shape.dtype not in ("int32", "int64") or parts.shape.info.size != len(packed):
        raise WeightsError(f"{view.where}: {parts.shape.name} is no shape of {len(packed)} axes", DAMAGED)
    shape = tuple(int(extent) for extent in parts.shape.read().reshape(-1))
    fits = len(packed) in (2, 3) and shape[:-1] == packed[:-1] and all(0 < extent < _LARGEST for extent in shape)
    if not fits or shape[-1] > 32 * packed[-1]:
        raise WeightsError(
            f"{view.where}: {parts.shape.name} says {list(shape)}, but {parts.packed.name} is {list(packed)}", DAMAGED
        )
    return shape


def _packing_of(view: TensorView, parts: _Parts, shape: tuple[int, ...]) -> _Packing:
    """Bits and packing that the shapes allow and the configuration states. Raises ``WeightsError`` unless it is one."""
    stated = stated_values(view, "num_bits")
    words, inner = parts.packed.shape[-1], shape[-1]
    dense = [_Packing(bits, padded=False) for bits in range(1, 9)]
    padded = [_Packing(bits, padded=True) for bits in (3, 5, 6, 7)]
    fitting = [p for p in dense + padded if p.words(inner) == words and (not stated or p.bits in stated)]
    fitting = [each for each in fitting if not (each.padded and _alike(each, inner, fitting))]
    if len(fitting) > 1 and len({each.bits for each in fitting}) == 1 and parts.zero is not None:
        rows = parts.zero.shape[-2] if len(parts.zero.shape) > 1 else 0
        fitting = [each for each in fitting if each.words(shape[-2]) == rows] or fitting
    if len(fitting) > 1:
        fitting = _by_content(view, parts.packed, fitting)
    if len(fitting) == 1:
        return fitting[0]
    told = f"{sorted(map(str, stated))[:4]} bits" if stated else "codes of 1 to 8 bits"
    what = "may hold several widths of" if fitting else "does not fit"
    raise WeightsError(
        f"{view.where}: {parts.packed.name} of shape {list(parts.packed.shape)} {what} {told} in a weight of shape "
        f"{list(shape)}",
        "keep the model's own config.json beside it",
    )


def _by_content(view: TensorView, packed: EffectiveTensor, fitting: list[_Packing]) -> list[_Packing]:
    """Those packings that the first words allow: padded ones leave the highest bits of every word zero."""
    words = packed.shape[-1]
    rows = min(packed.info.size // words, max(1, _PEEK // words))
    seen = np.frombuffer(view.span(packed.name, 0, 4 * rows * words), "<u4").reshape(rows, words)[:, :-1]
    found = []
    for each in fitting:
        unused = max((32 % other.bits for other in fitting if other.padded), default=0)
        clear = not (seen >> np.uint32(32 - (32 % each.bits if each.padded else unused))).any()
        if clear if each.padded else not clear or seen.size < _ENOUGH:
            found.append(each)
    return found


def _alike(padded: _Packing, codes: int, others: list[_Packing]) -> bool:
    """Whether all codes lie in one word, where both packings are the same."""
    return codes <= 32 // padded.bits and _Packing(padded.bits, padded=False) in others


def _grid(view: TensorView, weight: str, shape: tuple[int, ...], *, ordered: bool = False) -> tuple[int, ...]:
    """Extents of a block that the configuration states for all weights alike; ``ordered``: by an index of groups."""
    sizes = stated_values(view, "group_size")
    if stated_values(view, "strategy") != {"group"} or len(sizes) != 1 or ordered:
        return ()
    size = sizes.pop()
    if not isinstance(size, int) or size < 1 or shape[-1] % size:
        raise WeightsError(f"{view.where}: {shape[-1]} inputs of {weight} are no groups of {size}", DAMAGED)
    return (1, size)


def _check_zeros(view: TensorView, parts: _Parts, scales: BlockScales, packing: _Packing) -> EffectiveTensor | None:
    zero = parts.zero
    if zero is None:
        _check_symmetric(view, parts.name)
        return None
    *lead, outputs, groups = scales.aligned
    packed = (*lead, packing.words(outputs), groups)
    if zero.dtype == "int32" and zero.shape == packed:
        return zero
    if zero.dtype == "int8" and zero.shape == parts.scale.shape:  # not packed, as those of a whole tensor
        return zero
    raise WeightsError(
        f"{view.where}: {zero.name} of {zero.dtype} and shape {list(zero.shape)} does not fit scales of shape "
        f"{list(parts.scale.shape)}",
        DAMAGED,
    )


def _check_symmetric(view: TensorView, weight: str) -> None:
    """Refuse a weight without zero points where the configuration states for all weights that they have some."""
    if stated_values(view, "symmetric") == {False}:
        raise WeightsError(f"{view.where}: {weight} has no zero points, which the configuration states", DAMAGED)


def _zeros(
    zero: EffectiveTensor, scales: BlockScales, packing: _Packing, start: int, stop: int
) -> NDArray[np.floating]:
    """Zero points of rows, one a block."""
    if zero.dtype == "int8":
        return scales.stored(start, stop, zero).astype(np.float32)
    stacked = len(scales.aligned) == 3
    words = zero.rows(start, stop) if stacked else zero.read()
    codes = packing.unpack(words.swapaxes(-1, -2), scales.aligned[-2]).swapaxes(-1, -2)
    found = codes.astype(np.float32) - np.float32(1 << (packing.bits - 1))
    return found if stacked or scales.aligned[0] == 1 else found[start:stop]


def _group_index(view: TensorView, groups: EffectiveTensor, count: int) -> NDArray[np.int64]:
    """Group of each input; where all are -1, inputs are in the order of their groups."""
    index = groups.read().astype(np.int64)
    if (index == -1).all():
        if index.size % count:
            raise WeightsError(f"{view.where}: {index.size} inputs are no {count} groups", DAMAGED)
        return np.arange(index.size) // (index.size // count)
    if index.min() < 0 or index.max() >= count:
        wrong = int(index.max() if index.min() >= 0 else index.min())
        raise WeightsError(f"{view.where}: {groups.name} names group {wrong} of {count}", DAMAGED)
    return index


def _put_small_floats(view: TensorView, parts: _Parts) -> None:
    """Codes of 4 or 6 bits in bytes; the number of bytes that have a common scale tells which."""
    packed, scale = parts.packed, parts.scale
    groups = scale.shape[-1] if len(scale.shape) == len(packed.shape) > 1 and scale.shape[-1] else 1
    width, rest = divmod(packed.shape[-1], groups) if packed.shape else (0, 1)
    exponents = scale.dtype in ("uint8", "float8_e8m0fnu")
    if rest or (width, exponents) not in ((_FP4, True), (_FP6, True), (_NVFP4, False)):
        raise WeightsError(
            f"{view.where}: scale {scale.name} of {scale.dtype} and shape {list(scale.shape)} does not fit "
            f"{packed.name} of shape {list(packed.shape)}",
            DAMAGED,
        )
    if exponents:
        bits, block, kind = (4, 32, "mxfp4") if width == _FP4 else (6, 32, "mxfp6")
    else:
        bits, block, kind = 4, 16, "nvfp4"
    shape = (*packed.shape[:-1], groups * block)
    scales = block_scales(view, scale, parts.name, shape, block, some_zero=not exponents)
    if parts.zero is not None or (parts.whole is None) != exponents:
        raise WeightsError(f"{view.where}: {packed.name} has other parts than {kind} has", DAMAGED)
    combined = None
    if parts.whole is not None:
        whole = whole_scales(view, parts.whole, parts.name, shape)

        def combined(values: NDArray[np.floating], start: int, stop: int) -> NDArray[np.floating]:
            factor = whole.rows(start, stop)
            whole.check_zeros(factor, values)
            return values / factor

    rows = fp4_rows(packed.rows, shape, scales, combined, bits)
    put_weight(view, EffectiveTensor(parts.name, "float32", shape, rows, parts.names, f"{kind} {_METHOD}"))


def _put_bytes(view: TensorView, weight: EffectiveTensor, scale: EffectiveTensor, prefix: str) -> None:
    """``int-quantized`` and ``naive-quantized`` integers of up to 8 bits, a byte each; and those of other libraries."""
    zero = view.tensors.get(f"{prefix}weight_zero_point")
    if not is_float(scale.dtype) or f"{prefix}pre_quant_scale" in view.tensors:
        return  # of others, who come later
    shape, codes_of = weight.shape, weight.rows
    given = (_grid(view, weight.name, shape) or block_size(view)) if len(shape) > 1 else ()
    scales = BlockScales(view, scale, weight.name, shape, given, ragged=True)
    if zero is not None and (zero.shape != scale.shape or zero.dtype != "int8"):
        raise WeightsError(
            f"{view.where}: {zero.name} of {zero.dtype} and shape {list(zero.shape)} does not fit {scale.name}", DAMAGED
        )

    if zero is None:
        _check_symmetric(view, weight.name)

    def decode(start: int, stop: int) -> NDArray[np.floating]:
        values = codes_of(start, stop).astype(np.float32)
        if zero is not None:
            values -= scales.spread(scales.stored(start, stop, zero), start, stop)
        by = scales.rows(start, stop)
        scales.check_zeros(by, values)
        values *= by
        return values

    stated = stated_values(view, "num_bits")
    bits = stated.pop() if len(stated) == 1 else 8
    if bits not in range(1, 9):
        raise WeightsError(f"{view.where}: the configuration states {str(bits)[:20]} bits for {weight.name}", DAMAGED)
    parts = tuple(part.name for part in (scale, zero) if part is not None)
    view.put(
        EffectiveTensor(
            weight.name,
            "float32",
            shape,
            lambda start, stop: by_blocks(start, stop, shape[1:], decode),
            (*weight.parts, *parts),
            f"int{bits} {_METHOD}" if method_of(view) == _METHOD else f"int{bits}",
        ),
        parts,
    )


def _refuse_marlin(view: TensorView, packed: EffectiveTensor, prefix: str) -> None:
    """Half of the codes of a 2:4 sparse matrix, permuted for a GPU's kernel."""
    view.refuse(packed.name, Unreadable("marlin-24 weights (compressed-tensors)", 16 * packed.info.size, _REMEDY))
    for part in ("scale_packed", "meta", "weight_shape"):
        if f"{prefix}{part}" in view.tensors:
            view.skip(f"{prefix}{part}", "part of a marlin-24 weight")


def _unpack_sparse(view: TensorView) -> None:
    """Put tensors in place of ``a.compressed``, ``a.bitmask``, ``a.shape`` and ``a.row_offsets``."""
    for name in [name for name in view.tensors if name.endswith(".compressed")]:
        base = name.removesuffix(".compressed")
        mask, values, shape = (view.tensors.get(f"{base}.{part}") for part in ("bitmask", "compressed", "shape"))
        if mask is None or values is None or shape is None:
            raise WeightsError(f"{view.where}: {name} has no {base}.bitmask or {base}.shape", DAMAGED)
        _put_sparse(view, base, mask, values, shape)


def _put_sparse(
    view: TensorView, base: str, mask: EffectiveTensor, values: EffectiveTensor, shape: EffectiveTensor
) -> None:
    extents = tuple(int(extent) for extent in shape.read().reshape(-1)) if shape.info.size == 2 else ()
    fits = len(extents) == 2 and extents[0] > 0 and 0 < extents[1] < _LARGEST and mask.dtype == "uint8"
    if not fits or mask.shape != (extents[0], -(-extents[1] // 8)) or values.info.size > math.prod(extents):
        raise WeightsError(
            f"{view.where}: {mask.name} of shape {list(mask.shape)} does not fit {shape.name} {list(extents)}", DAMAGED
        )

    def bits(start: int, stop: int) -> NDArray[np.uint8]:
        packed = np.ascontiguousarray(mask.rows(start, stop)).view(np.uint8)
        return np.unpackbits(packed, axis=-1, count=extents[1], bitorder="little")

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        counts = np.concatenate([bits(a, b).sum(1, dtype=np.int64) for a, b in _portions(extents)])
        if int(counts.sum()) != values.info.size:
            raise WeightsError(
                f"{view.where}: {mask.name} marks {int(counts.sum())} values, {values.name} has {values.info.size}",
                DAMAGED,
            )
        first, count = int(counts[:start].sum()), int(counts[start:stop].sum())
        flat = values.read().reshape(-1)[first : first + count]
        made = np.zeros((stop - start, extents[1]), flat.dtype)
        made[bits(start, stop) == 1] = flat
        return made

    offsets = f"{base}.row_offsets"
    parts = tuple(n for n in (values.name, mask.name, shape.name, offsets) if n in view.tensors)
    name = base if base.rpartition(".")[2] == "weight" else f"{base}.weight"
    put_weight(view, EffectiveTensor(name, values.dtype, extents, rows, parts))


def _portions(extents: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    step = max(1, (1 << 24) // extents[1])
    for start in range(0, extents[0], step):
        yield start, min(start + step, extents[0])
