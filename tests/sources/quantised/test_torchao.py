from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import layer_matrix, open_module, open_ref, plan_weights
from registry.sources.effective_weights import effective
from registry.types import ModelRef
from tests.sources.quantised.tensors_in_memory import assert_within_ulp, library, opened, view_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.sources.effective_weights import TensorView


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)


def int8(weight: torch.Tensor, *, asymmetric: bool = False, tensor: bool = False) -> torch.Tensor:
    module = library("torchao.quantization")
    mapping = module.MappingType.ASYMMETRIC if asymmetric else module.MappingType.SYMMETRIC
    made: torch.Tensor = module.Int8Tensor.from_hp(
        weight, module.PerTensor() if tensor else module.PerRow(), mapping_type=mapping
    )
    return made


def intx(weight: torch.Tensor, bits: int, *, asymmetric: bool = False) -> torch.Tensor:
    module = library("torchao.quantization")
    made: torch.Tensor = module.IntxUnpackedToInt8Tensor.from_hp(
        weight,
        (1, 32),
        getattr(torch, f"int{bits}"),
        mapping_type=module.MappingType.ASYMMETRIC if asymmetric else module.MappingType.SYMMETRIC,
    )
    return made


def float8(weight: torch.Tensor, granularity: str = "PerRow", dtype: torch.dtype = torch.float8_e4m3fn) -> torch.Tensor:
    module = library("torchao.quantization")
    grain = module.PerBlock([16, 32]) if granularity == "PerBlock" else getattr(module, granularity)()
    made: torch.Tensor = module.Float8Tensor.from_hp(weight, dtype, grain)
    return made


def mx(weight: torch.Tensor, element: Any, *, swizzled: bool = False) -> torch.Tensor:
    module = library("torchao.prototype.mx_formats.mx_tensor")
    made: torch.Tensor = module.MXTensor.to_mx(weight, element, 32, is_swizzled_scales=swizzled)
    return made


def nvfp4(weight: torch.Tensor, *, scaled: bool = True, swizzled: bool = False) -> torch.Tensor:
    module = library("torchao.prototype.mx_formats.nvfp4_tensor")
    whole = module.per_tensor_amax_to_scale(weight.abs().max()) if scaled else None
    made: torch.Tensor = module.NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=whole, is_swizzled_scales=swizzled)
    return made


MADE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "int8": (int8, "int8"),
    "int8 asymmetric": (lambda w: int8(w, asymmetric=True), "int8"),
    "int8 tensor": (lambda w: int8(w, tensor=True), "int8"),
    "int4": (lambda w: intx(w, 4), "int4"),
    "int3 asymmetric": (lambda w: intx(w, 3, asymmetric=True), "int3"),
    "fp8": (float8, "fp8 e4m3"),
    "fp8 tensor": (lambda w: float8(w, "PerTensor"), "fp8 e4m3"),
    "fp8 e5m2": (lambda w: float8(w, dtype=torch.float8_e5m2), "fp8 e5m2"),
    "mxfp8": (lambda w: mx(w, torch.float8_e4m3fn), "mxfp8"),
    "mxfp8 tiles": (lambda w: mx(w, torch.float8_e4m3fn, swizzled=True), "mxfp8"),
    "mxfp6 e2m3": (lambda w: mx(w, "fp6_e2m3"), "mxfp6"),
    "mxfp6 e3m2": (lambda w: mx(w, "fp6_e3m2"), "mxfp6"),
    "mxfp4": (lambda w: mx(w, torch.float4_e2m1fn_x2), "mxfp4"),
    "mxfp4 tiles": (lambda w: mx(w, torch.float4_e2m1fn_x2, swizzled=True), "mxfp4"),
    "nvfp4": (nvfp4, "nvfp4"),
    "nvfp4 without a second scale": (lambda w: nvfp4(w, scaled=False), "nvfp4"),
    "nvfp4 tiles": (lambda w: nvfp4(w, swizzled=True), "nvfp4"),
}


