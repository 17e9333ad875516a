"""Values of Core ML: those of ML programs, in the model or in a file of blobs beside it, and weights of layers.

Source: ``mlmodel/format/MIL.proto`` and ``NeuralNetwork.proto``, ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp`` and
``BlobDataType.hpp`` (apple/coremltools). A blob has a header of 64 bytes: a mark, its type, its size and its place.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_file, in_memory
from registry.sources.files.wire import BYTES
from registry.sources.quantised.bit_fields import sign_extended, unpack_fields, unpack_high_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.sources.files.companions import Companions
    from registry.sources.files.wire import Message

__all__ = ["REMEDY", "WeightField", "layer_weights", "program_value", "weight_field"]

REMEDY = "convert the model again, or ingest the one that it was converted from"
_MODEL_PATH = "@model_path/"
_MAX_AXES = 32
_MARK = 0xDEADBEEF
_LARGEST_LIST = 1 << 20  # numbers of a list that is no weight
# Types of a program's values: dtype, bits, and the number of the same type in a file of blobs.
_TYPES = {
    10: ("float16", 16, 1), 11: ("float32", 32, 2), 12: ("float64", 64, 0), 13: ("bfloat16", 16, 5),
    21: ("int8", 8, 4), 22: ("int16", 16, 6), 23: ("int32", 32, 14), 24: ("int64", 64, 0), 25: ("int4", 4, 8),
    31: ("uint8", 8, 3), 32: ("uint16", 16, 7), 33: ("uint32", 32, 15), 34: ("uint64", 64, 0), 35: ("uint4", 4, 11),
    36: ("uint2", 2, 10), 37: ("uint1", 1, 9), 38: ("uint6", 6, 13), 39: ("uint3", 3, 12),
    40: ("float8_e4m3fn", 8, 16), 41: ("float8_e5m2", 8, 17), 1: ("bool", 8, 3),
}  # fmt: skip
_LISTS = {1: "<f4", 6: "<f8"}  # fields of a tensor's values of fixed width
_AS_THEY_ARE = frozenset({(1, "float32"), (6, "float64")})


@dataclass(frozen=True, slots=True)
class WeightField:
    """A WeightParams: where its numbers are, as which type, and how they are quantised.

    ``bits``: of a code; 0 without codes. ``table``: the values that codes stand for.
    """

    dtype: str
    start: int
    size: int
    bits: int = 0
    scale: NDArray[np.float32] | None = None
    offset: NDArray[np.float32] | None = None
    table: NDArray[np.float32] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no numbers."""
        return not self.size


def weight_field(message: Message) -> WeightField:
    """Read a WeightParams; its numbers are not read.

    Raises
    ------
    WeightsError
        Its numbers are not in one piece, or the quantisation is not known.
    """
    pieces: list[tuple[str, int, int]] = []
    dtypes = {1: "float32", 2: "float16", 30: "codes", 31: "int8"}
    quantisation: Message | None = None
    for each in message:
        if each.number in dtypes and (each.size or each.wire != BYTES):
            if each.wire != BYTES or pieces:
                raise WeightsError(f"{message.file.name}: the numbers of a weight are not in one piece", REMEDY)
            pieces.append((dtypes[each.number], each.start, each.size))
        elif each.number == 40:
            quantisation = message.message(each)
    if not pieces:
        return WeightField("float32", 0, 0)
    dtype, start, size = pieces[0]
    if quantisation is None:
        if dtype in ("codes", "int8"):
            raise WeightsError(f"{message.file.name} has codes without scales", REMEDY)
        return WeightField(dtype, start, size)
    bits, scale, offset, table = 0, None, None, None
    for each in quantisation:
        if each.number == 1:
            bits = each.value
        elif each.number == 101:
            inner = quantisation.message(each)
            scale, offset = _floats(inner, 1), _floats(inner, 2)
        elif each.number == 102:
            table = _floats(quantisation.message(each), 1)
    if dtype in ("float32", "float16"):
        return WeightField(dtype, start, size)
    bits = 8 if dtype == "int8" else bits
    if not 1 <= bits <= 8 or (scale is None and table is None) or (dtype == "int8" and scale is None):
        raise WeightsError(f"{message.file.name} has codes of {bits} bits in an unknown way", REMEDY)
    return WeightField(dtype, start, size, bits, scale, offset, table)


