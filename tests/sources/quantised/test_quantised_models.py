"""A small network in the layout of Llama, whole and quantised by each library: one network of the same layers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.sources import open_ref
from registry.sources.effective_weights import effective
from registry.sources.matrix_rule import layer_matrix, plan_weights
from registry.sources.references import expand
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

WIDTH, INNER, WORDS, GROUP = 64, 128, 96, 32


def _network() -> Tensors:
    """Two blocks with two key heads for four query heads, embeddings and a head."""
    shapes = {"model.embed_tokens": (WORDS, WIDTH), "lm_head": (WORDS, WIDTH)}
    for at in range(2):
        block = f"model.layers.{at}"
        shapes |= {f"{block}.self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qo"}
        shapes |= {f"{block}.self_attn.{name}_proj": (WIDTH // 2, WIDTH) for name in "kv"}
        shapes |= {f"{block}.mlp.{name}_proj": (INNER, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{block}.mlp.down_proj": (WIDTH, INNER)}
    generator = torch.Generator().manual_seed(14)
    made = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    norms = [f"model.layers.{at}.{name}_layernorm" for at in range(2) for name in ("input", "post_attention")]
    return made | {f"{name}.weight": torch.ones(WIDTH) for name in [*norms, "model.norm"]}


def _linears(network: Tensors) -> list[str]:
    """Names of the layers that quantisers replace."""
    return [name.removesuffix("weight") for name in network if "_proj." in name]


def _grouped(weight: torch.Tensor, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (out, in), zeros and scales (out, groups) nearest to a weight."""
    groups = weight.numpy().reshape(len(weight), -1, GROUP)
    low, high = groups.min(-1), groups.max(-1)
    scales = ((high - low) / (2**bits - 1)).astype(np.float16)
    zeros = np.clip(np.round(-low / scales), 1, 2**bits - 1)
    codes = np.clip(np.round(groups / scales[..., None]) + zeros[..., None], 0, 2**bits - 1)
    return codes.reshape(weight.shape).astype(np.uint32), zeros.astype(np.uint32), scales


def _words(codes: np.ndarray, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)) -> torch.Tensor:
    """Words of eight codes of the last axis, of which ``order`` lists the one in the lowest bits first."""
    grouped = codes.reshape(*codes.shape[:-1], -1, 8)[..., list(order)]
    words = (grouped << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32)
    return torch.from_numpy(np.ascontiguousarray(words).view(np.int32))


def _gptq(network: Tensors, version: int) -> tuple[Tensors, dict[str, Any]]:
    made = dict(network)
    for prefix in _linears(network):
        codes, zeros, scales = _grouped(made.pop(f"{prefix}weight"), 4)
        made[f"{prefix}qweight"] = _words(codes).T.contiguous()
        made[f"{prefix}qzeros"] = _words(zeros.T - (version == 1))
        made[f"{prefix}scales"] = torch.from_numpy(scales.T.copy())
        made[f"{prefix}g_idx"] = torch.arange(codes.shape[1], dtype=torch.int32) // GROUP
    layout = "gptq" if version == 1 else "gptq_v2"
    settings = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "checkpoint_format": layout, "sym": False}
    return made, {"quantization_config": settings}


def _awq(network: Tensors) -> tuple[Tensors, dict[str, Any]]:
    made = dict(network)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    for prefix in _linears(network):
        codes, zeros, scales = _grouped(made.pop(f"{prefix}weight"), 4)
        made[f"{prefix}qweight"] = _words(np.ascontiguousarray(codes.T), order)
        made[f"{prefix}qzeros"] = _words(np.ascontiguousarray(zeros.T), order)
        made[f"{prefix}scales"] = torch.from_numpy(scales.T.copy())
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    return made, {"quantization_config": settings}


def _bitsandbytes(network: Tensors, kind: str) -> tuple[Tensors, dict[str, Any]]:
    try:
        from bitsandbytes import functional
    except ImportError:
        missing("bitsandbytes is not installed")
    made = dict(network)
    for prefix in _linears(network):
        weight = made.pop(f"{prefix}weight")
        if kind == "int8":
            codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
            made |= {f"{prefix}weight": codes, f"{prefix}SCB": scales, f"{prefix}weight_format": torch.tensor(0).byte()}
        else:
            packed, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=True, blocksize=64)
            made |= {f"{prefix}weight.{name}": part for name, part in state.as_dict(packed=True).items()}
            made[f"{prefix}weight"] = packed
    return made, {"quantization_config": {"quant_method": "bitsandbytes"}}


def _mlx(network: Tensors, **how: Any) -> tuple[Tensors, dict[str, Any]]:
    """MLX quantises the embeddings and the head, too."""
    try:
        import mlx.core as mx
    except ImportError:
        missing("mlx is not installed")
    made = dict(network)
    for prefix in [*_linears(network), "model.embed_tokens.", "lm_head."]:
        parts = mx.quantize(mx.array(made.pop(f"{prefix}weight").numpy()), **how)
        for name, part in zip(("weight", "scales", "biases"), parts, strict=False):
            made[prefix + name] = torch.from_numpy(np.array(part))
    return made, {"quantization": how, "quantization_config": how}


