"""Networks that no library builds: the published zoo, and small ones made for the purpose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.zoo import zoo_folder
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["TRUE_FAMILIES", "Unknown", "made", "published"]

_FLOATING = {"F64", "F32", "F16", "BF16"}

TRUE_FAMILIES: dict[str, frozenset[str]] = {
    # Stacks of 3x3 depthwise and 1x1 convolutions with batch norms: PP-LCNet is MobileNetV1 with squeezes.
    "mobilenetv1-reg": frozenset({"mobilenetv3", "pp_lcnet"}),
    "resnet-cifar": frozenset({"resnet"}),
    "densenet-reg": frozenset({"densenet"}),
    "waifu2x-vgg7": frozenset({"vgg"}),
    "vgg": frozenset({"vgg"}),
    "resnet": frozenset({"resnet", "resnetv2", "byobnet"}),
    # Both are encoders of equal layers; timm has vision transformers in several modules.
    "vit": frozenset({"vision_transformer", "deit", "eva", "vit"}),
    "bert": frozenset({"bert"}),
}
"""By the family of an unknown network: modules of the libraries that are true near ones of it, as judged by their code.

Of any other family no architecture of the libraries is.
"""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A network that is none of the catalogue's."""

    name: str
    family: str
    tensors: tuple[TensorInfo, ...]


def published() -> list[Unknown]:
    """The models of the zoo, by their headers."""
    from safetensors import safe_open

    folder = zoo_folder()
    found = []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        model = json.loads(line)
        with safe_open(folder / model["path"], "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            tensors = tuple(
                TensorInfo(name, "float32" if one.get_dtype() in _FLOATING else "int64", tuple(one.get_shape()))
                for name, one in slices.items()
            )
        found.append(Unknown(model["name"], model["family"], tensors))
    return found


def made() -> list[Unknown]:
    """Small networks as people write them, on the meta device."""
    import torch

    found = []
    for (name, family), build in _networks().items():
        with torch.device("meta"):
            state = build().state_dict()
        tensors = (
            TensorInfo(key, str(one.dtype).removeprefix("torch."), tuple(one.shape)) for key, one in state.items()
        )
        found.append(Unknown(name, family, tuple(tensors)))
    return found


def _networks() -> dict[tuple[str, str], Callable[[], nn.Module]]:
    from torch import nn

    def mlp(*widths: int) -> nn.Module:
        return nn.Sequential(*(nn.Sequential(nn.ReLU(), nn.Linear(a, b)) for a, b in pairwise(widths)))

    def convolutions(*widths: int, norm: bool = False, classes: int = 10) -> nn.Module:
        parts: list[nn.Module] = []
        for a, b in zip((3, *widths), widths, strict=False):
            parts += [nn.Conv2d(a, b, 3, padding=1, bias=not norm), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
        return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def residual(widths: tuple[int, ...], blocks: int) -> nn.Module:
        parts: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, bias=False), nn.BatchNorm2d(widths[0])]
        before = widths[0]
        for width in widths:
            for _ in range(blocks):
                block = nn.Sequential(
                    nn.Conv2d(before, width, 3, bias=False),
                    nn.BatchNorm2d(width),
                    nn.Conv2d(width, width, 3, bias=False),
                    nn.BatchNorm2d(width),
                )
                if before != width:
                    block.append(nn.Sequential(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)))
                parts.append(block)
                before = width
        return nn.Sequential(*parts, nn.Linear(before, 10))

    def attention(width: int, depth: int, tokens: int = 0) -> nn.Module:
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width)
        first = nn.Embedding(tokens, width) if tokens else nn.Conv2d(3, width, 4, 4)
        return nn.ModuleDict(
            {"first": first, "encoder": nn.TransformerEncoder(layer, depth), "head": nn.Linear(width, 10)}
        )

    def coder(*widths: int) -> nn.Module:
        down = [nn.Conv2d(a, b, 4, 2, 1) for a, b in zip((3, *widths), widths, strict=False)]
        up = [nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in zip((3, *widths), widths, strict=False)]
        return nn.ModuleDict({"encoder": nn.Sequential(*down), "decoder": nn.Sequential(*reversed(up))})

    def adversaries() -> nn.Module:
        generator = [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in ((100, 512), (512, 256), (256, 128))]
        norms = [nn.BatchNorm2d(width) for width in (512, 256, 128)]
        critic = [nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in ((3, 64), (64, 128), (128, 256))]
        return nn.ModuleDict({"G": nn.Sequential(*generator, *norms), "D": nn.Sequential(*critic)})

    return {
        ("mlp of two layers", "mlp"): lambda: mlp(784, 128, 10),
        ("mlp of four layers", "mlp"): lambda: mlp(784, 512, 512, 256, 10),
        ("mlp of equal layers", "mlp"): lambda: mlp(512, *[512] * 6, 10),
        ("logistic regression", "mlp"): lambda: mlp(768, 10),
        ("lenet", "plain"): lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        ),
        ("three convolutions", "plain"): lambda: convolutions(32, 64, 128),
        ("four convolutions with norms", "plain"): lambda: convolutions(64, 128, 256, 512, norm=True),
        ("eight convolutions", "vgg"): lambda: convolutions(64, 64, 128, 128, 256, 256, 512, 512),
        ("vgg for small images, with norms", "vgg"): lambda: convolutions(
            64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, norm=True
        ),
        ("resnet of 16 to 64", "resnet"): lambda: residual((16, 32, 64), 3),
        ("resnet of 64 to 512, narrow stem", "resnet"): lambda: residual((64, 128, 256, 512), 2),
        ("resnet of 48 to 192", "resnet"): lambda: residual((48, 96, 192), 2),
        ("small vision transformer", "vit"): lambda: attention(192, 6),
        ("vision transformer of 384", "vit"): lambda: attention(384, 12),
        ("text encoder", "text"): lambda: attention(256, 4, 5000),
        ("text encoder of 768", "bert"): lambda: attention(768, 12, 30522),
        ("lstm", "recurrent"): lambda: nn.ModuleDict(
            {"embedding": nn.Embedding(10000, 128), "lstm": nn.LSTM(128, 256, 2), "head": nn.Linear(256, 2)}
        ),
        ("gru", "recurrent"): lambda: nn.ModuleDict({"gru": nn.GRU(40, 128, 3), "head": nn.Linear(128, 12)}),
        ("autoencoder", "coder"): lambda: coder(32, 64, 128, 256),
        ("wide autoencoder", "coder"): lambda: coder(64, 128, 256, 512),
        ("two networks against each other", "adversaries"): adversaries,
        ("low-rank adapter", "adapter"): lambda: nn.ModuleDict(
            {
                f"layer{at}": nn.ModuleList([nn.Linear(768, 8, bias=False), nn.Linear(8, 768, bias=False)])
                for at in range(24)
            }
        ),
        ("norms alone", "norms"): lambda: nn.Sequential(*(nn.BatchNorm2d(64) for _ in range(20))),
    }
