"""Checkpoints over torch tensors: loaded files and live modules. Loaded on demand only, since it needs torch."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import TYPE_CHECKING

import torch

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import is_float
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import ModelRef

__all__ = ["TorchCheckpoint"]


_CHUNK = 32 * 2**20  # bytes copied out of a mapped file in one go


class TorchCheckpoint(OpenedCheckpoint):
    """A state dict of torch tensors; it holds them until it is closed.

    ``mapped``: their storages are a file mapped into memory. What is read is then copied out and its pages are given
    back, which would count as resident until the machine is short of memory.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device) or is sparse.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], ref: ModelRef, *, mapped: bool = False) -> None:
        for name, tensor in state.items():
            if tensor.is_meta:
                raise WeightsError(f"tensor {name} is on the meta device: it has no data", "load its weights first")
            if tensor.layout != torch.strided:
                raise WeightsError(
                    f"tensor {name} is sparse ({tensor.layout})", "make it dense before saving: to_dense()"
                )
        infos = [TensorInfo(n, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()]
        super().__init__(ref, infos)
        self._state = dict(state)
        self._mapped = mapped

    def _tensor(self, name: str) -> torch.Tensor:
        self._check_open()
        tensor = self._state[name].detach()
        return _copied_out(tensor) if self._mapped else tensor

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor: float32 or float64; half and bfloat16 come as float32."""
        tensor = self._tensor(name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not is_float(dtype):
            raise WeightsError(f"tensor {name} is {dtype}, not floating point", "only floating weights have spectra")
        if dtype != "float64":
            tensor = tensor.to(torch.float32)
        array: NDArray[np.floating] = tensor.cpu().contiguous().numpy()
        return array

    def raw(self, name: str) -> memoryview:
        """The tensor's little-endian bytes in C order; a view where it is contiguous, in main memory and not mapped."""
        tensor = self._tensor(name)
        if tensor.is_quantized:
            tensor = tensor.int_repr()
        flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data: memoryview = flat.view(torch.uint8).numpy().data
        return data

    def close(self) -> None:
        """Let go of the tensors."""
        super().close()
        self._state.clear()


def _copied_out(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor in a mapped file, whose pages are given back piece by piece."""
    if tensor.is_quantized or not tensor.is_contiguous():
        copy = tensor.clone(memory_format=torch.contiguous_format)
        storage = tensor.untyped_storage()
        _give_back(storage.data_ptr(), storage.nbytes())
        return copy
    copy = torch.empty_like(tensor)
    source, target = tensor.reshape(-1), copy.reshape(-1)
    step = max(1, _CHUNK // tensor.element_size())
    for start in range(0, source.numel(), step):
        part = source[start : start + step]
        target[start : start + step] = part
        _give_back(part.data_ptr(), part.numel() * part.element_size())
    return copy


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's call of that name: torch's mapping is not one of Python's."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def madvise(address: int, size: int, advice: int) -> int:
        return int(call(address, size, advice))

    return madvise


def _give_back(address: int, size: int) -> None:
    """Drop the pages of a mapped file that hold these bytes; nobody wrote to them, so they are read again if needed."""
    advise = _madvise()
    if advise is not None and size:
        start = address - address % mmap.PAGESIZE
        advise(start, address + size - start, mmap.MADV_DONTNEED)
