from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import WeightsError
from registry.sources import open_ref, plan_weights
from registry.sources.quantised.small_floats import E2M1, E2M3, E3M2, exponents
from registry.types import ModelRef
from tests.sources.quantised.tensors_in_memory import assert_within_ulp, library, opened, view_of, weight_of

if TYPE_CHECKING:
    from pathlib import Path

VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def nibbles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def dense(packed: torch.Tensor) -> torch.Tensor:
    """Values of packed codes, element by element, low nibble first."""
    index = packed.view(torch.uint8).long()
    return torch.stack([VALUES[index & 15], VALUES[index >> 4]], -1).flatten(-2)


class TestTables:
    def test_values_are_those_of_torchao(self) -> None:
        module = library("torchao.prototype.mx_formats.kernels")
        for table, name in ((E2M1, "f4"), (E2M3, "f6_e2m3"), (E3M2, "f6_e3m2")):
            codes = torch.arange(len(table), dtype=torch.uint8)
            np.testing.assert_array_equal(table, getattr(module, f"{name}_unpacked_to_f32")(codes).numpy())

    def test_exponents_are_those_of_torch(self) -> None:
        codes = torch.arange(256, dtype=torch.uint8)
        np.testing.assert_array_equal(exponents(codes.numpy()), codes.view(torch.float8_e8m0fnu).float().numpy())


class TestExpertsOfGptOss:
    def test_values_are_those_of_transformers(self) -> None:
        module = library("transformers.integrations.mxfp4")
        blocks, scales = nibbles(3, 20, 2, 16), torch.randint(100, 140, (3, 20, 2), dtype=torch.uint8)
        state = {"m.experts.gate_up_proj_blocks": blocks, "m.experts.gate_up_proj_scales": scales}
        view = view_of({**state, "m.experts.gate_up_proj_bias": torch.zeros(3, 20)})
        weight = weight_of(view, "m.experts.gate_up_proj")
        for dtype in (torch.bfloat16, torch.float32):
            assert_within_ulp(weight, module.convert_moe_packed_tensors(blocks, scales, dtype=dtype))
        tensor = view.tensors["m.experts.gate_up_proj"]
        assert (tensor.shape, tensor.precision) == ((3, 64, 20), "mxfp4")
        assert set(view.tensors) == {"m.experts.gate_up_proj", "m.experts.gate_up_proj_bias"}
        turned = module.convert_moe_packed_tensors(blocks.flip(1), scales.flip(1), dtype=torch.float32)
        assert not np.array_equal(weight, turned.numpy())

    def test_own_files_of_openai_are_not_turned(self) -> None:
        blocks, scales = nibbles(2, 6, 1, 16), torch.full((2, 6, 1), 128, dtype=torch.uint8)
        view = view_of({"block.0.mlp.mlp1_weight.blocks": blocks, "block.0.mlp.mlp1_weight.scales": scales})
        weight = weight_of(view, "block.0.mlp.mlp1_weight")
        np.testing.assert_array_equal(weight, 2 * dense(blocks).reshape(2, 6, 32).numpy())

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"a_scales": torch.zeros(3, 20, 3, dtype=torch.uint8)}, "does not fit"),
            ({"a_scales": torch.zeros(3, 20, dtype=torch.uint8)}, "does not fit"),
            ({"a_scales": torch.ones(3, 20, 2)}, "is no mxfp4 tensor"),
            ({"a_blocks": nibbles(3, 20, 2, 8)}, "is no mxfp4 tensor"),
            ({"a_blocks": nibbles(20, 2, 16)}, "is no mxfp4 tensor"),
            ({"a_scales": None}, "has no a_scales"),
            ({"a": torch.zeros(3, 64, 20)}, "holds a and, as a_blocks, its codes"),
        ],
    )
    def test_parts_that_do_not_fit(self, parts: dict[str, torch.Tensor | None], message: str) -> None:
        state = {"a_blocks": nibbles(3, 20, 2, 16), "a_scales": torch.full((3, 20, 2), 127, dtype=torch.uint8), **parts}
        with pytest.raises(WeightsError, match=message):
            view_of({name: tensor for name, tensor in state.items() if tensor is not None})

    def test_exponent_that_is_nan(self) -> None:
        scales = torch.full((3, 20, 2), 127, dtype=torch.uint8)
        scales[1, 4, 0] = 255
        view = view_of({"a_blocks": nibbles(3, 20, 2, 16), "a_scales": scales})
        assert np.isfinite(view.tensors["a"].rows(0, 1)).all()
        with pytest.raises(WeightsError, match="a_scales holds 1 values that are NaN"):
            view.tensors["a"].rows(1, 2)


class TestExpertsOfDeepSeek:
    @pytest.mark.parametrize("end", ["weight_scale_inv", "scale"])
    @pytest.mark.parametrize("exponent", [torch.float8_e8m0fnu, torch.uint8])
    def test_values_are_those_of_transformers(self, end: str, exponent: torch.dtype) -> None:
        module = library("transformers.integrations.finegrained_fp8")
        weight = nibbles(24, 32).view(torch.int8)
        scale = torch.randint(110, 130, (24, 2), dtype=torch.uint8).view(exponent)
        config = {"quant_method": "fp8", "weight_block_size": [128, 128]}  # of the other weights
        view = view_of({"w1.weight": weight, f"w1.{end}": scale}, config)
        expected = module.Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
        assert_within_ulp(weight_of(view, "w1.weight"), expected)
        assert (list(view.tensors), view.tensors["w1.weight"].precision) == (["w1.weight"], "mxfp4")

    def test_blocks_of_another_size(self) -> None:
        with pytest.raises(WeightsError, match="does not fit"):
            view_of({"a.weight": nibbles(24, 32).view(torch.int8), "a.scale": torch.ones(24, 4, dtype=torch.uint8)})


