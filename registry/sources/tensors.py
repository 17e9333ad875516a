"""Checkpoints over torch tensors: loaded files and live modules. Loaded on demand only, since it needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.source import OpenedCheckpoint
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import ModelRef

__all__ = ["TorchCheckpoint"]


class TorchCheckpoint(OpenedCheckpoint):
    """A state dict of torch tensors; it holds them until it is closed.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device) or is sparse.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], ref: ModelRef) -> None:
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

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor: float32 or float64; half and bfloat16 come as float32."""
        self._check_open()
        tensor = self._state[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not is_float(dtype):
            raise WeightsError(f"tensor {name} is {dtype}, not floating point", "only floating weights have spectra")
        if dtype != "float64":
            tensor = tensor.to(torch.float32)
        array: NDArray[np.floating] = tensor.cpu().contiguous().numpy()
        return array

    def raw(self, name: str) -> memoryview:
        """The tensor's little-endian bytes in C order; a view where it is contiguous and in main memory."""
        self._check_open()
        tensor = self._state[name].detach()
        if tensor.is_quantized:
            tensor = tensor.int_repr()
        flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data: memoryview = flat.view(torch.uint8).numpy().data
        return data

    def close(self) -> None:
        """Let go of the tensors."""
        super().close()
        self._state.clear()
