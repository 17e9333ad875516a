from __future__ import annotations

import hashlib
import inspect
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from unittest import mock

import numpy as np
import pytest

from registry.types import ModelRef, TensorInfo
from tests.sources.hubserver import Hub, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from registry.types import Checkpoint

TOKEN = "hf_NotToBeSeenAnywhere"  # noqa: S105  # nobody's

Shapes = dict[str, tuple[int, ...]]


class ArrayCheckpoint:
    """A checkpoint over arrays in memory, in the order given."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self.ref = ModelRef("arrays", "arrays", "arrays")
        self.tensors: Sequence[TensorInfo] = [TensorInfo(n, str(a.dtype), a.shape) for n, a in self._arrays.items()]

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def raw(self, name: str) -> memoryview:
        return memoryview(self._arrays[name].reshape(-1).view(np.uint8))

    def close(self) -> None:
        self._arrays.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShapesCheckpoint(ArrayCheckpoint):
    """A checkpoint of names, dtypes and shapes only; every tensor's bytes are eight that no other has."""

    def __init__(self, tensors: Sequence[TensorInfo]) -> None:
        super().__init__({})
        self.tensors = tensors

    def raw(self, name: str) -> memoryview:
        return memoryview(hashlib.sha256(name.encode()).digest()[:8])


@dataclass(frozen=True)
class BuiltModel:
    package: str
    tensors: tuple[TensorInfo, ...]
    num_params: int | None

    @property
    def matrices(self) -> Shapes:
        return {t.name: t.shape for t in self.tensors if len(t.shape) >= 2}


@pytest.fixture
def arrays() -> Callable[[Mapping[str, np.ndarray]], Checkpoint]:
    return ArrayCheckpoint


@pytest.fixture
def shapes_only() -> Callable[[Sequence[TensorInfo]], Checkpoint]:
    return ShapesCheckpoint


@pytest.fixture(scope="session")
def built_models() -> dict[str, BuiltModel]:
    """Every torchvision model but the quantised, as its builder makes it, on the meta device."""
    import torch
    import torchvision.models as models
    from torchvision.models.regnet import BlockParams

    computed = BlockParams.from_init_params

    def on_cpu(*args: object, **options: object) -> object:
        with torch.device("cpu"):  # it reads numbers out of tensors, which the meta device has not
            return computed(*args, **options)

    def unchanged(*args: object, **options: object) -> object:
        return args[0] if args else options.get("tensor")

    built: dict[str, BuiltModel] = {}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(BlockParams, "from_init_params", on_cpu))
        for name in [n for n in dir(torch.nn.init) if n.endswith("_") and not n.startswith("_")]:
            stack.enter_context(mock.patch.object(torch.nn.init, name, unchanged))  # half of the time, for nothing
        for name in models.list_models():
            builder = models.get_model_builder(name)
            package = builder.__module__.split(".")[2]
            if package == "quantization":
                continue
            options: dict[str, object] = {"weights": None}
            if "weights_backbone" in inspect.signature(builder).parameters:
                options["weights_backbone"] = None
            if name in ("googlenet", "inception_v3"):
                options["init_weights"] = False
            with torch.device("meta"):
                state = builder(**options).state_dict()
            tensors = [TensorInfo(k, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for k, t in state.items()]
            weights = models.get_model_weights(name)
            count = weights.DEFAULT.meta["num_params"] if len(weights) else None
            built[name] = BuiltModel(package if builder.__module__.count(".") > 2 else "", tuple(tensors), count)
    return built


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine for huggingface_hub to talk to, with an empty cache and a token."""
    from huggingface_hub import constants

    with serving() as server:
        # As HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE set them, which are read when the package is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