class TestModelopt:
    @staticmethod
    def state(**parts: torch.Tensor) -> dict[str, torch.Tensor]:
        state = {
            "weight": nibbles(24, 32),
            "weight_scale": (torch.rand(24, 4, generator=torch.Generator().manual_seed(1)) * 100 + 1).to(
                torch.float8_e4m3fn
            ),
            "weight_scale_2": torch.tensor(0.0123),
            "input_scale": torch.tensor(0.5),
        }
        return {f"a.{name}": tensor for name, tensor in {**state, **parts}.items() if tensor is not None}

    def test_values(self) -> None:
        state = self.state()
        view = view_of(state, {"quant_method": "modelopt", "quant_algo": "NVFP4"})
        scale = state["a.weight_scale"].float() * state["a.weight_scale_2"]
        expected = dense(state["a.weight"]) * scale.repeat_interleave(16, 1)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert (list(view.tensors), view.tensors["a.weight"].precision) == (["a.weight"], "nvfp4 modelopt")

    def test_values_are_those_of_compressed_tensors(self) -> None:
        """The same weight as the library's converter describes it, with the inverse of the second scale."""
        library("compressed_tensors")
        state = self.state()
        other = {
            "a.weight_packed": state["a.weight"],
            "a.weight_scale": state["a.weight_scale"],
            "a.weight_global_scale": 1 / state["a.weight_scale_2"].reshape(1),
        }
        np.testing.assert_allclose(
            weight_of(view_of(state), "a.weight"), weight_of(view_of(other), "a.weight"), rtol=3e-7
        )

    def test_stacked_experts(self) -> None:
        weight, second = nibbles(3, 8, 32), torch.tensor([0.5, 1.0, 2.0])
        scale = (torch.rand(3, 8, 4) * 100 + 1).to(torch.float8_e4m3fn)
        state = {"e.w": weight, "e.w_weight_scale": scale, "e.w_weight_scale_2": second}
        expected = dense(weight) * (scale.float() * second[:, None, None]).repeat_interleave(16, 2)
        assert_within_ulp(weight_of(view_of(state), "e.w"), expected)

    def test_codes_that_safetensors_counts(self, tmp_path: Path) -> None:
        """The library writes torch's float4 as F4, with twice the columns."""
        state = self.state()
        state["a.weight"] = state["a.weight"].view(torch.float4_e2m1fn_x2)
        save_file(state, tmp_path / "model.safetensors")
        from registry.sources.effective_weights import effective

        plain = weight_of(view_of(self.state()), "a.weight")
        with open_ref(ModelRef("safetensors", str(tmp_path / "model.safetensors"), "m")) as checkpoint:
            assert {t.name: t.shape for t in checkpoint.tensors}["a.weight"] == (24, 64)
            np.testing.assert_array_equal(weight_of(effective(checkpoint).view, "a.weight"), plain)
        np.testing.assert_array_equal(weight_of(view_of(state), "a.weight"), plain)

    def test_blocks_that_were_rounded_to_zero(self) -> None:
        scale = self.state()["a.weight_scale"].clone()
        scale[3, 2] = 0
        weight = weight_of(view_of(self.state(weight_scale=scale)), "a.weight")
        assert not weight[3, 32:48].any()
        assert weight[3, :32].any()
        view = view_of(self.state(weight_scale=torch.zeros(24, 4).to(torch.float8_e4m3fn)))
        with pytest.raises(WeightsError, match=r"a\.weight_scale holds zeros alone"):
            view.tensors["a.weight"].read()

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"weight_scale": torch.ones(24, 2).to(torch.float8_e4m3fn)}, "does not fit"),
            ({"weight_scale": torch.ones(23, 4).to(torch.float8_e4m3fn)}, "does not fit"),
            ({"weight_scale_2": torch.ones(24, 4)}, "does not fit"),
            ({"weight_scale_2": None}, r"has no a\.weight_scale_2"),
        ],
    )
    def test_parts_that_do_not_fit(self, parts: dict[str, torch.Tensor], message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            view_of(self.state(**parts))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
    def test_scaled_inputs_are_refused_in_every_format(self, dtype: torch.dtype) -> None:
        state = {"a.weight": nibbles(24, 32).view(dtype), "a.weight_scale": torch.ones(24, 1)}
        with pytest.raises(WeightsError, match=r"scaled inputs \(modelopt\)"):
            plan_weights(opened({**state, "a.pre_quant_scale": torch.ones(32), "b.weight": torch.ones(8, 8)}))

    @pytest.mark.parametrize(
        ("parts", "kind"),
        [
            ({"pre_quant_scale": torch.ones(64)}, r"1,536 weights with scaled inputs \(modelopt\)"),
            ({"weight_scale": torch.ones(48, 4), "weight_scale_2": None}, r"1,536 packed int4 weights \(modelopt\)"),
        ],
    )
    def test_others_are_refused_by_name(self, parts: dict[str, torch.Tensor], kind: str) -> None:
        with pytest.raises(WeightsError, match=kind):
            plan_weights(opened({**self.state(**parts), "b.weight": torch.ones(8, 8)}))
