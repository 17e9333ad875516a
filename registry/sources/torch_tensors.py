"""Checkpoints of torch tensors in memory. Imports torch, so it is imported only when needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import is_float
from registry.sources.quantised.torch_quantised import dequantised, parts_of, precision_of
from registry.types import NO_FACTS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import ModelFacts, ModelRef

__all__ = ["TorchCheckpoint"]


class TorchCheckpoint(OpenedCheckpoint):
    """A state dict of torch tensors, held until the checkpoint is closed.

    A tensor of codes and scales, of torch or torchao, is given as the values that its library computes; ``precisions``
    names how it is stored, ``stored_sizes`` in how many bytes.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device) or is sparse.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], ref: ModelRef, facts: ModelFacts = NO_FACTS) -> None:
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

    def _tensor(self, name: str) -> torch.Tensor:
        self._check_open()
        tensor = self._state[name].detach()
        return dequantised(name, tensor) if name in self.precisions else tensor

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
        """Little-endian bytes of the tensor in C order; a view if it is contiguous and in main memory."""
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
        """Bytes ``start`` to ``stop`` of the tensor; a view if it is contiguous."""
        self._check_open()
        tensor = self._state[name].detach()
        if name in self.precisions or not tensor.is_contiguous() or tensor.device.type != "cpu" or tensor.is_conj():
            return self.raw(name)[start:stop]
        part = tensor.reshape(-1).view(torch.uint8)[start:stop]
        data: memoryview = part.numpy().data
        return data

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