LAYOUTS: dict[str, tuple[Callable[[Tensors], tuple[Tensors, dict[str, Any]]], str, float]] = {
    "gptq v1": (lambda network: _gptq(network, 1), "int4 gptq", 0.12),
    "gptq v2": (lambda network: _gptq(network, 2), "int4 gptq", 0.12),
    "awq": (_awq, "int4 awq", 0.12),
    "nf4": (lambda network: _bitsandbytes(network, "nf4"), "nf4 bitsandbytes", 0.12),
    "fp4": (lambda network: _bitsandbytes(network, "fp4"), "fp4 bitsandbytes", 0.25),
    "int8": (lambda network: _bitsandbytes(network, "int8"), "int8 bitsandbytes", 0.02),
    "mlx 4": (lambda network: _mlx(network, bits=4, group_size=64), "int4 mlx", 0.12),
    "mlx 8": (lambda network: _mlx(network, bits=8, group_size=32), "int8 mlx", 0.01),
    "mxfp4": (lambda network: _mlx(network, bits=4, group_size=32, mode="mxfp4"), "mxfp4 mlx", 0.2),
}


def _save(folder: Path, tensors: Tensors, config: dict[str, Any]) -> str:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    given = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, **config}
    (folder / "config.json").write_text(json.dumps(given))
    return str(folder / "model.safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_quantised_network_has_the_layers_of_the_whole(tmp_path: Path, layout: str) -> None:
    make, precision, error = LAYOUTS[layout]
    network = _network()
    whole, quantised = _save(tmp_path / "whole", network, {}), _save(tmp_path / "quantised", *make(network))
    with open_ref(expand(whole)[0]) as first, open_ref(expand(quantised)[0]) as second:
        one, two = effective(first), effective(second)
        before, after = plan_weights(one), plan_weights(two)
        shapes = [[(layer.name, layer.p, layer.q, layer.kind) for layer in plan.layers] for plan in (before, after)]
        assert shapes[0] == shapes[1]
        assert len(shapes[0]) == 16
        assert before.topology == after.topology
        assert before.parameters == after.parameters
        assert after.precision.split(", ")[0] == precision
        assert after.unread == 0
        assert before.content_hash != after.content_hash
        differences = [
            np.linalg.norm(layer_matrix(two, b) - layer_matrix(one, a)) / np.linalg.norm(layer_matrix(one, a))
            for a, b in zip(before.layers, after.layers, strict=True)
        ]
        assert max(differences) < error
        assert sum(value > error / 100 for value in differences) >= 14  # rounded, not equal


def test_one_layer_that_is_left_whole_does_not_matter(tmp_path: Path) -> None:
    network = _network()
    tensors, config = _gptq(network, 1)
    name = "model.layers.1.mlp.down_proj."
    for part in ("qweight", "qzeros", "scales", "g_idx"):
        del tensors[name + part]
    tensors[f"{name}weight"] = network[f"{name}weight"]
    with open_ref(expand(_save(tmp_path / "mixed", tensors, config))[0]) as checkpoint:
        plan = plan_weights(checkpoint)
    assert plan.precision == "int4 gptq, float32"
    assert len(plan.layers) == 16


@pytest.mark.parametrize("kept", [(), ("h.0.attn.c_attn",), ("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc")])
def test_the_kernels_of_gpt2_are_turned_once(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """Its Conv1D has inputs first, and its codes have outputs first, also where some layers are left as they are."""
    shapes = {"attn.c_attn": (64, 192), "attn.c_proj": (64, 64), "mlp.c_fc": (64, 256), "mlp.c_proj": (256, 64)}
    generator = torch.Generator().manual_seed(2)
    names = {f"h.{at}.{name}": shape for at in range(2) for name, shape in shapes.items()}
    network = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in names.items()}
    quantised = dict(network)
    for name in names:
        if name in kept:
            continue
        codes, zeros, scales = _grouped(quantised.pop(f"{name}.weight").T.contiguous(), 4)
        quantised[f"{name}.qweight"] = _words(codes).T.contiguous()
        quantised[f"{name}.qzeros"] = _words(zeros.T - 1)
        quantised[f"{name}.scales"] = torch.from_numpy(scales.T.copy())
    settings = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    one = _save(tmp_path / "whole", network, {"model_type": "gpt2"})
    other = _save(tmp_path / "quantised", quantised, {"model_type": "gpt2", "quantization_config": settings})
    with open_ref(expand(one)[0]) as first, open_ref(expand(other)[0]) as second:
        before, after = plan_weights(first), plan_weights(second)
        shapes_of = [[(layer.name, layer.p, layer.q) for layer in plan.layers] for plan in (before, after)]
        assert shapes_of[0] == shapes_of[1]
        for a, b in zip(before.layers, after.layers, strict=True):
            matrix = layer_matrix(first, a)
            assert np.linalg.norm(layer_matrix(second, b) - matrix) < 0.12 * np.linalg.norm(matrix)
