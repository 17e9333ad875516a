"""A catalogue of three small architectures, and networks of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.architectures.catalogue_file import write_catalogue
from registry.shipped import checksum_file, checksum_of
from registry.types import Architecture, ArchitectureTensor, Layout, PublishedWeights, Symbolic, WeightsMetric

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Tensors = dict[str, "NDArray[np.generic]"]

CLASSES = Symbolic("classes")
BODY: tuple[ArchitectureTensor, ...] = (
    ArchitectureTensor("stem.weight", (16, 3, 3, 3)),
    ArchitectureTensor("norm.weight", (16,)),
    ArchitectureTensor("norm.bias", (16,)),
    ArchitectureTensor("norm.running_mean", (16,), buffer=True),
    ArchitectureTensor("norm.running_var", (16,), buffer=True),
    ArchitectureTensor("norm.num_batches_tracked", (), buffer=True, floating=False),
    ArchitectureTensor("body.0.weight", (40, 16, 3, 3)),
    ArchitectureTensor("body.1.weight", (48, 40, 3, 3)),
    ArchitectureTensor("wide.weight", (72, 48)),
)
HEAD = (ArchitectureTensor("head.weight", (CLASSES, 72)), ArchitectureTensor("head.bias", (CLASSES,)))
DEEPER = (ArchitectureTensor("body.2.weight", (72, 72)),)
RENAMED = tuple(tensor._replace(name=f"all_{tensor.name}") for tensor in (*BODY, *HEAD))
LAYOUTS = (Layout(1, (*BODY, *HEAD)), Layout(2, RENAMED), Layout(3, (*BODY, *DEEPER, *HEAD)))
ARCHITECTURES = (
    Architecture(1, "torchvision", "convnet", 1, "torchvision.models.convnet(num_classes={classes})", "torchvision",
                 "convnet", "classification", 1000),
    Architecture(2, "timm", "convnet_t", 2, 'timm.create_model("convnet_t", num_classes={classes})', "timm",
                 "convnet", "classification", 1000),
    Architecture(3, "torchvision", "convnet_deep", 3, "torchvision.models.convnet_deep(num_classes={classes})",
                 "torchvision", "convnet", "classification", 1000),
)  # fmt: skip
TOP1 = WeightsMetric("top1", "imagenet-1k", "val", 224, 71.5, "a table")


def write_small_catalogue(path: Path, sha256: str = "", size: int | None = None) -> Path:
    """Write the catalogue; ``sha256`` and ``size``: of the file of the weights published for the first one."""
    weights = (PublishedWeights(1, 1, "V1", "torchvision:convnet.V1", "imagenet-1k", "MIT", "a page", 10, size, sha256,
                                metrics=(TOP1,)),)  # fmt: skip
    write_catalogue(
        path,
        LAYOUTS,
        ARCHITECTURES,
        weights,
        (),
        vectors={},
        similar={},
        facts={"versions": {"torchvision": "0.29.0", "timm": "1.0.22"}},
    )
    return path


def ship(folder: Path, sha256: str = "", size: int | None = None) -> Path:
    """A folder in place of that of the files that ship: the small catalogue, and the published models."""
    import registry.shipped

    folder.mkdir(exist_ok=True)
    for path in registry.shipped.FOLDER.glob("published.db*") if not any(folder.iterdir()) else ():
        (folder / path.name).symlink_to(path)
    (folder / "catalogue.db").unlink(missing_ok=True)
    path = write_small_catalogue(folder / "catalogue.db", sha256, size)
    checksum_file(path).write_text(checksum_of(path))
    return folder


def network(
    layout: int = 1, *, classes: int = 10, seed: int = 0, trained: bool = False, without: Sequence[str] = ()
) -> Tensors:
    """A state dict of one of the layouts, at its start or trained."""
    rng = np.random.default_rng(seed)
    made: Tensors = {}
    for tensor in LAYOUTS[layout - 1].tensors:
        shape = tensor.sized(classes, None)
        if tensor.name in without:
            continue
        if not tensor.floating:
            made[tensor.name] = np.array(7 if trained else 0, np.int64)
        elif len(shape) == 1:
            start = np.ones(shape) if tensor.name.endswith(("norm.weight", "var")) else np.zeros(shape)
            made[tensor.name] = (start + 0.1 * trained * rng.standard_normal(shape)).astype(np.float32)
        else:
            W = rng.standard_normal(shape)
            if trained:
                W += np.multiply.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1:]))
            made[tensor.name] = (0.05 * W).astype(np.float32)
    return made


def tuned(start: Tensors, amount: float = 0.02) -> Tensors:
    """A descendant of a network."""
    rng = np.random.default_rng(9)
    return {
        name: (W + amount * rng.standard_normal(W.shape)).astype(W.dtype) if W.ndim > 1 else W
        for name, W in start.items()
    }