def flattened(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    module = library("torchao.prototype.safetensors.safetensors_support")
    tensors, metadata = module.flatten_tensor_state_dict({"m.a.weight": weight, "m.a.bias": torch.zeros(160)})
    return tensors, metadata


def made(kind: str) -> tuple[TensorView, torch.Tensor]:
    weight = MADE[kind][0](normal(160, 192))
    tensors, metadata = flattened(weight)
    return view_of(tensors, {"quant_method": "torchao"}, metadata), weight


class TestFlattened:
    @pytest.mark.parametrize("kind", list(MADE))
    def test_values_are_those_of_the_library(self, kind: str) -> None:
        view, weight = made(kind)
        assert_within_ulp(weight_of(view, "m.a.weight"), weight.dequantize())
        assert set(view.tensors) == {"m.a.weight", "m.a.bias"}
        assert view.tensors["m.a.weight"].precision == f"{MADE[kind][1]} torchao"
        error = np.abs(weight_of(view, "m.a.weight") - normal(160, 192).float().numpy()).max()
        assert error < 1  # it is the weight, however coarse

    def test_nibbles(self) -> None:
        """The library packs these on GPUs alone; the weight is code x scale + zero point."""
        library("torchao")
        generator = torch.Generator().manual_seed(1)
        codes = torch.randint(-8, 8, (24, 64), generator=generator, dtype=torch.int8)
        scale, zero = torch.rand(2, 24, generator=generator), torch.randn(2, 24, generator=generator)
        packed = (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)
        state = {"a._weight_qdata": packed, "a._weight_scale": scale, "a._weight_zero_point": zero}
        told = {"_type": "Int4Tensor", "_data": {"block_size": [1, 32], "shape": [24, 64]}}
        view = view_of(state, None, {"a.weight": json.dumps(told)})
        group = torch.arange(64) // 32
        expected = codes.double() * scale.T[:, group].double() + zero.T[:, group].double()
        np.testing.assert_allclose(weight_of(view, "a.weight"), expected.numpy(), rtol=1e-6, atol=1e-7)
        assert view.tensors["a.weight"].precision == "int4 torchao"

    def test_stacked_experts(self) -> None:
        weight = int8(normal(3, 16, 32))
        module = library("torchao.prototype.safetensors.safetensors_support")
        tensors, metadata = module.flatten_tensor_state_dict({"experts.gate_up_proj": weight})
        view = view_of(tensors, None, metadata)
        assert_within_ulp(weight_of(view, "experts.gate_up_proj"), weight.dequantize())


class TestLive:
    @pytest.mark.parametrize("kind", list(MADE))
    def test_values_are_those_of_the_library(self, kind: str) -> None:
        weight = MADE[kind][0](normal(160, 192))
        with open_module({"a.weight": weight}) as checkpoint:
            plan = plan_weights(checkpoint)
            assert (plan.precision, plan.parameters) == (f"{MADE[kind][1]} torchao", 160 * 192)
            assert plan.bytes < 160 * 192 * 1.5  # of the codes and scales, not of the values
            found = layer_matrix(checkpoint, plan.layers[0])
        np.testing.assert_array_equal(found, weight.dequantize().float().numpy())

    def test_a_module_has_the_layers_that_it_had(self) -> None:
        module = library("torchao.quantization")
        plain = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)).to(torch.bfloat16)
        with open_module(plain) as checkpoint:
            expected = plan_weights(checkpoint)
        module.quantize_(plain, module.Int8WeightOnlyConfig(version=2))
        with open_module(plain) as checkpoint:
            plan = plan_weights(checkpoint)
        assert [(x.name, x.p, x.q) for x in plan.layers] == [(x.name, x.p, x.q) for x in expected.layers]
        assert plan.parameters == expected.parameters
        assert plan.precision == "int8 torchao"

    def test_scaled_inputs_are_refused(self) -> None:
        weight = int8(normal(16, 32))
        weight.act_pre_scale = torch.ones(32)  # type: ignore[attr-defined]
        with open_module({"a.weight": weight}) as checkpoint, pytest.raises(WeightsError, match="scaled inputs"):
            plan_weights(checkpoint)


