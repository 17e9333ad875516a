from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import layer_matrix, plan_weights
from registry.sources.effective_weights import effective
from tests.sources.quantised.tensors_in_memory import assert_within_ulp, library, opened, view_of, weight_of

if TYPE_CHECKING:
    from tests.sources.quantised.conftest import StoredTensors

E4M3, E5M2, E8M0 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu


def codes(*shape: int, dtype: torch.dtype = E4M3, seed: int = 0) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100).clamp(-240, 240).to(dtype)


def factors(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.01 + 1e-4


def spread(scale: torch.Tensor, rows: int, columns: int, block: tuple[int, int]) -> torch.Tensor:
    """Scales repeated by index arithmetic, element by element."""
    return scale[torch.arange(rows)[:, None] // block[0], torch.arange(columns)[None] // block[1]]


class TestScales:
    @pytest.mark.parametrize("dtype", [E4M3, E5M2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
    @pytest.mark.parametrize("shape", [(), (1,), (40,), (40, 1), (1, 1)])
    @pytest.mark.parametrize("end", ["_scale", "_scale_inv"])
    def test_tensor_and_channel(self, dtype: torch.dtype, shape: tuple[int, ...], end: str) -> None:
        weight, scale = codes(40, 24, dtype=dtype), factors(*shape)
        view = view_of({"a.weight": weight, f"a.weight{end}": scale})
        expected = weight.to(torch.float32) * (scale[:, None] if shape == (40,) else scale)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert list(view.tensors) == ["a.weight"]
        assert view.tensors["a.weight"].precision == f"fp8 {'e4m3' if 'e4m3' in str(dtype) else 'e5m2'}"

    def test_blocks_of_transformers(self) -> None:
        module = library("transformers.integrations.finegrained_fp8")
        weight, scale = codes(256, 384), factors(2, 3)
        expected = module.Fp8Dequantize(None)._dequantize_one(weight, scale)
        view = view_of(
            {"a.weight": weight, "a.weight_scale_inv": scale},
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
        )
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert view.tensors["a.weight"].precision == "fp8 e4m3 (blocks)"

    @pytest.mark.parametrize("config", [{}, {"quant_method": "fp8", "weight_block_size": [128, 128]}])
    def test_ragged_blocks(self, config: dict[str, object]) -> None:
        """200 x 300 in blocks of 128: two rows and three columns of scales, as if both extents were divided evenly."""
        weight, scale = codes(200, 300), factors(2, 3)
        view = view_of({"a.weight": weight, "a.weight_scale_inv": scale}, config)
        expected = weight.to(torch.float32) * spread(scale, 200, 300, (128, 128))
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        even = weight.to(torch.float32) * spread(scale, 200, 300, (100, 100))
        assert not np.array_equal(weight_of(view, "a.weight"), even.numpy())

    def test_blocks_of_another_size(self) -> None:
        weight, scale = codes(96, 128), factors(3, 2)
        view = view_of({"a.weight": weight, "a.weight_scale_inv": scale})
        expected = weight.to(torch.float32) * spread(scale, 96, 128, (32, 64))
        assert_within_ulp(weight_of(view, "a.weight"), expected)

    @pytest.mark.parametrize("stored", ["float8_e8m0fnu", "uint8"])
    def test_exponents(self, stored: str) -> None:
        exponents = torch.arange(120, 120 + 12, dtype=torch.uint8).reshape(6, 2)
        scale = exponents.view(E8M0) if stored == "float8_e8m0fnu" else exponents
        weight = codes(6, 64)
        expected = (
            library("transformers.integrations.finegrained_fp8")
            .Fp8Dequantize(None)
            ._dequantize_one(weight, scale, torch.float32)
        )
        view = view_of({"a.weight": weight, "a.weight_scale": scale})
        np.testing.assert_array_equal(weight_of(view, "a.weight"), expected.numpy())
        assert view.tensors["a.weight"].precision == "mxfp8"

    def test_names_of_deepseek_and_comfyui(self) -> None:
        state = {
            "a.weight": codes(8, 8),
            "a.scale": factors(1, 1),
            "b.weight": codes(8, 8),
            "b.scale_weight": factors(),
        }
        view = view_of({**state, "scaled_fp8": torch.zeros(2, dtype=E4M3)})
        for name, scale in (("a", "a.scale"), ("b", "b.scale_weight")):
            expected = state[f"{name}.weight"].float() * state[scale]
            assert_within_ulp(weight_of(view, f"{name}.weight"), expected)
        assert {n for n, t in view.tensors.items() if len(t.shape) > 1} == {"a.weight", "b.weight"}

    def test_stacked_experts(self) -> None:
        weight, scale = codes(3, 256, 64), factors(3, 2, 1)
        config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        view = view_of({"experts.gate_up_proj": weight, "experts.gate_up_proj_scale_inv": scale}, config)
        expected = torch.stack([weight[e].float() * spread(scale[e], 256, 64, (128, 128)) for e in range(3)])
        assert_within_ulp(weight_of(view, "experts.gate_up_proj"), expected)

    @pytest.mark.parametrize(("outputs", "blocks"), [(64, 128), (192, 128)])
    def test_experts_whose_gate_is_no_whole_block(self, outputs: int, blocks: int) -> None:
        """Gate and up were quantised apart, each with a scale of its own."""
        weight, scale = codes(2, outputs, 64), factors(2, 2, 1)
        config = {"quant_method": "fp8", "weight_block_size": [blocks, blocks]}
        view = view_of({"experts.gate_up_proj": weight, "experts.gate_up_proj_scale_inv": scale}, config)
        expected = weight.float() * scale.repeat_interleave(outputs // 2, 1)
        assert_within_ulp(weight_of(view, "experts.gate_up_proj"), expected)

    def test_shared_blocks_of_gate_and_up_are_refused(self) -> None:
        state = {"experts.gate_up_proj": codes(2, 400, 64), "experts.gate_up_proj_scale_inv": factors(2, 4, 1)}
        with pytest.raises(WeightsError, match="ambiguous"):
            view_of(state, {"quant_method": "fp8", "weight_block_size": [128, 128]})

    def test_one_scale_per_expert(self) -> None:
        weight, scale = codes(3, 8, 16), factors(3)
        view = view_of({"experts.w": weight, "experts.w_scale": scale})
        assert_within_ulp(weight_of(view, "experts.w"), weight.float() * scale[:, None, None])

    def test_one_scale_per_filter(self) -> None:
        weight, scale = codes(6, 4, 3, 3), factors(6, 1, 1, 1)
        view = view_of({"conv.weight": weight, "conv.weight_scale": scale})
        assert_within_ulp(weight_of(view, "conv.weight"), weight.float() * scale)


class TestMemory:
    def test_only_the_rows_that_are_asked_for_are_read(self, stored: type[StoredTensors]) -> None:
        held = stored({"a.weight": codes(1024, 256), "a.weight_scale_inv": factors(8, 2)})
        tensor = effective(held).view.tensors["a.weight"]
        assert held.bytes_read == 0
        tensor.rows(128, 256)
        assert held.bytes_read == 128 * 256 + 8

    def test_experts_are_read_one_at_a_time(self, stored: type[StoredTensors]) -> None:
        held = stored({"w.weight": codes(16, 64, 32), "w.weight_scale": factors(16, 64, 1)})
        tensor = effective(held).view.tensors["w.weight"]
        tensor.rows(3, 4)
        assert held.bytes_read == 64 * 32 + 64 * 4


class TestWithoutScales:
    def test_codes_are_values(self) -> None:
        weight, bias = codes(16, 8), codes(16)
        view = view_of({"a.weight": weight, "a.bias": bias})
        np.testing.assert_array_equal(weight_of(view, "a.weight"), weight.float().numpy())
        assert view.tensors["a.weight"].precision == "fp8 e4m3"
        assert view.tensors["a.bias"].dtype == "float32"

    @pytest.mark.parametrize(
        ("others", "config"),
        [({}, {"quant_method": "fp8"}), ({"b.weight": codes(8, 8), "b.weight_scale": factors()}, None)],
    )
    def test_a_missing_scale_is_an_error(
        self, others: dict[str, torch.Tensor], config: dict[str, object] | None
    ) -> None:
        with pytest.raises(WeightsError, match=r"model\.safetensors: the fp8 weight a\.weight has no scale"):
            view_of({"a.weight": codes(16, 8), **others}, config)


class TestCompanions:
    def test_scales_of_activations_are_no_parameters(self) -> None:
        state = {"a.weight": codes(16, 16), "a.weight_scale": factors(16, 1)}
        state |= {"a.input_scale": factors(), "a.k_scale": factors(1), "a.v_scale": factors(1)}
        plan = plan_weights(opened(state))
        assert [layer.name for layer in plan.layers] == ["a.weight"]
        assert plan.parameters == 256
        assert {s.reason for s in plan.skipped if "scale" in s.name} == {"scale of activations"}

    def test_scales_of_a_float_weight_are_no_layer(self) -> None:
        state = {"a.weight": torch.ones(8, 64), "a.weight_scale": factors(8, 2)}
        plan = plan_weights(opened(state, {"quant_method": "compressed-tensors"}))
        assert [layer.name for layer in plan.layers] == ["a.weight"]
        unquantised = plan_weights(opened(state))  # the names alone say nothing
        assert len(unquantised.layers) == 2

    def test_scales_of_codes_that_nothing_reads_are_no_layer(self) -> None:
        state = {"a.weight": torch.ones(8, 64), "b.weight": torch.zeros(2, 2, dtype=torch.int32)}
        plan = plan_weights(opened({**state, "b.weight_scale": torch.ones(2, 2)}))
        assert [layer.name for layer in plan.layers] == ["a.weight"]


class TestDamage:
    STATE: ClassVar = {"a.weight": codes(40, 24), "a.weight_scale": factors(40, 1)}

    @pytest.mark.parametrize("shape", [(39,), (24,), (3, 40, 1), (0,), (40, 5), (41, 1), (2,)])
    def test_scales_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(WeightsError, match=r"a\.weight_scale of shape .* does not fit"):
            view_of({**self.STATE, "a.weight_scale": factors(*shape)})

    @pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
    def test_scales_that_are_no_numbers(self, bad: float) -> None:
        scale = factors(40, 1)
        scale[7] = bad
        view = view_of({**self.STATE, "a.weight_scale": scale})
        with pytest.raises(WeightsError, match=r"a\.weight_scale holds (1 values|scales of zero)"):
            view.tensors["a.weight"].read()
        assert np.isfinite(view.tensors["a.weight"].rows(0, 7)).all()  # the others are not to blame

    def test_exponent_that_is_nan(self) -> None:
        scale = torch.full((40, 1), 127, dtype=torch.uint8)
        scale[0] = 255
        view = view_of({**self.STATE, "a.weight_scale": scale})
        with pytest.raises(WeightsError, match="NaN"):
            view.tensors["a.weight"].read()

    def test_code_that_is_nan(self) -> None:
        weight = codes(40, 24)
        weight.view(torch.uint8)[3, 4] = 0x7F
        checkpoint = opened({**self.STATE, "a.weight": weight})
        layer = plan_weights(checkpoint).layers[0]
        with pytest.raises(WeightsError, match="1 of 960 values"):
            layer_matrix(checkpoint, layer)

    def test_integer_scales(self) -> None:
        with pytest.raises(WeightsError, match="int64, which no scale is"):
            view_of({**self.STATE, "a.weight_scale": torch.ones(40, 1, dtype=torch.int64)})

    def test_two_scales(self) -> None:
        with pytest.raises(WeightsError, match="two scales"):
            view_of({**self.STATE, "a.weight_scale_inv": factors(40, 1)})

    @pytest.mark.parametrize("shape", [(40, 1), (), (4, 3)])
    def test_scales_that_the_configuration_contradicts(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(WeightsError, match=r"in blocks of \[16, 16\]"):
            view_of({**self.STATE, "a.weight_scale": factors(*shape)}, {"weight_block_size": [16, 16]})

    @pytest.mark.parametrize("stated", [[0, 128], [128], ["a", "b"], [-1, 10**30]])
    def test_blocks_that_are_none(self, stated: list[object]) -> None:
        with pytest.raises(WeightsError, match="the configuration states blocks of"):
            view_of(self.STATE, {"weight_block_size": stated})
