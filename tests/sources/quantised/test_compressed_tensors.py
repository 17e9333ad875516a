from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import plan_weights
from registry.sources.effective_weights import effective
from tests.sources.quantised.tensors_in_memory import assert_within_ulp, library, opened, view_of, weight_of

if TYPE_CHECKING:
    from types import ModuleType

    from tests.sources.quantised.conftest import StoredTensors

METHOD = "compressed-tensors"


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def quantisation() -> ModuleType:
    library("compressed_tensors.compressors")
    return library("compressed_tensors.quantization")


def compressed(
    weight: torch.Tensor, form: str, scale: torch.Tensor, zero: torch.Tensor | None = None, **weights: Any
) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, Any]]:
    """What the library stores for a weight, what it reads from that, and its configuration."""
    module = quantisation()
    scheme = module.QuantizationScheme(targets=["Linear"], weights=module.QuantizationArgs(**weights))
    compressor = library("compressed_tensors.compressors").BaseCompressor.get_value_from_registry(form)
    state = {"weight": weight, "weight_scale": scale}
    state |= {} if zero is None else {"weight_zero_point": zero}
    if "nvfp4" in form:
        state["weight_global_scale"] = torch.tensor([1234.5])
    stored = compressor.compress(state, scheme)
    read = compressor.decompress(stored, scheme)["weight"]
    config = {"quant_method": METHOD, "format": form, "config_groups": {"group_0": {"weights": dict(weights)}}}
    return {f"a.{name}": tensor.detach() for name, tensor in stored.items()}, read, config


