"""Tensors that are read from a file when they are asked for, and the checkpoint that they make up.

A reader of a format finds the tensors in the header of a file, says where the bytes of each lie and how they are laid
out, and makes a `LazyCheckpoint` of them. Nothing is read before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, OpenedCheckpoint
from registry.sources.dtypes import bits_of, decode, decode_any, is_float
from registry.types import NO_FACTS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource
    from registry.types import ModelFacts, ModelRef

__all__ = ["LazyCheckpoint", "LazyTensor", "computed", "in_file", "in_memory", "joined", "regated", "turned"]


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor whose bytes are read when asked for.

    ``dtype`` is torch's name, ``shape`` that of the values. ``span(start, stop)`` gives their bytes, little-endian in C
    order. ``precision``: how the values are stored, if ``dtype`` does not say (``q4_k gguf``, ``int8 tflite``).
    ``stored``: bytes that the tensor takes in its file; None: as many as its values. ``whole``: any span costs as much
    as all of it, so that the checkpoint keeps the last such tensor until another is asked for.
    """

    dtype: str
    shape: tuple[int, ...]
    span: Callable[[int, int], memoryview]
    precision: str = ""
    stored: int | None = None
    whole: bool = False

    @property
    def bytes(self) -> int:
        """Size of the values in bytes."""
        return (math.prod(self.shape) * bits_of(self.dtype) + 7) // 8

    def values(self) -> NDArray[np.generic]:
        """All values: float32 or float64 of a floating-point dtype, integers and booleans as they are."""
        return decode_any(self.span(0, self.bytes), self.dtype, self.shape)


class LazyCheckpoint(OpenedCheckpoint):
    """Tensors by name that are read one at a time. Memory in use is that of the tensor last read.

    ``files`` are closed with it. ``check``: what `verify` does, for formats with checksums.

    Raises
    ------
    UnsafeError
        More than a million tensors, or a name or number of dimensions beyond the bounds of `OpenedCheckpoint`.
    """

    def __init__(
        self,
        ref: ModelRef,
        tensors: Mapping[str, LazyTensor],
        facts: ModelFacts = NO_FACTS,
        *,
        files: Sequence[ByteSource] = (),
        check: Callable[[], None] | None = None,
    ) -> None:
        if len(tensors) > MAX_TENSORS:
            raise UnsafeError(f"{ref.target} holds {len(tensors)} tensors, more than {MAX_TENSORS}", "split the file")
        super().__init__(ref, [TensorInfo(name, t.dtype, t.shape) for name, t in tensors.items()], facts)
        self._by_name = dict(tensors)
        self._files = files
        self._check = check
        self._last: tuple[str, memoryview] = ("", memoryview(b""))
        self.precisions = {name: t.precision for name, t in tensors.items() if t.precision}
        self.stored_sizes = {name: t.stored for name, t in tensors.items() if t.stored is not None}

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64."""
        tensor = self._by_name[name]
        if not is_float(tensor.dtype):
            raise WeightsError(
                f"tensor {name} is {tensor.dtype}, not floating point", "only floating weights have spectra"
            )
        return decode(self.raw(name), tensor.dtype, tensor.shape)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order."""
        self._check_open()
        tensor = self._by_name[name]
        return tensor.span(0, tensor.bytes)

    def bytes_of(self, name: str) -> int:
        """Size of the tensor's values in bytes."""
        self._check_open()
        return self._by_name[name].bytes

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor's values."""
        self._check_open()
        tensor = self._by_name[name]
        size = tensor.bytes
        start, stop = min(start, size), min(stop, size)
        if not tensor.whole or (start, stop) == (0, size):
            return tensor.span(start, stop)
        if self._last[0] != name:
            self._last = ("", memoryview(b""))  # before the next is read, so that there are never two
            self._last = (name, tensor.span(0, size))
        return self._last[1][start:stop]

    def verify(self) -> None:
        """Compare the checksums of the format with its data, where it has any."""
        self._check_open()
        if self._check is not None:
            self._check()

    def close(self) -> None:
        """Close the files."""
        super().close()
        self._last = ("", memoryview(b""))
        for file in self._files:
            file.close()


