"""Checkpoints of torch tensors in memory, beside which a configuration may stand, and distances in last places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import decode
from registry.sources.effective_weights import effective
from registry.types import NO_FACTS, ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.sources.effective_weights import TensorView

    Tensors = Mapping[str, "torch.Tensor | np.ndarray"]


class StoredTensors(OpenedCheckpoint):
    """A checkpoint over torch tensors or arrays; it counts the bytes that are read."""

    def __init__(self, tensors: Tensors, quantisation: Mapping[str, Any] | None = None, **facts: Any) -> None:
        held = {
            n: torch.as_tensor(np.ascontiguousarray(t) if isinstance(t, np.ndarray) else t) for n, t in tensors.items()
        }
        infos = [TensorInfo(n, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in held.items()]
        given = replace(NO_FACTS, quantisation=quantisation or {}, **facts)
        super().__init__(ModelRef("memory", "model", "model"), infos, given)
        self._bytes = {n: t.detach().contiguous().reshape(-1).view(torch.uint8).numpy() for n, t in held.items()}
        self._infos = {info.name: info for info in infos}
        self.bytes_read = 0

    def raw(self, name: str) -> memoryview:
        self.bytes_read += len(self._bytes[name])
        return memoryview(self._bytes[name])

    def span(self, name: str, start: int, stop: int) -> memoryview:
        self.bytes_read += stop - start
        return memoryview(self._bytes[name][start:stop])

    def bytes_of(self, name: str) -> int:
        return len(self._bytes[name])

    def read(self, name: str) -> np.ndarray:
        return decode(self.raw(name), self._infos[name].dtype, self._infos[name].shape)


@pytest.fixture
def stored() -> type[StoredTensors]:
    return StoredTensors


@pytest.fixture
def view_of() -> Callable[..., TensorView]:
    """``view_of(tensors, quantisation)``: the effective tensors of a checkpoint."""

    def make(tensors: Tensors, quantisation: Mapping[str, Any] | None = None, **facts: Any) -> TensorView:
        return effective(StoredTensors(tensors, quantisation, **facts)).view

    return make


def ulps(values: np.ndarray, reference: np.ndarray, dtype: str = "float32") -> float:
    """Largest difference in units in the last place that ``dtype`` has at the reference."""
    exact = np.asarray(reference, np.float64)
    kept, smallest = {"float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149)}[dtype]
    _, exponent = np.frexp(np.where(exact == 0, 1, np.abs(exact)))
    unit = np.where(exact == 0, 2.0**smallest, np.ldexp(1.0, np.maximum(exponent - 1 - kept, smallest)))
    return float(np.max(np.abs(np.asarray(values, np.float64) - exact) / unit, initial=0))


@pytest.fixture(name="ulps")
def _ulps() -> Callable[..., float]:
    return ulps