def integers(
    bits: int,
    strategy: str,
    *,
    symmetric: bool = True,
    form: str = "pack-quantized",
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, Any]]:
    rows, columns, size = 48, 96, 32
    shape = {"tensor": (1,), "channel": (rows, 1), "group": (rows, columns // size)}[strategy]
    generator = torch.Generator().manual_seed(bits)
    scale = (torch.rand(shape, generator=generator) * 0.5 / 2**bits + 0.05 / 2**bits).to(dtype)
    half = 2 ** (bits - 1)
    zero = None if symmetric else torch.randint(-half, half, shape, generator=generator, dtype=torch.int8)
    given = {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": symmetric}
    return compressed(
        normal(rows, columns).to(dtype),
        form,
        scale,
        zero,
        **given,
        **({"group_size": size} if strategy == "group" else {}),
    )


def padded(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Codes in words of ``32 // bits``, as versions of the library before dense packing wrote them."""
    per = 32 // bits
    wide = np.zeros((codes.shape[0], -(-codes.shape[1] // per) * per), np.uint64)
    wide[:, : codes.shape[1]] = codes
    words = (wide.reshape(codes.shape[0], -1, per) << (np.arange(per, dtype=np.uint64) * bits)).sum(-1)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


class TestPackedIntegers:
    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
    def test_symmetric(self, bits: int, strategy: str) -> None:
        state, expected, config = integers(bits, strategy)
        view = view_of(state, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert list(view.tensors) == ["a.weight"]
        assert view.tensors["a.weight"].precision == f"int{bits} compressed-tensors"

    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("strategy", ["channel", "group"])
    def test_zero_points(self, bits: int, strategy: str) -> None:
        state, expected, config = integers(bits, strategy, symmetric=False)
        view = view_of(state, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        less = {n: t for n, t in state.items() if n != "a.weight_zero_point"}
        with pytest.raises(WeightsError, match=r"a\.weight has no zero points, which the configuration states"):
            view_of(less, config)
        without = view_of(less, {"config_groups": {"g": {"weights": {"num_bits": bits}}}})
        assert not np.array_equal(weight_of(without, "a.weight"), weight_of(view, "a.weight"))

    def test_zero_points_that_are_not_packed(self) -> None:
        """Versions that kept the zeros of symmetric weights wrote a byte for each."""
        state, expected, config = integers(4, "group")
        zeros = {"a.weight_zero_point": torch.zeros(48, 3, dtype=torch.int8)}
        assert_within_ulp(weight_of(view_of({**state, **zeros}, config), "a.weight"), expected)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        state, expected, config = integers(4, "group", symmetric=False, dtype=dtype)
        assert expected.dtype == dtype
        assert_within_ulp(weight_of(view_of(state, config), "a.weight"), expected)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_without_a_configuration(self, bits: int) -> None:
        state, expected, _ = integers(bits, "group")
        assert_within_ulp(weight_of(view_of(state), "a.weight"), expected)

    @pytest.mark.parametrize("bits", [3, 5, 6, 7])
    @pytest.mark.parametrize("inputs", [96, 100])
    def test_padded_words(self, bits: int, inputs: int) -> None:
        """Whole codes alone in a word; zero points are packed along the outputs."""
        generator = np.random.default_rng(bits)
        codes = generator.integers(0, 2**bits, (40, inputs))
        zeros = generator.integers(0, 2**bits, (40, 4))
        scale = torch.rand(40, 4) + 0.5
        state = {
            "a.weight_packed": padded(codes, bits),
            "a.weight_scale": scale,
            "a.weight_shape": torch.tensor([40, inputs]),
            "a.weight_zero_point": padded(zeros.T, bits).T.contiguous(),
        }
        config = {"config_groups": {"g": {"weights": {"num_bits": bits}}}}
        view = view_of(state, config)
        group = np.arange(inputs) // (inputs // 4)
        expected = (codes - zeros[:, group]) * scale.numpy()[:, group]
        np.testing.assert_array_equal(weight_of(view, "a.weight"), expected.astype(np.float32))
        assert view.tensors["a.weight"].precision == f"int{bits} compressed-tensors"

    def test_padded_and_dense_of_one_length(self) -> None:
        """20 codes of 3 bits take two words either way, but are cut at other places."""
        state = {
            "a.weight_packed": torch.zeros(40, 2, dtype=torch.int32),
            "a.weight_scale": torch.ones(40, 1),
            "a.weight_shape": torch.tensor([40, 20]),
        }
        with pytest.raises(WeightsError, match="may hold several widths"):  # 40 words do not tell
            view_of(state, {"config_groups": {"g": {"weights": {"num_bits": 3}}}})
        few = {
            **state,
            "a.weight_packed": torch.zeros(40, 1, dtype=torch.int32),
            "a.weight_shape": torch.tensor([40, 9]),
        }
        assert view_of(few, {"config_groups": {"g": {"weights": {"num_bits": 3}}}}).tensors["a.weight"].shape == (40, 9)

    def test_group_index(self) -> None:
        state, _, config = integers(4, "group", symmetric=False)
        plain = weight_of(view_of(state, config), "a.weight")
        unset = {**state, "a.weight_g_idx": torch.full((96,), -1, dtype=torch.int32)}
        np.testing.assert_array_equal(weight_of(view_of(unset, config), "a.weight"), plain)
        order = torch.randperm(96, generator=torch.Generator().manual_seed(3))
        index = (torch.arange(96) // 32)[order].to(torch.int32)
        module = library("compressed_tensors.compressors.pack_quantized.helpers")
        codes = module.unpack_from_int32(state["a.weight_packed"], 4, torch.Size([48, 96])).float()
        zeros = module.unpack_from_int32(state["a.weight_zero_point"], 4, torch.Size([48, 3]), packed_dim=0).float()
        expected = (codes - zeros[:, index.long()]) * state["a.weight_scale"][:, index.long()]
        view = view_of({**state, "a.weight_g_idx": index}, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert not np.array_equal(weight_of(view, "a.weight"), plain)
        ordered = {**config["config_groups"]["group_0"]["weights"], "actorder": "group"}
        with pytest.raises(WeightsError, match="has no weight_g_idx"):
            view_of(state, {"config_groups": {"g": {"weights": ordered}}})
        for wrong in (3, -2):
            index[5] = wrong
            broken = view_of({**state, "a.weight_g_idx": index}, config)
            with pytest.raises(WeightsError, match=f"names group {wrong} of 3"):
                broken.tensors["a.weight"].read()

    def test_stacked_experts(self) -> None:
        module = library("compressed_tensors.compressors.pack_quantized.helpers")
        codes = torch.randint(-8, 8, (3, 16, 64), dtype=torch.int8)
        zeros = torch.randint(-8, 8, (3, 16, 2), dtype=torch.int8)
        scale = torch.rand(3, 16, 2) + 0.1
        state = {
            "experts.weight_packed": module.pack_to_int32(codes, 4),
            "experts.weight_zero_point": module.pack_to_int32(zeros, 4, packed_dim=0),
            "experts.weight_scale": scale,
            "experts.weight_shape": torch.tensor([3, 16, 64]),
        }
        expected = (codes.float() - zeros.float().repeat_interleave(32, 2)) * scale.repeat_interleave(32, 2)
        assert_within_ulp(weight_of(view_of(state), "experts.weight"), expected)

    def test_only_the_rows_that_are_asked_for_are_read(self, stored: type[StoredTensors]) -> None:
        parts, _, config = integers(4, "group")
        held = stored(parts, config)
        tensor = effective(held).view.tensors["a.weight"]
        assert held.bytes_read == 16  # the shape
        tensor.rows(6, 12)
        assert held.bytes_read == 16 + 6 * 12 * 4 + 6 * 3 * 4


class TestBytes:
    @pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_integers(self, strategy: str, symmetric: bool) -> None:
        state, expected, config = integers(8, strategy, symmetric=symmetric, form="int-quantized")
        view = view_of(state, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert view.tensors["a.weight"].precision == "int8 compressed-tensors"
        assert list(view.tensors) == ["a.weight"]

    def test_ragged_blocks_of_integers(self) -> None:
        given: dict[str, Any] = {"num_bits": 8, "type": "int", "strategy": "block", "block_structure": [32, 64]}
        scale = torch.rand(2, 2) * 1e-3 + 1e-3
        state, expected, config = compressed(normal(48, 100), "int-quantized", scale, symmetric=True, **given)
        assert_within_ulp(weight_of(view_of(state, config), "a.weight"), expected)

    def test_blocks_of_another_library(self) -> None:
        """DeepSeek's blocks with integers in place of fp8."""
        codes, scale = torch.randint(-127, 128, (200, 300), dtype=torch.int8), torch.rand(2, 3) + 0.1
        config = {"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}
        view = view_of({"a.weight": codes, "a.weight_scale_inv": scale}, config)
        expected = codes.float() * scale[torch.arange(200)[:, None] // 128, torch.arange(300)[None] // 128]
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert view.tensors["a.weight"].precision == "int8"
        unknown = view_of({"a.weight": codes, "a.scale": scale}, config)  # a name that no such format has
        assert unknown.tensors["a.weight"].dtype == "int8"

    def test_groups_that_the_configuration_contradicts(self) -> None:
        state, _, config = integers(8, "group", form="int-quantized")
        config["config_groups"]["group_0"]["weights"]["group_size"] = 48
        with pytest.raises(WeightsError, match=r"in blocks of \[1, 48\]"):
            view_of(state, config)

    def test_few_bits_a_byte(self) -> None:
        state, expected, config = integers(4, "group", form="naive-quantized")
        view = view_of(state, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert view.tensors["a.weight"].precision == "int4 compressed-tensors"

    @pytest.mark.parametrize("strategy", ["tensor", "channel", "block"])
    def test_floats(self, strategy: str) -> None:
        """Blocks of 32 x 64 in 48 x 100: both edges are ragged."""
        shape = {"tensor": (1,), "channel": (48, 1), "block": (2, 2)}[strategy]
        given: dict[str, Any] = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True}
        given |= {"block_structure": [32, 64]} if strategy == "block" else {}
        scale = torch.rand(shape) * 1e-3 + 1e-3
        state, expected, config = compressed(normal(48, 100), "float-quantized", scale, **given)
        assert state["a.weight"].dtype == torch.float8_e4m3fn
        assert_within_ulp(weight_of(view_of(state, config), "a.weight"), expected)


class TestSmallFloats:
    @pytest.mark.parametrize(
        ("form", "bits", "size", "precision"),
        [
            ("nvfp4-pack-quantized", 4, 16, "nvfp4 compressed-tensors"),
            ("mxfp4-pack-quantized", 4, 32, "mxfp4 compressed-tensors"),
            ("mxfp6-pack-quantized", 6, 32, "mxfp6 compressed-tensors"),
            ("mxfp8-quantized", 8, 32, "mxfp8"),
        ],
    )
    def test_packed(self, form: str, bits: int, size: int, precision: str) -> None:
        groups = 96 // size
        scale = torch.exp2(torch.randint(-8, -2, (48, groups)).float())
        if "nvfp4" in form:
            scale = (torch.rand(48, groups) * 100 + 1).to(torch.float8_e4m3fn).float()
        strategy = "tensor_group" if "nvfp4" in form else "group"
        state, expected, config = compressed(
            normal(48, 96).to(torch.bfloat16),
            form,
            scale if "nvfp4" in form else scale.to(torch.bfloat16),
            num_bits=bits,
            type="float",
            strategy=strategy,
            group_size=size,
            symmetric=True,
            **({"scale_dtype": torch.uint8} if "mx" in form else {}),
        )
        view = view_of(state, config)
        assert_within_ulp(weight_of(view, "a.weight"), expected)
        assert np.unique(weight_of(view, "a.weight")).size > 20
        assert (list(view.tensors), view.tensors["a.weight"].precision) == (["a.weight"], precision)


class TestSparse:
    @pytest.mark.parametrize("base", ["a.weight", "a"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_bitmask(self, base: str, dtype: torch.dtype) -> None:
        dense = normal(33, 21).to(dtype)
        dense[torch.rand(33, 21) < 0.6] = 0
        mask = dense != 0
        packed = np.packbits(mask.numpy(), axis=-1, bitorder="little")
        counts = mask.sum(1)
        state = {
            f"{base}.compressed": dense[mask],
            f"{base}.bitmask": torch.from_numpy(packed),
            f"{base}.shape": torch.tensor([33, 21]),
            f"{base}.row_offsets": counts.cumsum(0) - counts,
        }
        view = view_of(state)
        np.testing.assert_array_equal(weight_of(view, "a.weight"), dense.float().numpy())
        assert list(view.tensors) == ["a.weight"]
        with pytest.raises(WeightsError, match="does not fit"):
            view_of({**state, f"{base}.shape": torch.tensor([10**6, 10**6])})
        few = view_of({**state, f"{base}.compressed": dense[mask][:-1]})
        with pytest.raises(WeightsError, match="marks"):
            few.tensors["a.weight"].read()

    def test_half_of_quantised_values(self) -> None:
        """2:4 sparse, and quantised to fp8 besides."""
        dense = normal(16, 32).to(torch.float8_e4m3fn)
        mask = torch.tensor([True, False, True, False]).repeat(16, 8)
        state = {
            "a.weight.compressed": dense[mask].reshape(16, 16),
            "a.weight.bitmask": torch.from_numpy(np.packbits(mask.numpy(), axis=-1, bitorder="little")),
            "a.weight.shape": torch.tensor([16, 32]),
            "a.weight_scale": torch.rand(16, 1) + 0.5,
        }
        expected = dense.float() * mask * state["a.weight_scale"]
        view = view_of(state, {"quant_method": METHOD})
        assert_within_ulp(weight_of(view, "a.weight"), expected)

    def test_marlin_is_refused_by_name(self) -> None:
        state = {
            "a.weight_packed": torch.zeros(4, 64, dtype=torch.int32),
            "a.scale_packed": torch.ones(1, 64),
            "a.meta": torch.zeros(64, 4, dtype=torch.int16),
        }
        with pytest.raises(WeightsError, match=r"4,096 marlin-24 weights \(compressed-tensors\)"):
            plan_weights(opened({**state, "b.weight": normal(8, 8)}))


class TestDamage:
    CONFIG: ClassVar = {
        "quant_method": METHOD,
        "config_groups": {"g": {"weights": {"num_bits": 4, "strategy": "group", "group_size": 32}}},
    }

    @staticmethod
    def state(**parts: torch.Tensor) -> dict[str, torch.Tensor]:
        state = {
            "weight_packed": torch.arange(48 * 12, dtype=torch.int32).reshape(48, 12),
            "weight_scale": torch.rand(48, 3) + 0.1,
            "weight_shape": torch.tensor([48, 96]),
        }
        return {f"a.{name}": tensor for name, tensor in {**state, **parts}.items() if tensor.numel()}

    def test_none(self) -> None:
        assert view_of(self.state(), self.CONFIG).tensors["a.weight"].shape == (48, 96)

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"weight_scale": torch.rand(48, 5)}, "does not fit"),
            ({"weight_scale": torch.rand(47, 3)}, "does not fit"),
            ({"weight_scale": torch.rand(48, 6)}, "does not fit"),  # groups of 16, where 32 are stated
            ({"weight_scale": torch.empty(0)}, "has no a.weight_scale"),
            ({"weight_shape": torch.empty(0, dtype=torch.int64)}, "has no weight_shape"),
            ({"weight_shape": torch.tensor([48, 10**12])}, r"says \[48, 1000000000000\]"),
            ({"weight_shape": torch.tensor([10**6, 10**6])}, "says"),
            ({"weight_shape": torch.tensor([48, -96])}, "says"),
            ({"weight_shape": torch.tensor([48, 96, 1])}, "is no shape of 2 axes"),
            ({"weight_shape": torch.tensor([48.0, 96.0])}, "is no shape of 2 axes"),
            ({"weight_shape": torch.tensor([48, 95])}, "no groups of 32"),
            ({"weight_shape": torch.tensor([48, 64])}, "does not fit"),
            ({"weight_zero_point": torch.zeros(48, 3, dtype=torch.int32)}, "does not fit scales"),
            ({"weight_zero_point": torch.zeros(6, 3, dtype=torch.int8)}, "does not fit scales"),
            ({"weight_g_idx": torch.zeros(95, dtype=torch.int32)}, "does not fit"),
            ({"weight": torch.zeros(48, 96)}, "holds a.weight and, as a.weight_packed, its codes"),
        ],
    )
    def test_parts_that_do_not_fit(self, parts: dict[str, torch.Tensor], message: str) -> None:
        with pytest.raises(WeightsError, match=message) as caught:
            view_of(self.state(**parts), self.CONFIG)
        assert str(caught.value).startswith("model.safetensors")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("bits", [3, 8, 17, [4], "four"])
    def test_bits_that_the_tensors_contradict(self, bits: object) -> None:
        config = {"config_groups": {"g": {"weights": {"num_bits": bits}}}}
        if bits == [4]:  # not a number: nothing is stated
            assert view_of(self.state(), config).tensors["a.weight"].precision.startswith("int4")
            return
        with pytest.raises(WeightsError, match=r"does not fit|may hold"):
            view_of(self.state(), config)

    @pytest.mark.parametrize("bad", [0.0, float("nan"), float("-inf")])
    def test_scales_that_are_no_numbers(self, bad: float) -> None:
        state = self.state()
        state["a.weight_scale"][5, 1] = bad
        view = view_of(state, self.CONFIG)
        with pytest.raises(WeightsError, match=r"a\.weight_scale holds (1 values|scales of zero)"):
            view.tensors["a.weight"].read()

    def test_small_floats_without_their_parts(self) -> None:
        packed = {"a.weight_packed": torch.zeros(48, 48, dtype=torch.uint8)}
        fp8 = torch.ones(48, 6).to(torch.float8_e4m3fn)
        with pytest.raises(WeightsError, match="other parts than nvfp4"):
            view_of({**packed, "a.weight_scale": fp8})
        with pytest.raises(WeightsError, match="does not fit"):
            view_of({**packed, "a.weight_scale": torch.ones(48, 5).to(torch.float8_e4m3fn)})
        whole = {"a.weight_global_scale": torch.zeros(1)}
        view = view_of({**packed, "a.weight_scale": fp8, **whole})
        with pytest.raises(WeightsError, match=r"a\.weight_global_scale holds scales of zero"):
            view.tensors["a.weight"].read()
