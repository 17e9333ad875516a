"""What timm builds, its pretrained configurations, and the accuracies and costs that its repository publishes."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from registry.architectures.catalogue_file import Cost
from registry.types import PublishedWeights, WeightsMetric
from scripts.catalogue.recipes import Library, Recipe, each_once

__all__ = ["timm_library"]

RESULTS = Path(__file__).parent / "timm_results.csv"
_REPOSITORY = "huggingface/pytorch-image-models@aa4b5850 results/"
_DATASET = re.compile(r"in(1|12|21|22)k")
_HASH = re.compile(r"-([0-9a-f]{8,})\.(?:pth|pt|bin|safetensors)$")
_CLASSES = 1000
"""Of architectures whose default weights have no head; it is the default of timm's classes, too."""


def timm_library() -> Library:
    """Recipes of all models of timm, with the weights of its tables and the published results."""
    import timm
    import timm.models
    import torch

    source = f"timm {timm.__version__}, pretrained configurations"
    recipes, weights, costs = [], [], []
    results = _results()
    for name in sorted(timm.list_models()):
        default = timm.models.get_pretrained_cfg(name)
        recipes.append(_recipe(name, default, timm.models.model_entrypoint(name).__module__))
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*") if full.split(".")[0] == name]
        if default is not None and default.has_weights and not default.tag:
            tags.append("")
        for tag in sorted(set(tags)):
            full = f"{name}.{tag}" if tag else name
            rows = results.pop(full, [])
            weights.append((name, _published(name, tag, timm.models.get_pretrained_cfg(full), rows, source)))
            costs += [(name, Cost(0, int(row["img_size"]), float(row["gmacs"]), _costs(row))) for row in rows]
    if results:
        raise ValueError(f"results of weights that timm does not have: {', '.join(sorted(results)[:5])}")
    return Library(
        "timm",
        {"timm": timm.__version__, "torch": torch.__version__.partition("+")[0]},
        tuple(recipes),
        tuple(weights),
        each_once(costs),
        sources=(
            f"{source}: names, licences, numbers of classes, addresses",
            f"{_REPOSITORY} (Apache-2.0): accuracies on the validation set of ImageNet-1k, multiply-adds",
        ),
    )


def _results() -> dict[str, list[dict[str, str]]]:
    """Rows of the published results by the name of the weights."""
    found: dict[str, list[dict[str, str]]] = {}
    with RESULTS.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["name"], []).append(row)
    return found


def _costs(row: dict[str, str]) -> str:
    return f"{_REPOSITORY}{row['source'].partition(';')[2]}"


def _recipe(name: str, default: Any, module: str) -> Recipe:
    size = default.input_size if default is not None else None
    call = f'timm.create_model("{name}"'
    return Recipe(
        "timm",
        name,
        (
            f"{call}, num_classes={{classes}}, in_chans={{channels}})",
            f"{call}, num_classes={{classes}})",
            f"{call}, in_chans={{channels}})",
            f"{call})",
        ),
        "timm",
        module.rpartition(".")[2],
        "classification",
        classes=(default.num_classes if default is not None else 0) or _CLASSES,
        channels=size[0] if size else 3,
        image_size=size[1] if size and size[1] == size[2] else None,
        config={"architecture": name},
    )


def _published(name: str, tag: str, stated: Any, rows: list[dict[str, str]], source: str) -> PublishedWeights:
    sets = _DATASET.findall(tag)  # in21k_ft_in1k: the output classes are those of the last one
    licence = "" if stated.license in (None, "unknown") else str(stated.license)
    digits = _HASH.search(stated.url or "")
    hub = f"https://huggingface.co/{stated.hf_hub_id.partition('@')[0]}" if stated.hf_hub_id else ""
    metrics = tuple(
        WeightsMetric(
            metric,
            row["dataset"],
            row["split"],
            int(row["img_size"]),
            float(row[metric]),
            f"{_REPOSITORY}{row['source'].partition(';')[0]}",
        )
        for row in rows
        for metric in ("top1", "top5")
    )
    return PublishedWeights(
        0,
        0,
        tag,
        f"timm:{name}.{tag}" if tag else f"timm:{name}",
        dataset=f"imagenet-{sets[-1].replace('22', '21')}k" if sets else metrics[0].dataset if metrics else "",
        licence=licence,
        licence_source=source if licence else "",
        classes=stated.num_classes,
        sha256=digits[1] if digits else "",
        url=(stated.url or hub) if digits else (hub or stated.url or ""),
        metrics=metrics,
    )