class TestPickles:
    @pytest.mark.parametrize("kind", list(MADE))
    def test_values_are_those_of_the_library(self, kind: str, tmp_path: Path) -> None:
        weight = MADE[kind][0](normal(160, 192))
        torch.save({"a.weight": weight, "a.bias": torch.zeros(160)}, tmp_path / "m.pt")
        with open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m")) as checkpoint:
            view = effective(checkpoint).view
            assert_within_ulp(weight_of(view, "a.weight"), weight.dequantize())
            assert set(view.tensors) == {"a.weight", "a.bias"}
            assert view.tensors["a.weight"].precision == f"{MADE[kind][1]} torchao"

    def test_scaled_inputs_are_refused(self, tmp_path: Path) -> None:
        weight = int8(normal(16, 32))
        weight.act_pre_scale = torch.ones(32)  # type: ignore[attr-defined]
        torch.save({"a.weight": weight}, tmp_path / "m.pt")
        with (
            open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m")) as checkpoint,
            pytest.raises(WeightsError, match="scaled inputs"),
        ):
            plan_weights(checkpoint)

    def test_other_classes_are_refused_by_name(self, tmp_path: Path) -> None:
        weight = int8(normal(16, 32))
        weight.codes = weight.qdata  # type: ignore[attr-defined]
        del weight.qdata  # type: ignore[attr-defined]
        torch.save({"a.weight": weight}, tmp_path / "m.pt")
        with pytest.raises(WeightsError, match=r"which only torchao can load: torchao\.\S*Int8Tensor") as caught:
            open_ref(ModelRef("torch", str(tmp_path / "m.pt"), "m"))
        assert "weight.dequantize()" in (caught.value.remedy or "")


class TestDamage:
    @staticmethod
    def parts(**changed: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        tensors, metadata = flattened(int8(normal(160, 192)))
        told = json.loads(metadata["m.a.weight"])
        told["_data"] |= changed
        return tensors, metadata | {"m.a.weight": json.dumps(told)}

    @pytest.mark.parametrize(
        ("part", "tensor", "message"),
        [
            ("scale", torch.ones(159, 1), "does not fit"),
            ("scale", torch.ones(160, 2), "does not fit"),
            ("scale", torch.ones(160, 1, dtype=torch.int32), "which no scale is"),
            ("scale", None, r"_weight_scale is missing"),
            ("zero_point", torch.zeros(160, 2, dtype=torch.int8), "does not fit"),
            ("zero_point", torch.zeros(160, 1, dtype=torch.int64), "does not fit"),
            ("qdata", torch.zeros(160, 192, dtype=torch.int32), "is int32, not int8"),
        ],
    )
    def test_parts_that_do_not_fit(self, part: str, tensor: torch.Tensor | None, message: str) -> None:
        tensors, metadata = self.parts()
        tensors |= {f"m.a._weight_{part}": tensor}
        with pytest.raises(WeightsError, match=message):
            view_of({n: t for n, t in tensors.items() if t is not None}, None, metadata)

    @pytest.mark.parametrize("size", [[1, 96], [1], ["1", "192"], [0, 192], [1, 2, 3], 7, [1, 10**40]])
    def test_blocks_that_the_tensors_contradict(self, size: object) -> None:
        tensors, metadata = self.parts(block_size=size)
        with pytest.raises(WeightsError, match=r"does not fit|do not fit|states blocks"):
            view_of(tensors, None, metadata)

    @pytest.mark.parametrize("bad", [0.0, float("nan")])
    def test_scales_that_are_no_numbers(self, bad: float) -> None:
        tensors, metadata = self.parts()
        tensors["m.a._weight_scale"][3] = bad
        view = view_of(tensors, None, metadata)
        with pytest.raises(WeightsError, match=r"holds (1 values|scales of zero)"):
            view.tensors["m.a.weight"].read()

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"_type": 3}', '{"_type": "OtherTensor", "_data": {}}', "[" * 90_000, "x" * 10**6]
    )
    def test_codes_that_nothing_describes_are_refused_by_name(self, text: str) -> None:
        tensors, metadata = self.parts()
        checkpoint = opened(tensors, None, metadata | {"m.a.weight": text})
        with pytest.raises(WeightsError, match="30,720 torchao weights"):
            plan_weights(checkpoint)

    def test_scaled_inputs_are_refused_by_name(self) -> None:
        tensors, metadata = self.parts()
        checkpoint = opened({**tensors, "m.a._weight_act_pre_scale": torch.ones(192)}, None, metadata)
        with pytest.raises(WeightsError, match=r"torchao weights \(Int8Tensor with scaled inputs\)"):
            plan_weights(checkpoint)
