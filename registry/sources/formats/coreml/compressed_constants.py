"""Constants of ML programs that are computed from compressed ones when a program is loaded: ``constexpr_...``.

They are computed when they are read. Source: the operations' definitions in coremltools, ``constexpr_ops.py`` of iOS 16
and ``compression.py`` of iOS 18.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import decode_any, is_float
from registry.sources.files.lazy_tensors import LazyTensor, computed
from registry.sources.formats.coreml.stored_values import REMEDY
from registry.sources.quantised.bit_fields import unpack_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["EXPANDED"]


def _rows(tensor: LazyTensor, start: int, stop: int) -> NDArray[np.generic]:
    """Indices of the first axis of a tensor; all of one without axes."""
    if tensor.whole or not tensor.shape or not tensor.shape[0]:
        values = tensor.values()
        return values[start:stop] if tensor.shape else values
    width = tensor.bytes // tensor.shape[0]
    return decode_any(tensor.span(start * width, stop * width), tensor.dtype, (stop - start, *tensor.shape[1:]))


def _misfit(what: str, *shapes: tuple[int, ...]) -> WeightsError:
    return WeightsError(f"{what} of shapes {', '.join(str(shape)[:60] for shape in shapes)} do not fit", REMEDY)


def _needed(values: Mapping[str, LazyTensor], *names: str) -> list[LazyTensor]:
    missing = [name for name in names if name not in values]
    if missing:
        raise WeightsError(f"a compressed constant lacks {', '.join(missing)}", REMEDY)
    return [values[name] for name in names]


def _integer(values: Mapping[str, LazyTensor], name: str, default: int = 0) -> int:
    tensor = values.get(name)
    if tensor is None or math.prod(tensor.shape) != 1:
        return default
    return int(np.asarray(tensor.values()).reshape(-1)[0])


def _stored(*tensors: LazyTensor | None) -> int:
    return sum(each.bytes if each.stored is None else each.stored for each in tensors if each is not None)


def _name(tensor: LazyTensor) -> str:
    return f"{tensor.precision or tensor.dtype} coreml"


def _along(shape: tuple[int, ...], parts: tuple[int, ...], what: str) -> list[int]:
    """How many indices of each axis belong to one block."""
    if len(shape) != len(parts) or any(not part or extent % part for extent, part in zip(shape, parts, strict=True)):
        raise _misfit(what, shape, parts)
    return [extent // part for extent, part in zip(shape, parts, strict=True)]


def _scaled(data: LazyTensor, scale: LazyTensor, offset: LazyTensor | None, what: str) -> LazyTensor:
    """(data - offset) scale, where a scale belongs to a block of data; in the type of the scale."""
    if not is_float(scale.dtype) or is_float(data.dtype) or (offset is not None and offset.shape != scale.shape):
        raise _misfit(what, data.shape, scale.shape)
    blocks = _along(data.shape, scale.shape, what)

    def spread(tensor: LazyTensor, start: int, stop: int) -> NDArray[np.float32]:
        values = np.asarray(tensor.values(), np.float32)
        if values.ndim:
            values = values[np.arange(start, stop) // blocks[0]]
        for axis, block in enumerate(blocks[1:], 1):
            if block > 1 and values.shape[axis] > 1:
                values = np.repeat(values, block, axis)
        return values

    kind = "float16" if scale.dtype == "float16" else "float32"

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        values = _rows(data, start, stop).astype(np.float32)
        with np.errstate(all="ignore"):
            if offset is not None:
                values -= spread(offset, start, stop)
            values *= spread(scale, start, stop)
            return values.astype(kind)

    return computed(
        kind, data.shape, rows, precision=_name(data), stored=_stored(data, scale, offset), whole=data.whole
    )


def _affine(values: Mapping[str, LazyTensor]) -> LazyTensor:
    """One scale and zero point for all, or for each index of an axis."""
    data, scale = _needed(values, "quantized_data" if "quantized_data" in values else "input", "scale")
    zero = values.get("zero_point")
    axis = _integer(values, "axis")
    axis = axis + len(data.shape) if axis < 0 else axis

    def laid(tensor: LazyTensor) -> LazyTensor:
        if math.prod(tensor.shape) == 1:
            return replace(tensor, shape=(1,) * len(data.shape))
        if len(tensor.shape) != 1 or not 0 <= axis < len(data.shape) or tensor.shape[0] != data.shape[axis]:
            raise _misfit("codes and scales", data.shape, tensor.shape)
        return replace(tensor, shape=tuple(tensor.shape[0] if k == axis else 1 for k in range(len(data.shape))))

    scale = laid(scale)
    if zero is not None:
        zero = laid(zero)
        if zero.shape != scale.shape and math.prod(zero.shape) == 1:
            zero = _repeated(zero, scale.shape)
    return _scaled(data, scale, zero, "codes and scales")


def _repeated(number: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    """One number as a tensor of a shape."""

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        return np.full((stop - start, *shape[1:]), np.asarray(number.values()).reshape(-1)[0], np.int32)

    return computed("int32", shape, rows, stored=number.bytes)


def _blockwise(values: Mapping[str, LazyTensor]) -> LazyTensor:
    data, scale = _needed(values, "data", "scale")
    return _scaled(data, scale, values.get("offset"), "codes and scales of blocks")


def _shape(values: Mapping[str, LazyTensor]) -> tuple[int, ...]:
    [tensor] = _needed(values, "shape")
    if len(tensor.shape) > 1 or math.prod(tensor.shape) > 32:
        raise _misfit("a shape", tensor.shape)
    return tuple(int(n) for n in np.asarray(tensor.values()).reshape(-1))


def _packed(tensor: LazyTensor, bits: int, shape: tuple[int, ...], what: str) -> LazyTensor:
    """Bytes of codes, low bits first, as codes of a shape."""
    if min(shape, default=1) < 0 or tensor.bytes != (math.prod(shape) * bits + 7) // 8:
        raise _misfit(what, tensor.shape, shape)
    row = math.prod(shape[1:])

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        first = start * row // 8 * 8
        data = np.frombuffer(tensor.span(first * bits // 8, (stop * row * bits + 7) // 8), np.uint8)
        codes = unpack_fields(data, bits, stop * row - first)[start * row - first :]
        return codes.reshape(stop - start, *shape[1:]) if shape else codes

    return computed("uint8", shape, rows, precision=f"uint{bits}", stored=tensor.bytes)


def _table(values: Mapping[str, LazyTensor]) -> LazyTensor:
    """Values by their numbers in a table: one of all, or one of each block, whose entries may be vectors."""
    indices, lut = _needed(values, "indices", "lut")
    if "shape" in values:  # of iOS 16: the numbers are packed
        size = math.prod(lut.shape)
        if size < 2 or size > 256 or size & (size - 1):
            raise _misfit("a table", lut.shape)
        shape = _shape(values)
        indices = _packed(indices, size.bit_length() - 1, shape, "numbers of a table")
        lut = replace(lut, shape=(*(1 for _ in shape), size, 1))
    shape = indices.shape
    if len(lut.shape) != len(shape) + 2 or not is_float(lut.dtype) or is_float(indices.dtype):
        raise _misfit("a table and its numbers", lut.shape, shape)
    blocks = _along(shape, lut.shape[:-2], "a table and its numbers")
    entries, vector = lut.shape[-2:]
    kind = "float16" if lut.dtype == "float16" else "float32"

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        numbers = np.asarray(_rows(indices, start, stop)).astype(np.int64)
        if numbers.size and int(numbers.max()) >= entries:
            raise WeightsError(f"a table of {entries} values has no number {int(numbers.max())}", REMEDY)
        group = np.zeros((), np.int64)
        for axis, (block, parts) in enumerate(zip(blocks, lut.shape[:-2], strict=True)):
            at = np.arange(start, stop) if axis == 0 else np.arange(shape[axis])
            group = group * parts + (at // block).reshape([-1 if k == axis else 1 for k in range(len(shape))])
        tables = np.asarray(lut.values()).reshape(-1, entries, vector)
        return np.asarray(tables[np.broadcast_to(group, numbers.shape), numbers], kind)

    bits = max(1, (entries - 1).bit_length())
    facts = {"precision": f"lut{bits} coreml", "stored": _stored(indices, lut)}
    if vector == 1:
        return computed(kind, shape, lambda a, b: rows(a, b)[..., 0], whole=indices.whole, **facts)  # type: ignore[arg-type]
    axis = _integer(values, "vector_axis", len(shape) - 1)
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis < len(shape):
        raise _misfit("an axis of vectors", (axis,), shape)
    whole = tuple(extent * vector if k == axis else extent for k, extent in enumerate(shape))

    def vectors(start: int, stop: int) -> NDArray[np.generic]:
        return np.moveaxis(rows(0, shape[0]), -1, axis + 1).reshape(whole)[start:stop]

    return computed(kind, whole, vectors, whole=True, **facts)  # type: ignore[arg-type]


def _sparse(values: Mapping[str, LazyTensor]) -> LazyTensor:
    """Values where a mask is set, zeros elsewhere."""
    kept, mask = _needed(values, "nonzero_data", "mask")
    if "shape" in values:
        mask = _packed(mask, 1, _shape(values), "a mask")
    if len(kept.shape) != 1 or kept.shape[0] > math.prod(mask.shape):
        raise _misfit("values and their mask", kept.shape, mask.shape)
    kind = kept.dtype if kept.dtype in ("float16", "float64", "int8", "uint8") else "float32"

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        places = np.asarray(mask.values()) != 0
        if int(np.count_nonzero(places)) != kept.shape[0]:
            raise _misfit("values and their mask", kept.shape, mask.shape)
        numbers = np.asarray(kept.values())
        whole = np.zeros(mask.shape, numbers.dtype)
        whole[places] = numbers
        return whole[start:stop].astype(kind) if mask.shape else whole

    precision = kept.precision
    return computed(kind, mask.shape, rows, precision=precision, stored=_stored(kept, mask), whole=True)


def _same(values: Mapping[str, LazyTensor]) -> LazyTensor:
    """Numbers keep the precision in which they are stored."""
    [source] = _needed(values, "source_val")
    return source


EXPANDED: Mapping[str, Callable[[Mapping[str, LazyTensor]], LazyTensor]] = {
    "constexpr_affine_dequantize": _affine, "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_lut_to_dense": _table, "constexpr_sparse_to_dense": _sparse, "constexpr_cast": _same,
    "dequantize": _affine,
}  # fmt: skip
"""Operations whose result is a constant, by their inputs' names."""
