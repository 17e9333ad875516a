"""Quantised files of a network, written by the libraries that define the layouts, and what these libraries read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    Parts = dict[str, torch.Tensor]

__all__ = ["QUANTISED", "Format"]


@dataclass(frozen=True)
class Format:
    """A layout: parts of one weight (out, in) and the weight that its library reads from them.

    ``configuration``: ``quantization_config`` of the file. ``bits``: of a code. ``precision``: as it is shown.
    """

    quantise: Callable[[str, torch.Tensor], tuple[Parts, torch.Tensor]]
    configuration: dict[str, Any]
    bits: int
    precision: str


def _bitsandbytes_4bit(name: str, weight: torch.Tensor, kind: str) -> tuple[Parts, torch.Tensor]:
    from bitsandbytes import functional

    with torch.compiler.set_stance("force_eager"):
        packed, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=True)
        made = functional.dequantize_4bit(packed, state)
    return {name: packed, **{f"{name}.{part}": value for part, value in state.as_dict(packed=True).items()}}, made


def _nf4(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    return _bitsandbytes_4bit(name, weight, "nf4")


def _fp4(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    return _bitsandbytes_4bit(name, weight, "fp4")


def _int8(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    from bitsandbytes import functional

    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    made = functional.int8_vectorwise_dequant(codes, scales)
    above = name.removesuffix("weight")
    return {name: codes, f"{above}SCB": scales, f"{above}weight_format": torch.tensor(0, dtype=torch.uint8)}, made


def _torch_fp8(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    """One scale a row, as compressed-tensors' float-quantized has it; torch's own float8 is the definition."""
    scale = weight.abs().amax(1, keepdim=True) / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return {name: codes, f"{name}_scale": scale}, codes.to(torch.float32) * scale


def _block_fp8(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    """Scales of blocks of 32 by 32, the last ones ragged, as DeepSeek-V3 has them of 128 by 128."""
    rows, columns = (-(-extent // 32) for extent in weight.shape)
    padded = torch.zeros(rows * 32, columns * 32)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    scale = padded.reshape(rows, 32, columns, 32).abs().amax((1, 3)).clamp_min(1e-8) / 448
    wide = scale.repeat_interleave(32, 0).repeat_interleave(32, 1)[: weight.shape[0], : weight.shape[1]]
    codes = (weight / wide).to(torch.float8_e4m3fn)
    return {name: codes, f"{name}_scale_inv": scale}, codes.to(torch.float32) * wide


def _compressed(name: str, weight: torch.Tensor, bits: int) -> tuple[Parts, torch.Tensor]:
    from compressed_tensors.compressors import pack_to_int32

    groups = weight.reshape(len(weight), -1, 16)
    scale = groups.abs().amax(2) / (2 ** (bits - 1) - 1)
    codes = (groups / scale[..., None]).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    made = (codes * scale[..., None]).reshape(weight.shape)
    return {
        f"{name}_packed": pack_to_int32(codes.reshape(weight.shape).to(torch.int8), bits),
        f"{name}_scale": scale,
        f"{name}_shape": torch.tensor(weight.shape),
    }, made


def _compressed_int4(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    return _compressed(name, weight, 4)


def _compressed_int8(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    return _compressed(name, weight, 8)


def _packed_rows(codes: np.ndarray) -> torch.Tensor:
    """Eight 4-bit codes along the first axis in a word, the first in its lowest bits."""
    grouped = codes.astype(np.uint32).reshape(-1, 8, codes.shape[1])
    words = (grouped << (4 * np.arange(8, dtype=np.uint32))[None, :, None]).sum(1, dtype=np.uint32)
    return torch.from_numpy(words.view(np.int32))


def _gptq(name: str, weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    """Groups of 16 inputs with scale and zero, written from the description of the format gptq."""
    groups = weight.T.reshape(-1, 16, len(weight)).numpy()
    low, high = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
    scale = ((high - low) / 15).astype(np.float16)
    zero = np.clip(np.round(-low / scale.astype(np.float32)), 1, 15)
    codes = np.clip(np.round(groups / scale[:, None].astype(np.float32)) + zero[:, None], 0, 15)
    made = ((codes - zero[:, None]) * scale[:, None].astype(np.float32)).reshape(-1, len(weight)).T
    above = name.removesuffix("weight")
    inputs = weight.shape[1]
    return {
        f"{above}qweight": _packed_rows(codes.reshape(inputs, len(weight))),
        f"{above}qzeros": _packed_rows((zero - 1).T).T.contiguous(),
        f"{above}scales": torch.from_numpy(scale),
        f"{above}g_idx": torch.arange(inputs, dtype=torch.int32) // 16,
    }, torch.from_numpy(np.ascontiguousarray(made))


QUANTISED: dict[str, Format] = {
    "bitsandbytes nf4": Format(_nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}, 4, "nf4 bitsandbytes"),
    "bitsandbytes fp4": Format(_fp4, {"quant_method": "bitsandbytes", "load_in_4bit": True}, 4, "fp4 bitsandbytes"),
    "bitsandbytes int8": Format(_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}, 8, "int8 bitsandbytes"),
    "fp8 rows": Format(
        _torch_fp8, {"quant_method": "compressed-tensors", "format": "float-quantized"}, 8, "fp8"
    ),
    "fp8 blocks": Format(_block_fp8, {"quant_method": "fp8", "weight_block_size": [32, 32]}, 8, "fp8"),
    "compressed-tensors int4": Format(
        _compressed_int4,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 16, "strategy": "group"}}},
        },
        4,
        "int4 compressed-tensors",
    ),
    "compressed-tensors int8": Format(
        _compressed_int8,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": 16, "strategy": "group"}}},
        },
        8,
        "int8 compressed-tensors",
    ),
    "gptq": Format(_gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "checkpoint_format": "gptq"}, 4,
                   "int4 gptq"),
}  # fmt: skip


def write(module: nn.Module, folder: Path, layout: Format) -> tuple[Path, Path]:
    """The network with its linear layers quantised, and the same with the weights that the library reads, as folders.

    Embeddings, norms and the head stay as they are, as these libraries leave them.
    """
    stored: Parts = {}
    plain: Parts = {}
    linear = {
        f"{name}.weight"
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and "head" not in name
    }
    for name, tensor in module.state_dict().items():
        if name not in linear:
            stored[name] = plain[name] = tensor.clone()
            continue
        parts, made = layout.quantise(name, tensor)
        stored |= {part: value.contiguous() for part, value in parts.items()}
        plain[name] = made.to(torch.float32).contiguous()
    config: Any = module.config
    folders = folder / "stored", folder / "plain"
    for target, state in zip(folders, (stored, plain), strict=True):
        config.save_pretrained(target)
        save_file(state, target / "model.safetensors")
    path = folders[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": layout.configuration}))
    return folders
