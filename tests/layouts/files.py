"""Ways in which one network is stored."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

__all__ = ["LOSSLESS", "ROUNDED"]


def _config(module: nn.Module, folder: Path) -> None:
    config: Any = getattr(module, "config", None)
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(config, "to_dict"):
        config.save_pretrained(folder)


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def torch_bin(module: nn.Module, folder: Path) -> Path:
    """The state dict by torch.save, with the configuration beside it."""
    _config(module, folder)
    torch.save(_state(module), folder / "pytorch_model.bin")
    return folder


def pretrained(module: nn.Module, folder: Path) -> Path:
    """The library's own save_pretrained; by torch.save where it has none."""
    if not hasattr(module, "save_pretrained"):
        return torch_bin(module, folder)
    module.save_pretrained(folder)  # type: ignore[operator]
    return folder


def sharded(module: nn.Module, folder: Path) -> Path:
    """Safetensors in several files with their index."""
    if not hasattr(module, "save_pretrained"):
        return torch_bin(module, folder)
    module.save_pretrained(folder, max_shard_size="30KB")  # type: ignore[operator]
    return folder


def saved_model(module: nn.Module, folder: Path) -> Path:
    """safetensors' save_model, which keeps one of several tied tensors and names the others in its metadata."""
    _config(module, folder)
    save_model(module, str(folder / "model.safetensors"))
    return folder


def wrapped(module: nn.Module, folder: Path) -> Path:
    """As a trainer saves it: beside an epoch, with names of DataParallel."""
    _config(module, folder)
    state = {f"module.{name}": tensor for name, tensor in _state(module).items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "pytorch_model.bin")
    return folder


def npz(module: nn.Module, folder: Path) -> Path:
    """NumPy arrays under torch's names."""
    _config(module, folder)
    np.savez(folder / "model.npz", **{name: tensor.numpy() for name, tensor in _state(module).items()})
    return folder


def bfloat16(module: nn.Module, folder: Path) -> Path:
    """Safetensors in bfloat16, tied tensors stored twice."""
    _config(module, folder)
    state = {
        name: tensor.to(torch.bfloat16).clone() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in _state(module).items()
    }
    save_file(state, folder / "model.safetensors")
    return folder


def float16(module: nn.Module, folder: Path) -> Path:
    """A state dict in half precision."""
    _config(module, folder)
    torch.save({name: tensor.half() for name, tensor in _state(module).items()}, folder / "pytorch_model.bin")
    return folder


def float8(module: nn.Module, folder: Path) -> Path:
    """Linear layers in float8 with a scale a row, as compressed-tensors and vLLM write them."""
    _config(module, folder)
    state = {}
    tensors = Counter(tensor.data_ptr() for tensor in _state(module).values())
    linear = {
        f"{name}.weight"
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear)
        and tensors[part.weight.data_ptr()] == 1  # these libraries leave tied heads
    }
    for name, tensor in _state(module).items():
        if name not in linear:
            state[name] = tensor.clone()
            continue
        scale = tensor.abs().amax(1, keepdim=True) / 448
        state[name] = (tensor / scale).to(torch.float8_e4m3fn)
        state[f"{name}_scale"] = scale
    save_file(state, folder / "model.safetensors")
    quantisation = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    path = folder / "config.json"
    if path.exists():
        path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantisation}))
    return folder


LOSSLESS: dict[str, Callable[[nn.Module, Path], Path]] = {
    "torch.save": torch_bin, "save_pretrained": pretrained, "shards": sharded, "save_model": saved_model,
    "wrapped": wrapped, "npz": npz,
}  # fmt: skip
ROUNDED: dict[str, tuple[Callable[[nn.Module, Path], Path], float, float]] = {
    "bfloat16": (bfloat16, 2.0**-8, 0.05), "float16": (float16, 2.0**-11, 0.05), "float8": (float8, 2.0**-4, 0.1),
}  # fmt: skip
"""Writer, the format's relative precision, and the largest distance in ``layered`` and ``mme``. In matrices of order 32
the three bits of a float8 count for more than in those of real networks, where 0.05 holds (``test_quantised.py``)."""
