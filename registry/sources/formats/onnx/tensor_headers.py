"""Tensors of ONNX as they are stored: in the model, in an attribute of a node, or in a file beside the model.

Only the header of a tensor is read: name, type, dimensions, and where the data lie. Types below eight bits are packed,
low bits first. Source: ``onnx.proto`` (TensorProto, SparseTensorProto), and "External Data" of onnx.ai.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of, decode_any
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_file
from registry.sources.files.wire import BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.sources.files.companions import Companions
    from registry.sources.files.wire import Field, Message

__all__ = ["ELEMENT_TYPES", "Stored", "integers_of", "stored_tensor", "tensor_of"]

# TensorProto.DataType -> torch's name; those of less than eight bits under the names that ONNX has for them.
ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}  # fmt: skip
_PACKED = {"uint4": 4, "int4": 4, "float4e2m1": 4, "uint2": 2, "int2": 2}
_FLOAT4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_MAX_DIMENSIONS = 64
_MAX_SMALL = 1 << 16  # elements of a tensor whose integers are read when a model is opened: shapes, axes
_MAX_PLACES = 1 << 20  # pieces that the values of one tensor may be split into
_MAX_DENSE = 1 << 24  # elements of a sparse tensor
_DAMAGED = "download or export it again"


@dataclass(slots=True)
class Stored:
    """The header of a tensor.

    ``key`` is the same for the same tensor of a file. ``kind``: ``raw`` (little-endian bytes at ``start``), ``typed``
    (numbers of the field for its type, at ``places``), ``external`` (``outside`` has location, offset and length),
    ``sparse``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    key: int
    kind: str = "raw"
    start: int = 0
    size: int = 0
    places: list[tuple[int, int, int]] = field(default_factory=list)
    wide: int = 0
    outside: dict[str, str] = field(default_factory=dict)
    parts: tuple[Stored, ...] = ()

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether its values are floating-point numbers of 16 bits or more."""
        return self.dtype in ("float16", "bfloat16", "float32", "float64")


def stored_tensor(message: Message) -> Stored:
    """The header of a TensorProto.

    Raises
    ------
    WeightsError
        Type or dimensions are none that ONNX has.
    UnsafeError
        It has more dimensions or pieces than any tensor.
    """
    found = Stored("", "", (), message.start)
    shape: list[int] = []
    code = location = 0
    raw = False
    for each in message:
        number = each.number
        if number == 1:
            shape += message.integers(each)
            if len(shape) > _MAX_DIMENSIONS:
                raise _unsafe(message, f"more than {_MAX_DIMENSIONS} dimensions")
        elif number == 2:
            code = each.value
        elif number == 8:
            found.name = message.text(each)
        elif number == 9:
            raw, found.start, found.size = True, each.start, each.size
        elif number in (4, 5, 7, 10, 11):
            _add_place(message, found, each)
        elif number == 13:
            key, value = _pair(message.message(each))
            found.outside[key] = value
            if len(found.outside) > 64:
                raise _unsafe(message, "more than 64 entries on external data")
        elif number == 14:
            location = each.value
    if any(extent < 0 for extent in shape) or code not in ELEMENT_TYPES:
        what = f"dimensions {str(shape)[:80]}" if code in ELEMENT_TYPES else f"an element type {code}"
        raise WeightsError(f"{message.file.name}: tensor {found.name[:80]!r} has {what}, which ONNX has not", _DAMAGED)
    found.dtype, found.shape = ELEMENT_TYPES[code], tuple(shape)
    found.kind = "external" if location == 1 else "raw" if raw else "typed"
    return found


def sparse_tensor(message: Message) -> Stored:
    """The header of a SparseTensorProto; its dense form has at most 16 million elements."""
    values = indices = None
    shape: list[int] = []
    for each in message:
        if each.number == 1:
            values = stored_tensor(message.message(each))
        elif each.number == 2:
            indices = stored_tensor(message.message(each))
        elif each.number == 3:
            shape += message.integers(each)
            if len(shape) > _MAX_DIMENSIONS:
                raise _unsafe(message, f"more than {_MAX_DIMENSIONS} dimensions")
    if values is None or indices is None or any(extent < 0 for extent in shape):
        raise WeightsError(f"{message.file.name} holds a sparse tensor without values or indices", _DAMAGED)
    if math.prod(shape) > _MAX_DENSE:
        raise UnsafeError(
            f"{message.file.name}: sparse tensor {values.name[:80]!r} has {math.prod(shape)} elements when dense, "
            f"more than {_MAX_DENSE}",
            "export the weights dense",
        )
    return Stored(values.name, values.dtype, tuple(shape), message.start, "sparse", parts=(values, indices))


def _unsafe(message: Message, what: str) -> UnsafeError:
    return UnsafeError(f"{message.file.name} holds a tensor with {what}", "export the model again")


def _pair(message: Message) -> tuple[str, str]:
    """A StringStringEntryProto."""
    pair = {1: "", 2: ""}
    for each in message:
        if each.number in pair:
            pair[each.number] = message.data(each, 4096).decode("utf-8", "replace")
    return pair[1], pair[2]


def _add_place(message: Message, found: Stored, each: Field) -> None:
    """Note where numbers are: a packed field, or single ones, which are kept as they are."""
    if len(found.places) >= _MAX_PLACES:
        raise _unsafe(message, f"values in more than {_MAX_PLACES} pieces")
    if each.wire == BYTES:
        found.places.append((each.number, each.start, each.stop))
    else:
        found.places.append((-each.number, each.value, 0))


def tensor_of(stored: Stored, message: Message, companions: Companions) -> LazyTensor:
    """The tensor of a header, read when asked for.

    Integers of two or four bits come as int8 or uint8, float4e2m1 as float32.

    Parameters
    ----------
    stored
        Its header.
    message
        Any message of the file that it is in.
    companions
        The files beside the model.

    Raises
    ------
    WeightsError
        The data are not as many as its shape and type say.
    """
    file, dtype, shape = message.file, stored.dtype, stored.shape
    if dtype == "string":
        raise WeightsError(f"{file.name}: tensor {stored.name[:80]!r} holds text in place of numbers", _DAMAGED)
    if stored.kind == "sparse":
        return _dense(stored, message, companions)
    bits = _PACKED.get(dtype) or bits_of(dtype)
    size = -(-stored.elements * bits // 8)
    if stored.kind == "typed":
        return _typed(stored, message, size)
    if stored.kind == "external":
        flat = companions.tensor(stored.name, stored.outside, size)
    elif stored.size != size:
        raise WeightsError(
            f"{file.name}: tensor {stored.name[:80]!r} of shape {str(shape)[:80]} and type {dtype} takes {size} bytes, "
            f"and has {stored.size}",
            _DAMAGED,
        )
    else:
        flat = in_file(file, stored.start, "uint8", (size,))
    if dtype in _PACKED:
        return _unpacked(dtype, shape, lambda: np.frombuffer(flat.span(0, size), np.uint8))
    return LazyTensor(dtype, shape, flat.span)


def _unpacked(dtype: str, shape: tuple[int, ...], codes: Callable[[], NDArray[np.uint8]]) -> LazyTensor:
    """Values of a type of less than eight bits from the bytes that hold them."""
    bits = _PACKED[dtype]
    count = math.prod(shape)

    def values(_: int, __: int) -> NDArray[np.generic]:
        packed = codes()
        parts = [packed >> np.uint8(shift) & np.uint8(2**bits - 1) for shift in range(0, 8, bits)]
        flat = np.stack(parts, 1).reshape(-1)[:count]
        if dtype == "float4e2m1":
            return _FLOAT4[flat]
        if dtype.startswith("int"):
            half = np.int8(2 ** (bits - 1))
            return (flat.astype(np.int8) ^ half) - half
        return flat

    kind = {"float4e2m1": "float32"}.get(dtype, "int8" if dtype.startswith("int") else "uint8")
    flat = computed(kind, (count,), lambda start, stop: values(start, stop)[start:stop], whole=True)
    return LazyTensor(kind, shape, flat.span, dtype, -(-count * bits // 8), whole=True)


# The field in which numbers of a type lie where they are not raw.
_FIELDS = {"float32": 4, "complex64": 4, "int64": 7, "float64": 10, "complex128": 10, "uint32": 11, "uint64": 11}


def _typed(stored: Stored, message: Message, size: int) -> LazyTensor:
    """A tensor whose numbers are those of a repeated field: floats of fixed width, or integers of varying width."""
    number = _FIELDS.get(stored.dtype, 5)
    places = [place for place in stored.places if abs(place[0]) == number]
    width = {4: 4, 10: 8}.get(number, 0)
    count = size if stored.dtype in _PACKED else stored.elements
    least = sum(stop - start if kind > 0 else max(1, width) for kind, start, stop in places)
    if (width and least != size) or least < count:
        raise WeightsError(
            f"{message.file.name}: tensor {stored.name[:80]!r} of shape {str(stored.shape)[:80]} has {least} bytes of "
            f"numbers, and needs {size if width else count}",
            _DAMAGED,
        )
    if width and len(places) == 1 and places[0][0] > 0:
        return in_file(message.file, places[0][1], stored.dtype, stored.shape)

    def flat() -> NDArray[np.generic]:
        parts = [_numbers(message, place, width) for place in places]
        joined: NDArray[np.generic] = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        if not width and len(joined) != count:
            raise WeightsError(
                f"{message.file.name}: tensor {stored.name[:80]!r} of {count} values has {len(joined)}", _DAMAGED
            )
        return joined

    if stored.dtype in _PACKED:
        return _unpacked(stored.dtype, stored.shape, lambda: flat().astype(np.uint8))
    kind = {"float16": "<u2", "bfloat16": "<u2", "bool": "u1"}.get(
        stored.dtype, f"<u{max(1, bits_of(stored.dtype) // 8)}"
    )

    def span(start: int, stop: int) -> memoryview:
        values = flat() if width else flat().view(np.uint64).astype(kind)
        data: memoryview = np.ascontiguousarray(values).view(np.uint8).data
        return data[start:stop]

    return LazyTensor(stored.dtype, stored.shape, span, whole=True)


def _numbers(message: Message, place: tuple[int, int, int], width: int) -> NDArray[np.generic]:
    kind, start, stop = place
    if kind < 0:
        return np.frombuffer(start.to_bytes(8, "little")[: width or 8], {4: "<f4", 8: "<f8"}.get(width, "<i8"))
    data = np.frombuffer(message.file.read_at(start, stop - start), np.uint8)
    if width:
        return data.view(f"<f{width}")
    return _varints(data, message)


def _varints(data: NDArray[np.uint8], message: Message) -> NDArray[np.int64]:
    """Integers of varying width, of at most ten bytes each, seven bits a byte, the low ones first."""
    ends = np.flatnonzero(data < 128)
    if not len(data):
        return np.zeros(0, np.int64)
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, np.int64)
    lengths = ends - begins + 1
    if not len(ends) or ends[-1] != len(data) - 1 or lengths.max() > 10:
        raise WeightsError(f"{message.file.name} is damaged: it has a number that is cut off", _DAMAGED)
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max())):
        longer = lengths > place
        part = (data[begins[longer] + place] & 127).astype(np.uint64)
        values[longer] |= part << np.uint64(7 * place)
    return values.view(np.int64)


def _dense(stored: Stored, message: Message, companions: Companions) -> LazyTensor:
    """A sparse tensor with its zeros; indices are flat, or a row of coordinates for each value."""
    values, indices = (tensor_of(part, message, companions) for part in stored.parts)
    count = math.prod(values.shape)
    flat = len(indices.shape) == 1
    if indices.dtype != "int64" or indices.shape not in ((count,), (count, len(stored.shape))):
        raise WeightsError(f"{message.file.name}: a sparse tensor has indices that do not fit its values", _DAMAGED)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        places = np.asarray(indices.values())
        if not flat:
            inside = ((places >= 0) & (places < np.array(stored.shape))).all()
            places = places @ np.array(
                [math.prod(stored.shape[axis + 1 :]) for axis in range(len(stored.shape))], np.int64
            )
        else:
            inside = ((places >= 0) & (places < stored.elements)).all()
        if not inside:
            raise WeightsError(f"{message.file.name}: a sparse tensor has indices outside its shape", _DAMAGED)
        kind = f"V{bits_of(values.dtype) // 8}"
        dense = np.zeros(stored.elements, kind)
        dense[places] = np.frombuffer(values.span(0, values.bytes), kind)
        return dense.view(np.uint8)[start:stop]

    size = stored.elements * bits_of(values.dtype) // 8
    data = computed("uint8", (size,), rows, whole=True)
    return LazyTensor(values.dtype, stored.shape, data.span, stored=values.bytes + indices.bytes, whole=True)


def integers_of(tensor: LazyTensor) -> list[int] | None:
    """The values of a small tensor of integers, such as a shape; None of any other tensor."""
    if math.prod(tensor.shape) > _MAX_SMALL or tensor.dtype not in ("int64", "int32"):
        return None
    return [int(value) for value in decode_any(tensor.span(0, tensor.bytes), tensor.dtype, tensor.shape).reshape(-1)]
