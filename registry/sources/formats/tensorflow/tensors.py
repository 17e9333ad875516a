"""TensorFlow's messages of tensors and shapes, and its numbers of dtypes.

Source: ``tensor.proto``, ``tensor_shape.proto`` and ``types.proto`` in ``tensorflow/core/framework``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_file
from registry.sources.files.wire import BYTES
from registry.sources.weight_files import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.sources.files.wire import Field, Message

__all__ = ["DTYPES", "Ahead", "plain_type", "shape_in", "short", "tensor_in"]

DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    11: "int8", 12: "uint8", 13: "int32", 14: "bfloat16", 15: "int16", 16: "uint16", 17: "uint16", 18: "complex128",
    19: "float16", 22: "uint32", 23: "uint64", 24: "float8_e5m2", 25: "float8_e4m3fn",
}  # fmt: skip
"""torch's name of a dtype by TensorFlow's number; texts, resources and types below 8 bits are left out."""

_REFERENCE = 100  # added to the number of a reference to a variable
# By dtype: the field of repeated values, and their width in the message; None: varints.
_FIELDS: dict[str, tuple[int, str | None]] = {
    "float32": (5, "<f4"), "float64": (6, "<f8"), "complex64": (9, "<f4"), "complex128": (12, "<f8"),
    "int64": (10, None), "bool": (11, None), "uint32": (16, None), "uint64": (17, None),
    "float16": (13, None), "bfloat16": (13, None),
}  # fmt: skip
_CONTENT, _INTEGERS = 4, 7
_AHEAD = 2**20
_REPEATED = 2**26  # bytes of a tensor that is mostly one value


class Ahead(ByteSource):
    """A file of which a megabyte is read ahead, so that many small parts in a row cost one reading."""

    def __init__(self, file: ByteSource) -> None:
        self.name = file.name
        self.size = file.size
        self._file = file
        self._start = 0
        self._data: bytes | bytearray = b""

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        inside = start - self._start
        if inside < 0 or inside + count > len(self._data):
            if count > _AHEAD // 16 or start < 0 or start + count > self.size:
                return self._file.read_at(start, count)
            self._data = self._file.read_at(start, min(_AHEAD, self.size - start))
            self._start, inside = start, 0
        return self._data[inside : inside + count]

    def close(self) -> None:
        """Close the file."""
        self._data = b""
        self._file.close()


def short(name: str) -> str:
    """A name from a file, as a message may have it: printable and of at most 80 characters."""
    return printable(name[:80].encode("utf-8", "backslashreplace").decode())[:160]


def plain_type(number: int) -> str:
    """The name in torch of a dtype, also of references to variables; empty for what holds no numbers."""
    return DTYPES.get(number - _REFERENCE if number > _REFERENCE else number, "")


def shape_in(message: Message) -> tuple[int, ...]:
    """The extents of a TensorShapeProto. Raises ``WeightsError`` for more than 255 axes or negative extents."""
    extents: list[int] = []
    for dim in message.messages(2):
        size = 0
        for field in dim:
            if field.number == 1:
                size = field.value
        if size >= 2**63 or len(extents) > 254:
            raise WeightsError(f"{message.file.name} has a tensor of unknown or unending shape", "save it again")
        extents.append(size)
    return tuple(extents)


def tensor_in(message: Message, dtype: str = "", shape: tuple[int, ...] = ()) -> LazyTensor | None:
    """The tensor of a TensorProto; None if it holds no numbers. Its values are read when asked for.

    A message with fewer values than elements repeats the last one. ``dtype`` and ``shape``: of a message that has none.

    Raises
    ------
    WeightsError
        It has more values than its shape, or bytes that do not fill it.
    """
    kind = 0
    content: Field | None = None
    values: dict[int, list[Field]] = {}
    for field in message:
        if field.number == 1:
            kind = field.value
        elif field.number == 2:
            shape = shape_in(message.message(field))
        elif field.number == _CONTENT and field.wire == BYTES:
            content = field
        elif field.number >= 5:
            values.setdefault(field.number, []).append(field)
    dtype = plain_type(kind) if kind else dtype
    if not dtype:
        return None
    size = (math.prod(shape) * bits_of(dtype) + 7) // 8
    if content is not None and content.size:
        if content.size != size:
            raise _unfit(message, shape, f"{content.size} bytes")
        return in_file(message.file, content.start, dtype, shape)
    number, width = _FIELDS.get(dtype, (_INTEGERS, None))
    fields = values.get(number, [])
    if width and len(fields) == 1 and fields[0].wire == BYTES and fields[0].size == size:
        return in_file(message.file, fields[0].start, dtype, shape)
    if not math.prod(shape):
        return in_file(message.file, 0, dtype, shape)
    return _repeated(message, fields, dtype, shape, width)


def _repeated(
    message: Message, fields: Sequence[Field], dtype: str, shape: tuple[int, ...], width: str | None
) -> LazyTensor:
    """A tensor of values in fields of their own, the last one repeated; zeros if there are none."""
    held = sum(field.size if field.wire == BYTES else 8 for field in fields)

    def stated() -> NDArray[np.generic]:
        if width:
            parts = [message.numbers(field, width) for field in fields]
            flat = np.concatenate(parts) if parts else np.zeros(0, width)
        else:
            flat = np.array([value for field in fields for value in message.integers(field)], np.int64)
        if dtype in ("float16", "bfloat16"):
            flat = flat.astype(np.uint16)
        elif not width:
            flat = flat.astype(dtype)
        return flat

    count = math.prod(shape)
    per = 2 if dtype.startswith("complex") else 1
    # A tensor that is one value repeated takes no bytes in the file, so that its size has a bound of its own.
    if count * bits_of(dtype) // 8 > _REPEATED and held < count // 8:
        raise _unfit(message, shape, f"{held} bytes")

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        flat = stated()
        low, high = start * row * per, stop * row * per
        if len(flat) > count * per:
            raise _unfit(message, shape, f"{len(flat)} values")
        known = flat[low:high]
        last = flat[len(flat) - per :] if len(flat) else np.zeros(per, flat.dtype)
        return np.concatenate([known, np.resize(last, high - low - len(known))])

    row = count // shape[0] if shape else 1
    if per == 2 or dtype == "bfloat16":  # no type of NumPy for `computed`

        def span(start: int, stop: int) -> memoryview:
            data: memoryview = np.ascontiguousarray(rows(0, shape[0] if shape else 1)).view(np.uint8).data
            return data[start:stop]

        return LazyTensor(dtype, shape, span, whole=True)
    if dtype == "float16":
        return computed(dtype, shape, lambda a, b: rows(a, b).view(np.float16), stored=held)
    return computed(dtype, shape, rows, stored=held)


def _unfit(message: Message, shape: tuple[int, ...], what: str) -> WeightsError:
    return WeightsError(
        f"{message.file.name} has a tensor of shape {str(shape)[:80]} with {what}", "download or save it again"
    )
