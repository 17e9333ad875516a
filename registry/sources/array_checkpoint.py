"""Checkpoints over arrays in memory, for sources that make or fetch their weights as NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import is_float
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from registry.types import ModelRef

__all__ = ["ArrayCheckpoint"]


class ArrayCheckpoint(OpenedCheckpoint):
    """Named arrays in torch's layout, (outputs, inputs, ...); it holds them until it is closed.

    Raises
    ------
    WeightsError
        An array is not of numbers.
    """

    def __init__(self, ref: ModelRef, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        for name, array in arrays.items():
            if array.dtype.kind not in "biufc":
                raise WeightsError(f"tensor {name} is of type {array.dtype}, which is no number", "give numbers")
        super().__init__(ref, [TensorInfo(name, array.dtype.name, array.shape) for name, array in arrays.items()])
        self._arrays = dict(arrays)

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor: float32 or float64; half precision comes as float32."""
        self._check_open()
        array = self._arrays[name]
        if not is_float(array.dtype.name):
            raise WeightsError(
                f"tensor {name} is {array.dtype.name}, not floating point", "only floating weights have spectra"
            )
        return np.ascontiguousarray(array, np.float64 if array.dtype.itemsize == 8 else np.float32)

    def raw(self, name: str) -> memoryview:
        """The tensor's little-endian bytes in C order."""
        self._check_open()
        array = self._arrays[name]
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data: memoryview = little.reshape(-1).view(np.uint8).data
        return data

    def close(self) -> None:
        """Let go of the arrays."""
        super().close()
        self._arrays.clear()
