"""GGUF files as llama.cpp's converter writes them give the layers of the network in transformers."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.scripts import gguf_convert_endian
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from registry.sources import expand, open_module, open_ref
from registry.sources.matrix_rule import plan_headers
from registry.sources.references import open_headers
from tests.layouts import networks
from tests.layouts.gguf_files import ARCHITECTURES, permuted, write_gguf
from tests.layouts.measured import distances, read

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tests.layouts.measured import Read

_WORDS = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_DEEPSEEK = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48,
    "moe_intermediate_size": 24, "n_routed_experts": 4, "num_local_experts": 4, "n_group": 2, "topk_group": 1,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
_SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
# What only llama.cpp's own tests would cover, and networks whose converter leaves a layer out (BERT's head).
_OTHERS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**_SIZES, **_WORDS), add_pooling_layer=False),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=2, **_WORDS)
    ),
    "mamba2": lambda: transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            hidden_size=32, state_size=4, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=2, **_WORDS
        )
    ),
    "deepseek": lambda: transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**_DEEPSEEK, **_WORDS)),
    "gptj": lambda: transformers.GPTJForCausalLM(
        transformers.GPTJConfig(n_embd=32, n_head=4, n_layer=2, n_positions=40, rotary_dim=4, **_WORDS)
    ),
    "mpt": lambda: transformers.MptForCausalLM(
        transformers.MptConfig(d_model=32, n_heads=4, n_layers=2, max_seq_len=40, **_WORDS)
    ),
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**_SIZES, **_WORDS)),
    "starcoder2": lambda: transformers.Starcoder2ForCausalLM(
        transformers.Starcoder2Config(**_SIZES, num_key_value_heads=2, **_WORDS)
    ),
    "granite": lambda: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(**_SIZES, num_key_value_heads=2, **_WORDS)
    ),
    "glm4": lambda: transformers.Glm4ForCausalLM(
        transformers.Glm4Config(**_SIZES, num_key_value_heads=2, head_dim=8, **_WORDS)
    ),
    "modernbert": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(**_SIZES, cls_token_id=3, sep_token_id=4, **_WORDS)
    ),
    "lfm2": lambda: transformers.Lfm2ForCausalLM(
        transformers.Lfm2Config(**_SIZES, num_key_value_heads=2, full_attn_idxs=[1], **_WORDS)
    ),
}
# Stored as one tensor of all experts in transformers, as two in GGUF; or rounded by a logarithm.
_OTHER_BYTES = frozenset({"mixtral", "qwen2-moe", "qwen3-moe", "gpt-oss", "mamba", "mamba2", "deepseek"})


@functools.cache
def network(name: str) -> nn.Module:
    if name not in _OTHERS:
        return networks.build(name)
    torch.manual_seed(5)
    module: nn.Module = _OTHERS[name]().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module


def opened(path: Path) -> Read:
    [ref] = expand(path)
    return read(open_ref(ref))


def shapes(found: Read) -> list[tuple[int, ...]]:
    return [layer.shape for layer in found.plan.layers]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_converted_network_is_the_network(name: str, tmp_path: Path) -> None:
    module = network(name)
    live, found = read(open_module(module)), opened(write_gguf(module, tmp_path / "m.gguf", name))
    assert shapes(found) == shapes(live)
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        exact = not layer.name.endswith("A_log")
        np.testing.assert_allclose(two, one, rtol=0, atol=0 if exact else 2e-7, err_msg=layer.name)
    assert max(distances(live.measured, found.measured).values()) <= (1e-6 if name.startswith("mamba") else 0.0)
    assert (found.plan.parameters, found.plan.topology) == (live.plan.parameters, live.plan.topology)
    assert (found.plan.content_hash == live.plan.content_hash) == (name not in _OTHER_BYTES)


def test_the_header_tells_the_layers(tmp_path: Path) -> None:
    """Names, shapes and permutations cost no byte of a tensor."""
    path = write_gguf(network("mixtral"), tmp_path / "m.gguf", "mixtral")
    [ref] = expand(path)
    with open_headers(ref) as checkpoint:
        plan = plan_headers(checkpoint)
    found = opened(path).plan
    assert [(layer.name, layer.shape) for layer in plan.layers] == [(each.name, each.shape) for each in found.layers]
    assert (plan.parameters, plan.topology, plan.bytes) == (found.parameters, found.topology, found.bytes)


def test_rows_left_as_llama_cpp_has_them_would_be_another_content(tmp_path: Path) -> None:
    """The comparison notices order: the same network without the converter's permutation has another content."""
    module = network("llama")
    live = read(open_module(module))
    weight = module.get_parameter("model.layers.0.self_attn.q_proj.weight")
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(torch.from_numpy(permuted(kept.numpy(), 4)))
        other = opened(write_gguf(module, tmp_path / "m.gguf", "llama"))
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert other.plan.content_hash != live.plan.content_hash


