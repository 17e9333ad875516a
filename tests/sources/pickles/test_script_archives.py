"""TorchScript archives of scripted, quantised and frozen models."""

from __future__ import annotations

import enum
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint


def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 4, 1, bias=False), torch.nn.Flatten(),
            torch.nn.Linear(36, 5),
        ).eval()  # fmt: skip


def saved(module: Any, path: Path, *, frozen: bool = False) -> None:
    """Script a module, freeze it if asked for, and save it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted: Any = torch.jit.script(module)
        (torch.jit.freeze(scripted) if frozen else scripted).save(str(path))


def opened(path: Path) -> Checkpoint:
    (ref,) = expand(path)
    assert ref.source == "torchscript"
    return open_ref(ref)


class Format(enum.Enum):
    """An attribute of a module whose value TorchScript writes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class WithFormat(torch.nn.Module):
    """As timm's patch embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.format = Format.NCHW
        self.inner = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of the outputs for one format, the outputs for others."""
        x = self.inner(x)
        return x.sum() if self.format == Format.NHWC else x


def test_values_of_enumerations(tmp_path: Path) -> None:
    module = WithFormat()
    saved(module, tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        assert [info.name for info in found.tensors] == ["inner.weight", "inner.bias"]
        assert np.array_equal(found.read("inner.weight"), module.inner.weight.detach().numpy())


def quantised() -> Any:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    example = torch.randn(2, 3, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(network(), get_default_qconfig_mapping("x86"), (example,))
        prepared(example)
        return convert_fx(prepared)


def test_quantised_convolutions(tmp_path: Path) -> None:
    module = quantised()
    saved(module, tmp_path / "x.pt")
    torch.save(module.state_dict(), tmp_path / "y.pt")
    with opened(tmp_path / "x.pt") as found, open_ref(expand(tmp_path / "y.pt")[0]) as state:
        named = getattr(module, "0")
        assert np.array_equal(found.read("0.weight"), named.weight().dequantize().numpy())
        assert np.array_equal(found.read("0.bias"), named.bias().detach().numpy())
        plan, other = plan_weights(found), plan_weights(state)
        assert [(layer.name, layer.shape) for layer in plan.layers] == [(x.name, x.shape) for x in other.layers]
        assert len(plan.layers) == 3
        for layer in plan.layers:
            assert np.array_equal(found.read(layer.name), state.read(layer.name))


def test_frozen_models_are_told(tmp_path: Path) -> None:
    saved(network(), tmp_path / "x.pt", frozen=True)
    with opened(tmp_path / "x.pt") as found:
        assert "no names of layers" in found.facts.notes[0]
        assert len(plan_weights(found).layers) == 3


def test_weights_that_were_lost_in_saving(tmp_path: Path) -> None:
    saved(network(), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(".py"):
                data += b"    weight = ops.prim.ConstantMKLDNNTensor()\n"
            new.writestr(name, data)
    with pytest.raises(WeightsError, match="optimised for inference"):
        opened(tmp_path / "y.pt")


class Recurrent(torch.nn.Module):
    """With weights in a list that the code keeps in a variable, and a convolution that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(5, 6, 2, bidirectional=True)
        self.out = torch.nn.Linear(12, 5)
        self.up = torch.nn.ConvTranspose1d(5, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of a sequence (length, batch, 5)."""
        y: torch.Tensor = self.up(self.out(self.rnn(x)[0]).transpose(1, 2))
        return y


def test_recurrent_layers_of_frozen_models(tmp_path: Path) -> None:
    module = Recurrent().eval()
    saved(module, tmp_path / "x.pt", frozen=True)
    torch.save(module.state_dict(), tmp_path / "y.pt")
    with opened(tmp_path / "x.pt") as found, open_ref(expand(tmp_path / "y.pt")[0]) as state:
        for name, tensor in module.rnn.state_dict().items():
            (own,) = [info.name for info in found.tensors if info.name.endswith(f".{name}")]
            assert np.array_equal(found.read(own), tensor.numpy())
        shapes = sorted(layer.shape for layer in plan_weights(found).layers)
        assert shapes == sorted(layer.shape for layer in plan_weights(state).layers)


def test_objects_of_quantised_kernels_in_frozen_models(tmp_path: Path) -> None:
    module = quantised()
    saved(module, tmp_path / "x.pt", frozen=True)
    with opened(tmp_path / "x.pt") as found:
        names = [info.name for info in found.tensors if len(info.shape) > 1]
        weights = [getattr(module, at).weight().dequantize().numpy() for at in ("0", "2", "4")]
        assert len(names) == len(weights)
        assert all(np.array_equal(found.read(name), weight) for name, weight in zip(names, weights, strict=True))


class Dynamic(torch.nn.Module):
    """A recurrent layer of torch's dynamic quantisation."""

    def __init__(self, plain: torch.nn.LSTM) -> None:
        super().__init__()
        kinds = {torch.nn.LSTM}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.rnn: Any = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(plain), kinds)[0]  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of a sequence."""
        y: torch.Tensor = self.rnn(x)[0]
        return y


def test_recurrent_layers_of_dynamic_quantisation(tmp_path: Path) -> None:
    plain = torch.nn.LSTM(8, 6, 2)
    saved(Dynamic(plain), tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as found:
        for name, tensor in plain.state_dict().items():
            step = float(tensor.abs().max()) / 100 if name.startswith("weight") else 0.0
            assert np.abs(found.read(f"rnn.{name}") - tensor.numpy()).max() <= step