def in_file(
    file: ByteSource, offset: int, dtype: str, shape: Sequence[int], *, big: bool = False, fortran: bool = False
) -> LazyTensor:
    """A tensor whose elements lie without gaps at ``offset`` in a file, in C order (``fortran``: Fortran's).

    ``big``: big-endian. Nothing is read.

    Raises
    ------
    WeightsError
        An extent is negative or one that no array has, or the elements reach beyond the file.
    """
    shape = tuple(int(extent) for extent in shape)
    stored = LazyTensor(dtype, shape[::-1] if fortran else shape, lambda start, stop: read(start, stop))
    if any(not 0 <= extent < 2**62 for extent in shape) or offset < 0 or offset + stored.bytes > file.size:
        raise WeightsError(
            f"{file.name} claims a tensor of shape {_short(shape)} at byte {offset}, and has {file.size} bytes",
            "download or save it again",
        )

    width = 1
    if big and dtype not in ("bool",):
        width = max(1, bits_of(dtype) // 8) // (2 if dtype.startswith("complex") else 1)

    def read(start: int, stop: int) -> memoryview:
        low, high = start - start % width, -(-stop // width) * width
        data = file.read_at(offset + low, high - low)
        if width > 1:
            data = bytearray(np.frombuffer(data, f"u{width}").byteswap().tobytes())
        return memoryview(data)[start - low : stop - low]

    if fortran and len(shape) > 1:
        return turned(stored, tuple(range(len(shape)))[::-1])
    return stored


def in_memory(array: NDArray[np.generic]) -> LazyTensor:
    """A tensor that is an array of numbers already. Raises ``WeightsError`` for other arrays."""
    if array.dtype.kind not in "biufc":
        raise WeightsError(f"an array is of type {array.dtype}, which is no number", "give numbers")
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
    return LazyTensor(array.dtype.name, array.shape, lambda start, stop: little[start:stop])


def computed(
    dtype: str,
    shape: Sequence[int],
    rows: Callable[[int, int], NDArray[np.generic]],
    *,
    precision: str = "",
    stored: int | None = None,
    whole: bool = False,
) -> LazyTensor:
    """A tensor whose values are computed: ``rows(start, stop)`` gives indices of the first axis, of NumPy's ``dtype``.

    A tensor without axes is ``rows(0, 1)``.
    """
    shape = tuple(int(extent) for extent in shape)
    count = shape[0] if shape else 1
    width = math.prod(shape[1:]) * bits_of(dtype) // 8

    def span(start: int, stop: int) -> memoryview:
        if stop <= start or not width:
            return memoryview(b"")
        low, high = start // width, min(count, -(-stop // width))
        values = np.ascontiguousarray(rows(low, high), np.dtype(dtype).newbyteorder("<"))
        data: memoryview = values.reshape(-1).view(np.uint8).data
        return data[start - low * width : stop - low * width]

    return LazyTensor(dtype, shape, span, precision, stored, whole)


def turned(
    tensor: LazyTensor,
    axes: Sequence[int],
    shape: Sequence[int] | None = None,
    *,
    mirrored: Sequence[int] = (),
) -> LazyTensor:
    """A tensor with its axes in another order, then reshaped. It is read whole.

    Parameters
    ----------
    tensor
        As stored.
    axes
        The stored axis that each new axis is, as `numpy.transpose` takes them.
    shape
        The shape after that; None: that of the turned axes. It has as many elements.
    mirrored
        New axes along which the order of indices is reversed (kernels of transposed convolutions).
    """
    axes = tuple(axes)
    split = tuple(tensor.shape[axis] for axis in axes)
    flips = tuple(slice(None, None, -1 if axis in mirrored else 1) for axis in range(len(axes)))
    width = bits_of(tensor.dtype) // 8
    new = split if shape is None else tuple(int(extent) for extent in shape)
    if width < 1 or math.prod(new) != math.prod(tensor.shape):
        raise WeightsError(f"a tensor of shape {_short(tensor.shape)} cannot be laid out as {_short(new)}", "report it")
    if math.prod(tensor.shape) == 0 or (axes == tuple(range(len(axes))) and not mirrored):
        return replace(tensor, shape=new)

    def span(start: int, stop: int) -> memoryview:
        stored = np.frombuffer(tensor.span(0, tensor.bytes), f"V{width}").reshape(tensor.shape)
        data: memoryview = np.ascontiguousarray(stored.transpose(axes)[flips]).reshape(-1).view(np.uint8).data
        return data[start:stop]

    return replace(tensor, shape=new, span=span, whole=True)


def joined(parts: Sequence[LazyTensor]) -> LazyTensor:
    """Tensors of one shape and type, one behind the other along the first axis.

    Raises ``WeightsError`` if they differ.
    """
    first = parts[0]
    if not first.shape or any((part.shape, part.dtype) != (first.shape, first.dtype) for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts[:8])
        raise WeightsError(f"parts of a tensor have the shapes {shapes[:200]}", "convert or save the model again")
    size = first.bytes

    def span(start: int, stop: int) -> memoryview:
        found = []
        for place, part in enumerate(parts):
            low, high = max(start, place * size), min(stop, (place + 1) * size)
            if low < high:
                found.append(part.span(low - place * size, high - place * size))
        return found[0] if len(found) == 1 else memoryview(b"".join(found))

    stored = sum(part.bytes if part.stored is None else part.stored for part in parts)
    shape = (first.shape[0] * len(parts), *first.shape[1:])
    plain = stored if any(part.stored is not None for part in parts) else None
    return LazyTensor(first.dtype, shape, span, first.precision, plain, any(part.whole for part in parts))


def regated(tensor: LazyTensor, order: Sequence[int]) -> LazyTensor:
    """A tensor of gates one behind the other along the first axis, in another order. It is read whole.

    Raises ``WeightsError`` if it cannot be cut into so many.
    """
    if not tensor.shape or tensor.shape[0] % len(order):
        raise WeightsError(
            f"a recurrent layer of {len(order)} gates has weights of shape {_short(tensor.shape)}",
            "convert or save the model again",
        )
    if list(order) == list(range(len(order))):
        return tensor
    size = tensor.bytes // len(order)

    def span(start: int, stop: int) -> memoryview:
        data = tensor.span(0, tensor.bytes)
        return memoryview(b"".join(data[gate * size : (gate + 1) * size] for gate in order))[start:stop]

    return replace(tensor, span=span, whole=True)


def _short(shape: Sequence[int]) -> str:
    return str(tuple(shape))[:80]