def _floats(message: Message, number: int) -> NDArray[np.float32]:
    parts: list[NDArray[np.generic]] = []
    for each in message:
        if each.number == number:
            if each.size > 4 * _LARGEST_LIST or len(parts) > _LARGEST_LIST:
                raise UnsafeError(f"{message.file.name} has more than {_LARGEST_LIST} scales of one weight", REMEDY)
            parts.append(message.numbers(each, "<f4"))
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def layer_weights(message: Message, field: WeightField, shape: Sequence[int], axis: int = 0) -> LazyTensor:
    """A weight of a layer in the shape in which it is stored; scales are along ``axis``, that of its outputs.

    Raises
    ------
    WeightsError
        It has not as many numbers as its shape.
    """
    shape = tuple(shape)
    count = math.prod(shape)
    width = field.bits or bits_of(field.dtype)
    if min(shape, default=1) < 0 or field.size != (count * width + 7) // 8:
        raise WeightsError(
            f"{message.file.name}: a weight of shape {str(shape)[:80]} has {field.size} bytes of {width} bits each",
            REMEDY,
        )
    stored = in_file(message.file, field.start, "uint8", (field.size,))
    if not field.bits:
        return replace(stored, dtype=field.dtype, shape=shape)
    scale, offset, table = field.scale, field.offset, field.table
    if scale is not None:
        along = shape[axis] if shape else 1
        offset = np.zeros(1, np.float32) if offset is None or not len(offset) else offset
        if len(scale) not in (1, along) or len(offset) not in (1, along):
            raise WeightsError(
                f"{message.file.name}: a weight of shape {str(shape)[:80]} has {len(scale)} scales", REMEDY
            )
    elif table is None or len(table) < 1 << field.bits:
        raise WeightsError(f"{message.file.name}: codes of {field.bits} bits have too few values", REMEDY)
    row = count // shape[0] if shape and shape[0] else 0

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        low = start * row * field.bits
        data = np.frombuffer(stored.span(low // 8, -(-stop * row * field.bits // 8)), np.uint8)
        if field.dtype == "int8":
            codes: NDArray[np.integer] = data.view(np.int8)
        elif field.bits == 8:
            codes = data
        else:
            codes = unpack_high_first(data, field.bits, low % 8, (stop - start) * row)
        shaped = codes.reshape(stop - start, *shape[1:])
        if scale is None:
            assert table is not None  # noqa: S101 - as checked above
            return np.asarray(table[shaped], np.float32)
        with np.errstate(all="ignore"):
            return shaped.astype(np.float32) * part(scale, start, stop) + part(offset, start, stop)

    def part(values: NDArray[np.float32] | None, start: int, stop: int) -> NDArray[np.float32]:
        assert values is not None  # noqa: S101 - as checked above
        if len(values) == 1:
            return values
        chosen = values[start:stop] if axis == 0 else values
        return chosen.reshape([-1 if place == axis else 1 for place in range(len(shape))])

    return computed("float32", shape, rows, precision=f"int{field.bits} coreml", stored=field.size)


def program_value(value: Message, companions: Companions, name: str) -> LazyTensor | None:
    """The value of a constant of a program; None if it is text or of a type that holds no numbers.

    Raises
    ------
    WeightsError
        Its numbers do not fit its shape; when it is read, its blob is not where the model says.
    UnsafeError
        It has more dimensions than an array, or its file is outside the model's folder.
    """
    kind, shape = 0, None
    place: tuple[int, Message] | None = None
    for each in value:
        if each.number == 2:
            kind, shape = _tensor_type(value.message(each))
        elif each.number in (3, 5):
            place = (each.number, value.message(each))
    if shape is None or place is None or kind not in _TYPES:
        return None
    dtype, bits, blob_type = _TYPES[kind]
    size = (math.prod(shape) * bits + 7) // 8
    if place[0] == 5:
        stored = _blob(place[1], companions, name, size, blob_type)
    else:
        found = _immediate(place[1], dtype, bits, shape, size)
        if not isinstance(found, _Bytes):
            return found
        stored = found.tensor
    if bits >= 8 and dtype != "uint1":
        return replace(stored, dtype=dtype, shape=shape)
    return _unpacked(stored, dtype, bits, shape)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Bytes that are the numbers of a value as they are stored."""

    tensor: LazyTensor


def _tensor_type(message: Message) -> tuple[int, tuple[int, ...] | None]:
    """Type and shape of a ValueType; no shape of a value that is no tensor, or has unknown extents."""
    kind, shape = 0, []
    tensor = next(message.messages(1), None)
    if tensor is None:
        return 0, None
    for each in tensor:
        if each.number == 1:
            kind = each.value
        elif each.number == 3:
            constant = next(tensor.message(each).messages(1), None)
            if constant is None:
                return kind, None
            shape.append(next((part.value for part in constant if part.number == 1), 0))
            if len(shape) > _MAX_AXES:
                raise UnsafeError(f"{message.file.name} has a value of more than {_MAX_AXES} dimensions", REMEDY)
    if any(extent >= 2**62 for extent in shape):
        raise WeightsError(f"{message.file.name} has a value of shape {str(tuple(shape))[:80]}", REMEDY)
    return kind, tuple(shape)


def _immediate(
    message: Message, dtype: str, bits: int, shape: tuple[int, ...], size: int
) -> _Bytes | LazyTensor | None:
    """The numbers of a value within the model: bytes as they are, or a list of integers."""
    file = message.file
    tensor = next(message.messages(1), None)
    holder = next((each for each in tensor if each.wire == BYTES), None) if tensor is not None else None
    if tensor is None or holder is None:
        return None if size else _Bytes(in_file(file, message.start, "uint8", (0,)))
    values = [each for each in tensor.message(holder) if each.number == 1]
    inner = tensor.message(holder)
    if holder.number == 4:
        return None
    if holder.number == 7 or ((holder.number, dtype) in _AS_THEY_ARE and len(values) == 1 and values[0].size):
        start, count = (values[0].start, values[0].size) if values else (message.start, 0)
        if count != size:
            raise WeightsError(
                f"{file.name}: a value of shape {str(shape)[:80]} takes {size} bytes, and has {count}", REMEDY
            )
        return _Bytes(in_file(file, start, "uint8", (count,)))
    if sum(max(1, each.size) for each in values) > 8 * _LARGEST_LIST:
        raise UnsafeError(f"{file.name} has a list of more than {_LARGEST_LIST} numbers", REMEDY)
    if holder.number in _LISTS:
        parts = [inner.numbers(each, _LISTS[holder.number]) for each in values]
        found = np.concatenate(parts) if parts else np.zeros(0, _LISTS[holder.number])
    else:
        found = np.array([number for each in values for number in inner.integers(each)], np.int64)
    if len(found) != math.prod(shape):
        raise WeightsError(f"{file.name}: a value of shape {str(shape)[:80]} has {len(found)} numbers", REMEDY)
    kind = dtype if bits >= 8 and dtype != "bfloat16" and not dtype.startswith("float8") else "int64"
    return in_memory(found.astype(kind).reshape(shape))


def _blob(message: Message, companions: Companions, name: str, size: int, blob_type: int) -> LazyTensor:
    """The bytes of a blob, whose header is read with them."""
    location, at = "", 0
    for each in message:
        if each.number == 1:
            location = message.text(each)
        elif each.number == 2:
            at = each.value
    location = location.removeprefix(_MODEL_PATH)
    whole = companions.tensor(name, {"location": location, "offset": str(at), "length": "64"}, 64)

    def span(start: int, stop: int) -> memoryview:
        mark, kind, stated, place = struct.unpack_from("<IIQQ", whole.span(0, 24))
        if mark != _MARK or kind != blob_type or stated < size or place % 4:
            raise WeightsError(
                f"{message.file.name}: {name[:80]!r} has no blob of {size} bytes and type {blob_type} at byte {at} of "
                f"{location[:80]}",
                REMEDY,
            )
        return memoryview(companions.read(name, location, place + start, stop - start))

    return LazyTensor("uint8", (size,), span)


def _unpacked(stored: LazyTensor, dtype: str, bits: int, shape: tuple[int, ...]) -> LazyTensor:
    """Integers of less than a byte, the first in the low bits, as int8 or uint8."""
    row = math.prod(shape[1:])

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        first = start * row // 8 * 8  # where a byte begins
        data = np.frombuffer(stored.span(first * bits // 8, (stop * row * bits + 7) // 8), np.uint8)
        codes = unpack_fields(data, bits, stop * row - first)[start * row - first :]
        found = sign_extended(codes, bits) if dtype.startswith("int") else codes
        return found.reshape(stop - start, *shape[1:]) if shape else found

    return computed("int8" if dtype.startswith("int") else "uint8", shape, rows, precision=dtype, stored=stored.bytes)
