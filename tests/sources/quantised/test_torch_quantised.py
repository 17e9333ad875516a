from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import layer_matrix, open_module, open_ref, plan_weights
from registry.sources.effective_weights import effective
from registry.types import ModelRef
from tests.sources.quantised.tensors_in_memory import view_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def quantised(kind: str, *shape: int) -> torch.Tensor:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "tensor":
            return torch.quantize_per_tensor(weight, 0.03, 3, torch.quint8)
        axis = int(kind == "inputs")
        scale = torch.rand(shape[axis], dtype=torch.float64) * 0.05 + 0.01
        zero = torch.arange(shape[axis]) % 3
        return torch.quantize_per_channel(weight, scale, zero, axis, torch.qint8)


def built(convert: Callable[[torch.nn.Module], torch.nn.Module], module: torch.nn.Module) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert(module)


def dynamic(module: torch.nn.Module, dtype: torch.dtype = torch.qint8) -> torch.nn.Module:
    from torch.ao.quantization import quantize_dynamic

    kinds = {torch.nn.Linear, torch.nn.LSTM, torch.nn.Embedding} - ({torch.nn.Embedding})
    return built(lambda m: quantize_dynamic(m, kinds, dtype=dtype), module)


def static(module: torch.nn.Module) -> torch.nn.Module:
    from torch.ao import quantization

    def convert(plain: torch.nn.Module) -> torch.nn.Module:
        wrapped = torch.nn.Sequential(quantization.QuantStub(), plain, quantization.DeQuantStub()).eval()
        wrapped.qconfig = quantization.get_default_qconfig("x86")  # type: ignore[assignment]
        prepared = quantization.prepare(wrapped)
        prepared(torch.randn(2, 3, 8, 8))
        return quantization.convert(prepared)

    return built(convert, module)


class TestTensors:
    @pytest.mark.parametrize("kind", ["tensor", "outputs", "inputs"])
    @pytest.mark.parametrize("where", ["file", "memory"])
    def test_values_are_those_of_torch(self, kind: str, where: str, tmp_path: Path) -> None:
        weight = quantised(kind, 12, 10)
        if where == "memory":
            checkpoint = open_module({"a.weight": weight})
        else:
            torch.save({"a.weight": weight}, tmp_path / "m.pt")
            checkpoint = open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m"))
        with checkpoint:
            view = effective(checkpoint).view
            np.testing.assert_array_equal(weight_of(view, "a.weight"), weight.dequantize().numpy())
            plan = plan_weights(checkpoint)
            assert plan.precision == "int8 torch"
            assert (plan.parameters, plan.bytes) == (120, 120)
            assert not np.array_equal(layer_matrix(checkpoint, plan.layers[0]), weight.int_repr().numpy())

    def test_same_weights_in_file_and_memory_are_one_model(self, tmp_path: Path) -> None:
        weight = quantised("outputs", 12, 10)
        torch.save({"a.weight": weight}, tmp_path / "m.pt")
        with (
            open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m")) as stored,
            open_module({"a.weight": weight}) as live,
        ):
            assert plan_weights(stored).content_hash == plan_weights(live).content_hash

    def test_tensor_that_torch_does_not_dequantise(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weight = torch.quantize_per_channel(
                torch.rand(8, 8), torch.rand(8) + 0.1, torch.zeros(8), 0, torch.quint4x2
            )
        try:
            expected = weight.dequantize()
        except RuntimeError:
            with pytest.raises(WeightsError, match=r"a\.weight .* has no values"):
                view_of({"a.weight": weight}).tensors["a.weight"].read()
        else:
            np.testing.assert_array_equal(view_of({"a.weight": weight}).tensors["a.weight"].read(), expected.numpy())


class TestModules:
    @pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
    @pytest.mark.parametrize("where", ["file", "wrapped", "memory"])
    def test_linear_modules(self, dtype: torch.dtype, where: str, tmp_path: Path) -> None:
        plain = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        module = dynamic(plain, dtype)
        if where == "memory":
            checkpoint = open_module(module)
        else:
            state = module.state_dict()
            torch.save({"state_dict": state, "epoch": 3} if where == "wrapped" else state, tmp_path / "m.pt")
            checkpoint = open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m"))
        with checkpoint, open_module(plain) as original:
            plan, expected = plan_weights(checkpoint), plan_weights(original)
            assert [(x.name, x.p, x.q) for x in plan.layers] == [(x.name, x.p, x.q) for x in expected.layers]
            assert plan.parameters == expected.parameters
            assert plan.precision == ("int8 torch" if dtype == torch.qint8 else "float32")
            for number, layer in zip((0, 2), plan.layers, strict=True):
                weight = module[number].weight()
                weight = weight.dequantize() if weight.is_quantized else weight
                np.testing.assert_array_equal(layer_matrix(checkpoint, layer), weight.numpy())

    def test_convolutions_and_output_scales(self) -> None:
        plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
        module = static(plain)
        with (
            open_module(module) as checkpoint,
            open_module(torch.nn.Sequential(torch.nn.Identity(), plain)) as original,
        ):
            plan, expected = plan_weights(checkpoint), plan_weights(original)
            assert [(x.name, x.p, x.q, x.kind) for x in plan.layers] == [
                (x.name, x.p, x.q, x.kind) for x in expected.layers
            ]
            assert plan.parameters == expected.parameters
            assert {s.reason for s in plan.skipped if "scale" in s.name} == {"scale of activations"}

    def test_recurrent_modules_are_refused_by_name(self, tmp_path: Path) -> None:
        module = dynamic(torch.nn.Sequential(torch.nn.LSTM(4, 4), torch.nn.Linear(8, 8)))
        with pytest.raises(WeightsError, match="packed for torch's quantised kernels"):
            open_module(module)
        for number, content in enumerate((module.state_dict(), module)):
            torch.save(content, tmp_path / f"{number}.pt")
            with pytest.raises(WeightsError, match="packed for torch's quantised kernels"):
                open_ref(ModelRef("torch", str(tmp_path / f"{number}.pt"), "m"))

    def test_modules_that_were_pickled_whole(self, tmp_path: Path) -> None:
        plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
        for name, module in (("static", static(plain)), ("dynamic", dynamic(plain))):
            torch.save(module, tmp_path / f"{name}.pt")
            torch.save(module.state_dict(), tmp_path / f"{name} state.pt")
            plans = []
            for path in (tmp_path / f"{name}.pt", tmp_path / f"{name} state.pt"):
                with open_ref(ModelRef("torch", str(path), "m")) as checkpoint:
                    plans.append(plan_weights(checkpoint))
            whole, state = plans
            assert [(x.name, x.p, x.q) for x in whole.layers] == [(x.name, x.p, x.q) for x in state.layers]
            assert (whole.parameters, whole.precision) == (state.parameters, state.precision)
