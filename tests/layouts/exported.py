"""Networks exported to ONNX by torch, with what each exporter needs to follow them."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

__all__ = ["inputs", "plain", "to_onnx"]

_IMAGES = {"vit": 16, "timm-vit": 16, "swin": 32, "convnext": 32, "mobilenet": 32, "unet": 32, "mixed": 2}


def inputs(name: str) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """What a network of `NETWORKS` is called with."""
    tokens = torch.arange(7)[None] % 50 + 3
    if name in _IMAGES:
        return (torch.randn(1, 3, _IMAGES[name], _IMAGES[name]),), {}
    if name in ("lstm", "gru"):
        return (tokens.T,), {}
    if name == "whisper":
        return (), {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": tokens}
    if name == "bert":
        return (tokens, torch.ones_like(tokens), tokens % 2), {}
    called = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if name == "t5":
        return (), {**called, "decoder_input_ids": tokens}
    return (), called


def plain(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass that gives its first tensor alone, which the older exporter asks for."""

    def called(*args: Any, **settings: Any) -> torch.Tensor:
        found = forward(*args, **settings)
        return found if isinstance(found, torch.Tensor) else found.logits

    called.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return called


def to_onnx(module: nn.Module, name: str, path: Path, *, dynamo: bool) -> Path:
    """Export a network; with its configuration beside, if it has one."""
    config: Any = getattr(module, "config", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if hasattr(config, "save_pretrained"):
        config.use_cache = False
        config.save_pretrained(path.parent)
    args, settings = inputs(name)
    forward = module.forward
    module.forward = plain(forward)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of exporters on what they deprecate and trace
            torch.onnx.export(module, args, str(path), kwargs=settings, dynamo=dynamo)
    finally:
        logging.disable(logging.NOTSET)
        module.forward = forward
    return path
