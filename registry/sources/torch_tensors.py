"""Checkpoints of torch tensors, for files and live modules. Imports torch, so it is imported only when needed."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import torch

from registry.errors import WeightsError
from registry.sources.archive import check_sums, data_offsets, zip_entries
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import is_float
from registry.sources.quantised.torch_quantised import dequantised, parts_of, precision_of
from registry.types import NO_FACTS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from zipfile import ZipInfo

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import ModelFacts, ModelRef

__all__ = ["TorchCheckpoint"]


_CHUNK = 32 * 2**20  # bytes copied from a mapped file at a time


class TorchCheckpoint(OpenedCheckpoint):
    """A state dict of torch tensors, held until the checkpoint is closed.

    ``archive``: the file from which the storages are memory-mapped, if they are. Tensors are then copied when read and
    their pages released, because the pages would otherwise count as resident memory. A tensor of codes and scales, of
    torch or torchao, is given as the values that its library computes; ``precisions`` names how it is stored,
    ``stored_sizes`` in how many bytes.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device) or is sparse.
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        ref: ModelRef,
        facts: ModelFacts = NO_FACTS,
        *,
        archive: Path | None = None,
    ) -> None:
        for name, tensor in state.items():
            if tensor.is_meta:
                raise WeightsError(f"tensor {name} is on the meta device: it has no data", "load its weights first")
            if tensor.layout != torch.strided:
                raise WeightsError(
                    f"tensor {name} is sparse ({tensor.layout})", "make it dense before saving: to_dense()"
                )
        self.precisions = {n: precision for n, t in state.items() if (precision := precision_of(t))}
        self.stored_sizes = {n: sum(part.nbytes for part in parts_of(state[n])) for n in self.precisions}
        infos = [
            TensorInfo(n, "float32" if t.is_quantized else str(t.dtype).removeprefix("torch."), tuple(t.shape))
            for n, t in state.items()
        ]
        super().__init__(ref, infos, replace(facts, aliases={**facts.aliases, **_shared(state)}))
        self._state = dict(state)
        self._mapped = archive is not None
        self._archive = archive

    def _tensor(self, name: str) -> torch.Tensor:
        self._check_open()
        tensor = self._state[name].detach()
        if name in self.precisions:
            values = dequantised(name, tensor)
            for part in parts_of(tensor) if self._mapped else ():
                _give_back(part.untyped_storage().data_ptr(), part.untyped_storage().nbytes())
            return values
        return _copied_out(tensor) if self._mapped else tensor

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 and bfloat16 are returned as float32."""
        tensor = self._tensor(name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not is_float(dtype):
            raise WeightsError(f"tensor {name} is {dtype}, not floating point", "only floating weights have spectra")
        if dtype != "float64":
            tensor = tensor.to(torch.float32)
        array: NDArray[np.floating] = tensor.cpu().contiguous().numpy()
        return array

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order; a view if it is contiguous, in main memory and not mapped."""
        tensor = self._tensor(name)
        flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data: memoryview = flat.view(torch.uint8).numpy().data
        return data

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        self._check_open()
        tensor = self._state[name]
        return tensor.numel() * (4 if tensor.is_quantized else tensor.element_size())

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor; copied alone if it is contiguous."""
        self._check_open()
        tensor = self._state[name].detach()
        if name in self.precisions or not tensor.is_contiguous() or tensor.device.type != "cpu" or tensor.is_conj():
            return self.raw(name)[start:stop]
        part = tensor.reshape(-1).view(torch.uint8)[start:stop]
        data: memoryview = (_copied_out(part) if self._mapped else part).numpy().data
        return data

    def verify(self) -> None:
        """Compare the checksums of the archive's entries that hold these tensors with their data."""
        self._check_open()
        if self._archive is None:
            return
        everything = zip_entries(self._archive, self._archive.stat().st_size)
        stored = data_offsets(self._archive, [entry for entry in everything if "/data/" in entry.filename])
        check_sums(self._archive, self._entries(stored), everything=everything)

    def _entries(self, stored: dict[int, ZipInfo]) -> dict[int, ZipInfo]:
        """Those entries that hold these tensors; all of them if the mapping does not tell.

        torch maps the file once. Its start in memory is the one page from which every storage is at an entry's offset.
        """
        storages = [tensor.untyped_storage() for tensor in self._state.values()]
        try:
            places = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
        except RuntimeError:  # a tensor that consists of others has no storage of its own
            return stored
        if not places:
            return {}
        lowest = min(places)
        starts = {
            lowest - offset
            for offset, entry in stored.items()
            if (lowest - offset) % mmap.PAGESIZE == 0 and entry.file_size >= places[lowest]
        }
        fitting = [start for start in starts if all(place - start in stored for place in places)]
        return {place - fitting[0]: stored[place - fitting[0]] for place in places} if len(fitting) == 1 else stored

    def close(self) -> None:
        """Release the tensors."""
        super().close()
        self._state.clear()


def _shared(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of tensors that are the same memory as an earlier one, and the name of that one."""
    first: dict[object, str] = {}
    aliases = {}
    for name, tensor in state.items():
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.numel():
            place = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
            if first.setdefault(place, name) != name:
                aliases[name] = first[place]
    return aliases


def _copied_out(tensor: torch.Tensor) -> torch.Tensor:
    """Copy of a tensor in a mapped file; pages are released piece by piece."""
    if not tensor.is_contiguous():
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
    """The C function ``madvise``; torch's mapping is not a Python ``mmap`` object."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def madvise(address: int, size: int, advice: int) -> int:
        return int(call(address, size, advice))

    return madvise


def _give_back(address: int, size: int) -> None:
    """Release the pages of a mapped file that hold these bytes; unmodified pages are read again when needed."""
    advise = _madvise()
    if advise is not None and size:
        start = address - address % mmap.PAGESIZE
        advise(start, address + size - start, mmap.MADV_DONTNEED)
