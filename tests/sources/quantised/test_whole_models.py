"""Whole quantised models in files: the layers of the model before quantisation, in the same order."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from tests.sources.quantised.tensors_in_memory import library
from tests.sources.quantised.test_compressed_tensors import METHOD, quantisation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry.types import WeightsPlan

    State = dict[str, torch.Tensor]
    Stored = tuple[State, dict[str, Any]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def llama() -> torch.nn.Module:
    transformers = library("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    made: torch.nn.Module = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    return made


def saved(folder: Path, stored: Stored, config: Any) -> Path:
    folder.mkdir()
    state, said = stored
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "quantization_config": said}, default=str))
    return folder


def matrices(folder: Path) -> tuple[WeightsPlan, list[np.ndarray]]:
    (ref,) = expand(str(folder))
    with open_ref(ref) as checkpoint:
        plan = plan_weights(checkpoint)
        return plan, [layer_matrix(checkpoint, layer) for layer in plan.layers]


def quantised(state: State, change: Callable[[torch.Tensor], State]) -> State:
    """A state dict with the parts of each linear layer of a block in place of its weight."""
    made: State = {}
    for name, tensor in state.items():
        if ".layers." in name and tensor.ndim == 2:
            made |= {name.removesuffix("weight") + part: each for part, each in change(tensor).items()}
        else:
            made[name] = tensor
    return made


def deepseek(state: State) -> Stored:
    """Blocks of 128 x 128 with ragged edges."""

    def change(weight: torch.Tensor) -> State:
        rows, columns = weight.shape
        scale = torch.zeros(-(-rows // 128), -(-columns // 128))
        codes = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                place = slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128)
                scale[i, j] = weight[place].abs().max().float() / 448
                codes[place] = (weight[place].float() / scale[i, j]).to(torch.float8_e4m3fn)
        return {"weight": codes, "weight_scale_inv": scale}

    return quantised(state, change), {"quant_method": "fp8", "weight_block_size": [128, 128]}


def compressed(form: str, **weights: Any) -> Callable[[State], Stored]:
    """Quantised and packed by compressed-tensors."""

    def make(state: State) -> Stored:
        module = quantisation()
        helpers = library("compressed_tensors.quantization.utils")
        given = {"symmetric": True, **weights}
        scheme = module.QuantizationScheme(targets=["Linear"], weights=module.QuantizationArgs(**given))
        compressor = library("compressed_tensors.compressors").BaseCompressor.get_value_from_registry(form)

        def change(weight: torch.Tensor) -> State:
            size = given.get("group_size") or weight.shape[1]
            grouped = weight.unflatten(1, (-1, size))
            whole = helpers.generate_gparam(weight.min(), weight.max()) if "nvfp4" in form else None
            scale, zero = helpers.calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme.weights, whole)
            parts = {"weight": weight, "weight_scale": scale}
            parts |= {} if given["symmetric"] else {"weight_zero_point": zero}
            parts |= {} if whole is None else {"weight_global_scale": whole}
            return {name: each.detach() for name, each in compressor.compress(parts, scheme).items()}

        groups = {"group_0": {"targets": ["Linear"], "weights": given, "format": form}}
        return quantised(state, change), {"quant_method": METHOD, "format": form, "config_groups": groups}

    return make


FORMS: dict[str, tuple[Callable[[State], Stored], str, float]] = {
    "deepseek": (deepseek, "fp8 e4m3 (blocks)", 0.05),
    "packed int4": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=32), "int4 compressed-tensors", 0.2
    ),
    "packed int4 with zeros": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False),
        "int4 compressed-tensors", 0.2,
    ),
    "packed int8": (compressed("pack-quantized", num_bits=8, strategy="channel"), "int8 compressed-tensors", 0.02),
    "packed int3": (compressed("pack-quantized", num_bits=3, strategy="channel"), "int3 compressed-tensors", 0.5),
    "int8": (compressed("int-quantized", num_bits=8, strategy="channel"), "int8 compressed-tensors", 0.02),
    "fp8": (compressed("float-quantized", num_bits=8, type="float", strategy="channel"), "fp8 e4m3", 0.05),
    "nvfp4": (
        compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16),
        "nvfp4 compressed-tensors", 0.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", list(FORMS))
def test_a_quantised_model_has_the_layers_of_the_original(form: str, tmp_path: Path) -> None:
    make, precision, error = FORMS[form]
    model = llama()
    model.save_pretrained(tmp_path / "original")  # type: ignore[operator]
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    plan, found = matrices(saved(tmp_path / "quantised", make(state), model.config))
    original, expected = matrices(tmp_path / "original")
    assert [(x.name, x.p, x.q, x.kind) for x in plan.layers] == [(x.name, x.p, x.q, x.kind) for x in original.layers]
    assert plan.parameters == original.parameters
    assert plan.precision == f"{precision}, bfloat16"
    assert plan.unread == 0
    for layer, one, other in zip(plan.layers, found, expected, strict=True):
        difference = np.linalg.norm(one - other) / np.linalg.norm(other)
        assert difference == 0 if ".layers." not in layer.name else 0 < difference < error


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
def test_what_transformers_saves_by_torchao(kind: str, tmp_path: Path) -> None:
    transformers, torchao = library("transformers"), library("torchao.quantization")
    settings = {
        "int8": torchao.Int8WeightOnlyConfig,
        "fp8": torchao.Float8WeightOnlyConfig,
        "int4": lambda: torchao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=torchao.PerGroup(32)),
    }[kind]()
    llama().save_pretrained(tmp_path / "original")  # type: ignore[operator]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "original", quantization_config=transformers.TorchAoConfig(settings), dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "quantised")
    plan, found = matrices(tmp_path / "quantised")
    original, _ = matrices(tmp_path / "original")
    assert [(x.name, x.p, x.q, x.kind) for x in plan.layers] == [(x.name, x.p, x.q, x.kind) for x in original.layers]
    assert plan.parameters == original.parameters
    named = {"int8": "int8 torchao", "int4": "int4 torchao", "fp8": "fp8 e4m3 torchao"}[kind]
    assert plan.precision == f"{named}, bfloat16"
    state = model.state_dict()
    for layer, one in zip(plan.layers, found, strict=True):
        weight = state[layer.tensor]
        weight = weight.dequantize() if type(weight).__module__.startswith("torchao") else weight
        np.testing.assert_allclose(one, weight.float().numpy(), rtol=2**-8, atol=1e-9)


@pytest.mark.parametrize("width", [32, 64])
def test_experts_of_gpt_oss(width: int, tmp_path: Path) -> None:
    """The library has no kernel that quantises on a CPU: random codes, and the model that it reads from them."""
    transformers, module = library("transformers"), library("transformers.integrations.mxfp4")
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=96, hidden_size=64, intermediate_size=width, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=3, num_experts_per_tok=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.GptOssForCausalLM(config).to(torch.bfloat16)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    packed: State = {}
    for name, tensor in list(state.items()):
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = tensor.shape
            packed[f"{name}_blocks"] = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
            packed[f"{name}_scales"] = torch.randint(118, 122, (experts, outputs, inputs // 32), dtype=torch.uint8)
            state[name] = module.convert_moe_packed_tensors(packed[f"{name}_blocks"], packed[f"{name}_scales"])
        else:
            packed[name] = tensor
    plain, _ = matrices(saved(tmp_path / "plain", (state, {}), config))
    plan, found = matrices(saved(tmp_path / "packed", (packed, {"quant_method": "mxfp4"}), config))
    _, expected = matrices(tmp_path / "plain")
    assert [(x.name, x.p, x.q, x.kind) for x in plan.layers] == [(x.name, x.p, x.q, x.kind) for x in plain.layers]
    assert sum("experts" in layer.name for layer in plan.layers) == 18  # gate, up and down of three in two blocks
    assert plan.parameters == plain.parameters
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_without_its_scales_is_refused(tmp_path: Path) -> None:
    model = llama()
    state, config = deepseek({name: tensor.detach() for name, tensor in model.state_dict().items()})
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("_scale_inv")}
    with pytest.raises(WeightsError, match="has no scale"):
        matrices(saved(tmp_path / "quantised", (kept, config), model.config))
