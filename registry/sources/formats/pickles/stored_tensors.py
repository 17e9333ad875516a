"""What a pickle's tensors and arrays have in common: a shape, a type of elements, and a place in the file."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.lazy_tensors import LazyTensor, in_file
from registry.sources.formats.pickles.pickle_records import Buildable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource

__all__ = ["DAMAGED", "RefusedTensor", "StoredTensor", "extents", "is_contiguous", "strided"]

DAMAGED = "download or save it again"
_MAX_DIMENSIONS = 64  # of NumPy and torch
_MAX_EXTENT = 2**48


class StoredTensor(Buildable):
    """A tensor of a file: ``dtype`` is torch's name, ``shape`` that of the values."""

    __slots__ = ()

    dtype: str
    shape: tuple[int, ...]

    @property
    @abstractmethod
    def place(self) -> Hashable:
        """What two tensors have in common that are the same memory, looked at in the same way."""

    @property
    @abstractmethod
    def memory(self) -> tuple[int, int]:
        """Bytes that the elements take, and bytes of the storage that they are in."""

    @abstractmethod
    def lazy(self, name: str) -> LazyTensor:
        """The tensor, to be read when asked for. Raises ``WeightsError``, which names it, where that cannot be."""

    def build(self, state: object) -> None:
        """Attributes of a tensor, which none of them needs."""


class RefusedTensor(StoredTensor):
    """A tensor that is not read: what is said of it, and the remedy."""

    __slots__ = ("dtype", "remedy", "shape", "why")

    def __init__(self, why: str, remedy: str, shape: tuple[int, ...] = (), dtype: str = "float32") -> None:
        self.why = why
        self.remedy = remedy
        self.shape = shape
        self.dtype = dtype

    @property
    def place(self) -> Hashable:
        """The record itself."""
        return id(self)

    @property
    def memory(self) -> tuple[int, int]:
        """Nothing is read."""
        return 0, 0

    def lazy(self, name: str) -> LazyTensor:
        """Raises ``WeightsError``."""
        raise WeightsError(f"tensor {name} {self.why}", self.remedy)


def extents(values: object) -> tuple[int, ...]:
    """Extents, strides or coordinates of a pickle as integers; raises ``ValueError`` for anything else."""
    if not isinstance(values, tuple | list):
        raise ValueError("extents are no tuple")
    if len(values) > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(values)} dimensions")
    for value in values:
        if type(value) is not int or not 0 <= value < _MAX_EXTENT:
            raise ValueError("an extent is no number of elements")
    return tuple(values)


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements follow each other in C order; the strides of axes of one index do not matter."""
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1:
            if stride != step:
                return False
            step *= extent
    return True


def strided(
    source: ByteSource,
    offset: int,
    dtype: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    big: bool = False,
    changed: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None,
) -> LazyTensor:
    """A tensor of any strides, in elements, whose first element is at ``offset`` in a file.

    It is read at once, with what lies between its elements. ``changed`` is applied to its elements, of NumPy's dtype.
    """
    size = math.prod(shape)
    if not size or (changed is None and is_contiguous(shape, strides)):
        return in_file(source, offset, dtype, shape, big=big)
    width = bits_of(dtype) // 8
    extent = 1 + sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
    if width < 1 or offset < 0 or offset + extent * width > source.size:
        raise UnsafeError(f"{source.name} claims a tensor beyond its end", DAMAGED)

    def span(start: int, stop: int) -> memoryview:
        data = np.frombuffer(source.read_at(offset, extent * width), np.uint8)
        part = width // 2 if dtype.startswith("complex") else width
        if big and part > 1:
            data = np.frombuffer(data.view(f"u{part}").byteswap().tobytes(), np.uint8)
        elements = data.view(f"V{width}")
        view = np.lib.stride_tricks.as_strided(elements, shape, [stride * width for stride in strides], writeable=False)
        values = np.ascontiguousarray(view)
        if changed is not None:
            values = np.ascontiguousarray(changed(values.view(np.dtype(dtype).newbyteorder("<"))))
        found: memoryview = values.reshape(-1).view(np.uint8).data
        return found[start:stop]

    return LazyTensor(dtype, shape, span, whole=True)