@pytest.mark.parametrize("parts", [1, 5])
def test_parts_are_one_model(parts: int, tmp_path: Path) -> None:
    module = network("llama")
    first = write_gguf(module, tmp_path / "m.gguf", "llama", parts=parts)
    assert first.name.startswith("m-00001-of-000")
    live, found = read(open_module(module)), opened(first)
    assert found.plan.content_hash == live.plan.content_hash
    [whole] = expand(tmp_path)
    assert read(open_ref(whole)).plan.content_hash == live.plan.content_hash


def test_half_precision_is_exact(tmp_path: Path) -> None:
    module = network("llama")
    found = opened(write_gguf(module, tmp_path / "m.gguf", "llama", kind=gguf.GGMLQuantizationType.F16))
    assert found.plan.precision == "float16"
    for matrix, layer in zip(found.matrices, found.plan.layers, strict=True):
        weight = module.get_parameter(layer.tensor).detach()
        np.testing.assert_array_equal(matrix, weight.half().float().numpy(), err_msg=layer.name)


@functools.cache
def llama(**changed: Any) -> nn.Module:
    settings = {**networks._GATED, "intermediate_size": 64, "vocab_size": 96, **changed}
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()


@pytest.mark.parametrize(
    ("kind", "bound"), [("Q8_0", 0.009), ("Q5_1", 0.05), ("Q5_0", 0.07), ("Q4_1", 0.1), ("Q4_0", 0.13), ("BF16", 4e-3)]
)
def test_quantised_networks_stay_within_the_precision_of_the_type(kind: str, bound: float, tmp_path: Path) -> None:
    """Half a step of a block: its largest value by 127, 16, 8 or so; and not closer than the type can be."""
    module, number = llama(), gguf.GGMLQuantizationType[kind]
    live, found = read(open_module(module)), opened(write_gguf(module, tmp_path / "m.gguf", "llama", kind=number))
    assert shapes(found) == shapes(live)
    assert found.plan.precision == ("bfloat16" if kind == "BF16" else f"{kind.lower()} gguf")
    errors = [
        np.abs(one - two).max() / np.abs(one).max() for one, two in zip(live.matrices, found.matrices, strict=True)
    ]
    assert bound / 20 < max(errors) < bound
    assert found.plan.parameters == live.plan.parameters
    assert found.plan.bytes < live.plan.bytes * (0.6 if kind == "BF16" else 0.4)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_big_endian_files_hold_the_same_values(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, number = llama(), gguf.GGMLQuantizationType[kind]
    little = opened(write_gguf(module, tmp_path / "little.gguf", "llama", kind=number))
    monkeypatch.setattr("builtins.input", lambda _: "YES")
    path = write_gguf(module, tmp_path / "big.gguf", "llama", kind=number, big=kind == "F32")
    big = opened(path if kind == "F32" else converted_to_big(path))
    for one, two, layer in zip(little.matrices, big.matrices, big.plan.layers, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=layer.name)


def converted_to_big(path: Path) -> Path:
    """The file with its numbers turned by the library's own script."""
    reader = gguf.GGUFReader(path, "r+")
    gguf_convert_endian.convert_byteorder(reader, argparse.Namespace(order="big", dry_run=False))
    return path


def test_transformers_reads_the_same_tensors_from_the_file(tmp_path: Path) -> None:
    """A second opinion on names and permutation: transformers' own loader of GGUF."""
    module = network("llama")
    path = write_gguf(module, tmp_path / "m.gguf", "llama")
    loaded = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=module)["tensors"]
    [ref] = expand(path)
    with open_ref(ref) as checkpoint:
        assert {info.name for info in checkpoint.tensors} == set(loaded)
        for name, tensor in loaded.items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor.numpy(), err_msg=name)
