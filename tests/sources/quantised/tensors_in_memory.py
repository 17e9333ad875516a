"""What tests of quantised checkpoints share: views of tensors in memory, and libraries that may be absent."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.sources.effective_weights import STEPS, EffectiveCheckpoint, TensorView
from registry.sources.torch_tensors import TorchCheckpoint
from registry.types import ModelRef
from registry.types.model_facts import ModelFacts
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import torch


def library(name: str) -> ModuleType:
    """A module that only tests need; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            missing(f"{name} cannot be imported: {error}")


def opened(
    state: Mapping[str, torch.Tensor],
    quantisation: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> EffectiveCheckpoint:
    """A checkpoint of tensors in memory, with the configuration beside it."""
    stored = TorchCheckpoint(state, ModelRef("torch", "model.safetensors", "model"))
    stored._facts = ModelFacts(quantisation=quantisation or {}, metadata=metadata or {})
    return EffectiveCheckpoint(stored)


def view_of(
    state: Mapping[str, torch.Tensor],
    quantisation: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> TensorView:
    """The tensors after the steps that dequantise, before experts are taken apart."""
    view = TensorView(opened(state, quantisation, metadata).stored)
    for step in STEPS:
        module, _, function = step.run.partition(":")
        if module.startswith("registry.sources.quantised."):
            getattr(importlib.import_module(module), function)(view)
    return view


def weight_of(view: TensorView, name: str) -> np.ndarray:
    """A weight, read in two uneven parts that must make up the whole."""
    tensor = view.tensors[name]
    whole = tensor.read()
    assert whole.dtype == np.float32
    assert whole.shape == tensor.shape
    cut = max(1, tensor.shape[0] // 3)
    parts = np.concatenate([tensor.rows(0, cut), tensor.rows(cut, tensor.shape[0])])
    np.testing.assert_array_equal(parts, whole)
    return whole


def assert_within_ulp(found: np.ndarray, expected: torch.Tensor) -> None:
    """Equal within one unit in the last place of the dtype that the library gives."""
    import torch

    assert tuple(expected.shape) == found.shape
    exact = expected.to(torch.float64).numpy()
    bits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}[expected.dtype]
    _, exponent = np.frexp(exact)
    ulp = np.ldexp(1.0, np.maximum(exponent, -124) - bits)
    assert (np.abs(found.astype(np.float64) - exact) <= ulp).all()
    assert np.isfinite(exact).all()
