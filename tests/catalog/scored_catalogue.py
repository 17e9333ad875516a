"""A catalogue of convolutional networks, with weights, metrics and costs of its own making."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from registry.architectures.catalogue_file import Cost, write_catalogue
from registry.catalog.subjects import shapes_query
from registry.types import Architecture, ArchitectureTensor, Layout, PublishedWeights, WeightsMetric

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ARCHITECTURES", "WEIGHTS", "network", "write_scored"]

WIDTHS = {
    1: (16, 16, 32, 32, 64, 64),  # large
    2: (16, 16, 32, 32, 64, 48),  # middle, of nearly the same shapes
    3: (4, 4, 8, 8),  # tiny
}


def network(widths: Sequence[int], prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a stack of 3 x 3 convolutions with a head of ten classes; standard normal values."""
    generator = torch.Generator().manual_seed(len(widths))
    tensors, channels = {}, 3
    for at, width in enumerate(widths):
        tensors[f"{prefix}features.{at}.weight"] = torch.randn(width, channels, 3, 3, generator=generator)
        channels = width
    tensors[f"{prefix}head.weight"] = torch.randn(10, channels, generator=generator)
    return tensors


def _count(widths: Sequence[int]) -> int:
    return sum(tensor.numel() for tensor in network(widths).values())


def _built(number: int, library: str, name: str, layout: int, **more: object) -> Architecture:
    call = f"{library}.{name}({{classes}})"
    known = {"family": "stack", "task": "image-classification", "classes": 10, "channels": 3} | more
    return Architecture(number, library, name, layout, call, library, parameters=_count(WIDTHS[layout]), **known)  # type: ignore[arg-type]


ARCHITECTURES = (
    _built(1, "torchvision", "large", 1, image_size=224, gmacs=4.0),
    _built(2, "timm", "large", 1, image_size=224, gmacs=4.0),
    _built(3, "timm", "middle", 2, image_size=224, gmacs=3.0),
    _built(4, "timm", "tiny", 3, image_size=160, family="dwarf"),
    _built(5, "transformers", "words", 3, family="text", task="fill-mask", channels=None),
)


def _top1(value: float, size: int | None, dataset: str = "imagenet-1k", source: str = "a table") -> WeightsMetric:
    return WeightsMetric("top1", dataset, "val", size, value, source)


WEIGHTS = (
    PublishedWeights(
        1, 1, "V1", "torchvision:large.V1", "imagenet-1k", "BSD-3-Clause", "a page", 1000, 900, "",
        metrics=(_top1(79.0, None, source="metadata"),),
    ),
    PublishedWeights(
        2, 2, "a1_in1k", "timm:large.a1_in1k", "imagenet-1k", "apache-2.0", "a package", 1000, 1000, "ab" * 8,
        metrics=(_top1(80.5, 224), _top1(81.5, 288), _top1(88.0, 224, "imagenet-real")),
    ),
    PublishedWeights(
        3, 2, "a2_in1k", "timm:large.a2_in1k", "imagenet-1k", "cc-by-nc-4.0", "a package", 1000, 1000,
        metrics=(_top1(82.0, 224), _top1(87.0, 224, "imagenet-real")),
    ),
    PublishedWeights(
        4, 3, "in1k", "timm:middle.in1k", "imagenet-1k", "apache-2.0", "a package", 1000, 800,
        metrics=(_top1(80.0, 224), _top1(86.0, 224, "imagenet-real")),
    ),
    PublishedWeights(
        5, 4, "in12k", "timm:tiny.in12k", "imagenet-12k", "mit", "a package", 11821,
        metrics=(_top1(60.0, 160),),
    ),
)  # fmt: skip
COSTS = (
    Cost(1, 224, 4.0, "metadata"),
    Cost(2, 224, 4.1, "a table"),
    Cost(2, 288, 6.8, "a table"),
    Cost(3, 224, 3.0, "a table"),
)


def write_scored(folder: Path) -> Path:
    """Write ``catalogue.db`` and its checksum to a folder; return the file."""
    layouts = [
        Layout(number, tuple(ArchitectureTensor(name, tuple(t.shape)) for name, t in network(widths).items()))
        for number, widths in WIDTHS.items()
    ]
    vectors = {number: shapes_query(network(widths)).vector for number, widths in WIDTHS.items()}
    path = folder / "catalogue.db"
    write_catalogue(
        path, layouts, ARCHITECTURES, WEIGHTS, COSTS, vectors=vectors, similar={}, facts={"libraries": {"timm": "1"}}
    )
    path.with_name("catalogue.db.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    return path


def half(vector: np.ndarray) -> np.ndarray:
    """A vector in the precision in which the catalogue keeps it."""
    return vector.astype(np.float16).astype(np.float32)
