"""Samples of what ``identify`` answers."""

from __future__ import annotations

from typing import Any

from registry.types import (
    Architecture,
    ArchitectureMatch,
    AskedRegistry,
    Identification,
    ModelSummary,
    Recognised,
    Related,
    Relation,
    Relative,
    Training,
    VectorCounts,
)

__all__ = ["ARCHITECTURE", "exactly", "identification", "related_to"]

ARCHITECTURE = Architecture(
    1, "timm", "resnet50", 1, 'timm.create_model("resnet50", num_classes={classes}, in_chans={channels})', "timm",
    "resnet", "image classification", 1000, 3, 25_557_032,
)  # fmt: skip
OTHER = Architecture(
    2, "torchvision", "resnet50", 1, "torchvision.models.resnet50(num_classes={classes})", "torchvision"
)
TRAINING = Training(
    "trained", "gains of normalisation", 41.5, (("rectangles", 31.0), ("rows", 9.5)), "fc.weight", 12.5,
    VectorCounts(53, 53, 106, 106, 54, 54),
)  # fmt: skip


def exactly(**known: Any) -> Recognised:
    """The class of two equal architectures, the first of which the file's names are."""
    best = {"share": 1.0, "exact": True, "named": True, "strict": True, "classes": 10, "channels": 3} | known
    best |= {"head": ("fc.weight", "fc.bias"), "stem": ("conv1.weight",)}
    second = ArchitectureMatch(OTHER, 1.0, exact=True, named=False, strict=False, classes=10)
    return Recognised("exact", (ArchitectureMatch(ARCHITECTURE, **best), second))


def related_to(model: ModelSummary, *kin: tuple[ModelSummary, Relation]) -> Related:
    """What a registry says of relations."""
    relatives = tuple(Relative(one, relation) for one, relation in kin)
    found = sum(relation.verdict == "related" for _, relation in kin)
    return Related(model, relatives, found=found, compared=12, exactly=12, unlike=151)


def identification(asked: str, **known: Any) -> Identification:
    """A trained resnet50, of which no registry knows the weights."""
    told: dict[str, Any] = {
        "name": "net",
        "format": "torch",
        "location": f"/models/{asked}",
        "entry": "",
        "wrapper": "",
        "bytes": 102_540_417,
        "tensors": 320,
        "parameters": 25_557_032,
        "layers": 54,
        "precision": "float32",
        "weights_read": True,
        "content_hash": "c0ffee" * 10,
        "file_sha256": "",
        "architecture": exactly(),
        "dequantised": False,
        "libraries": (("timm", "1.0.22"), ("torchvision", "0.29.0")),
        "published": (),
        "training": TRAINING,
        "registries": (AskedRegistry("published:", 163),),
        "findings": (),
        "rules": ("nonfinite", "rows"),
        "adapter": None,
        "notes": (),
        "not_known": (f"rank and spectra were not computed: archreg audit {asked}",),
    }
    return Identification(asked, **(told | known))
