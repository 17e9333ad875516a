"""What torchvision builds, and the tables of its published weights."""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, Any

from registry.architectures.catalogue_file import Cost
from registry.types import PublishedWeights, WeightsMetric
from scripts.catalogue.recipes import Library, Recipe, each_once

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["torchvision_library"]

_TASKS = {
    "segmentation": "segmentation",
    "detection": "detection",
    "video": "video classification",
    "optical_flow": "optical flow",
}
_NAMES = {"acc@1": "top1", "acc@5": "top5"}
_MEGABYTE = 2**20  # bytes; the unit of torchvision's _file_size
_HASH = re.compile(r"[-_]([0-9a-f]{8,})\.pth$")
_WARNS_WITHOUT_INIT = ("googlenet", "inception_v3")
_CLASSES = 1000  # of ImageNet, and the default of every builder of classifiers that states none

_ASKS_METADATA = "mnasnet"
"""The module whose networks refuse a state dict without version numbers; others take it as of an older version."""

_VARIANTS = {
    "fcn_resnet50": "aux_loss=True",
    "fcn_resnet101": "aux_loss=True",
    "deeplabv3_resnet50": "aux_loss=True",
    "deeplabv3_resnet101": "aux_loss=True",
    "deeplabv3_mobilenet_v3_large": "aux_loss=True",
    "googlenet": "aux_logits=False",
    "inception_v3": "aux_logits=False",
    "vit_b_16": "image_size=384",
    "vit_l_16": "image_size=512",
    "vit_h_14": "image_size=518",
}
"""A second form of a builder, which is that of published weights."""

_OF_VARIANTS = {
    **{name: "COCO_WITH_VOC_LABELS_V1" for name, options in _VARIANTS.items() if options == "aux_loss=True"},
    "googlenet": "IMAGENET1K_V1",
    **dict.fromkeys(("vit_b_16", "vit_l_16", "vit_h_14"), "IMAGENET1K_SWAG_E2E_V1"),
}
"""The weights of which that form is."""


def torchvision_library() -> Library:
    """Recipes of all of torchvision's builders, with the weights, metrics and costs of its enumerations."""
    import torch
    import torchvision
    import torchvision.models as models

    version = torchvision.__version__.partition("+")[0]
    source = f"torchvision {version}, metadata of its weights"
    recipes, weights, costs = [], [], []
    for name in sorted(models.list_models()):
        enumerated = list(models.get_model_weights(name))
        recipes += _recipes(name, enumerated)
        for one in enumerated:
            architecture = _architecture(name, one.name)
            weights.append((architecture, _published(name, one, source)))
            size = _image_size(one)
            if size is not None and one.meta.get("_ops"):
                costs.append((architecture, Cost(0, size, float(one.meta["_ops"]), source)))
    return Library(
        "torchvision",
        {"torchvision": version, "torch": torch.__version__.partition("+")[0]},
        tuple(recipes),
        tuple(weights),
        each_once(costs),
        asks_metadata=tuple(one.name for one in recipes if one.family == _ASKS_METADATA),
        sources=(f"{source}: metrics, sizes of files, licences, multiply-adds (which it calls GFLOPS)",),
    )


def _variant(name: str) -> str:
    return f"{name}+{_VARIANTS[name]}"


def _architecture(name: str, tag: str) -> str:
    return _variant(name) if tag == _OF_VARIANTS.get(name) else name


def _recipes(name: str, enumerated: list[Any]) -> Iterator[Recipe]:
    import torchvision.models as models

    builder = models.get_model_builder(name)
    module = builder.__module__
    package = module.split(".")[2]
    options = []
    if "weights_backbone" in inspect.signature(builder).parameters:
        options.append("weights_backbone=None")
    if name.removeprefix("quantized_") in _WARNS_WITHOUT_INIT:
        options.append("init_weights=True")  # the default; without it these two warn
    where = {"segmentation": "segmentation.", "detection": "detection.", "video": "video."}.get(package, "")
    where = {"quantization": "quantization.", "optical_flow": "optical_flow."}.get(package, where)
    categories = [len(one.meta["categories"]) for one in enumerated if one.meta.get("categories")]
    for form in [name, *([_variant(name)] if name in _VARIANTS else [])]:
        more = [*options, *([_VARIANTS[name]] if form != name else [])]
        of_form = [one for one in enumerated if _architecture(name, one.name) == form] or enumerated
        call = f"torchvision.models.{where}{builder.__name__}"
        yield Recipe(
            "torchvision",
            form,
            (f"{call}({', '.join([*more, 'num_classes={classes}'])})", f"{call}({', '.join(more)})"),
            "torchvision",
            module.rpartition(".")[2],
            _TASKS.get(package, "classification"),
            classes=categories[0] if categories else _CLASSES,
            image_size=next(filter(None, map(_image_size, of_form)), None),
        )


def _image_size(weights: Any) -> int | None:
    """Side of the images that the weights were measured with, where the transforms state one."""
    crop = getattr(weights.transforms(), "crop_size", None)
    return int(crop[0]) if crop and len(set(crop)) == 1 else None


def _published(name: str, weights: Any, source: str) -> PublishedWeights:
    meta = weights.meta
    size = _image_size(weights)
    metrics = tuple(
        WeightsMetric(_NAMES.get(metric, metric), dataset.lower(), _split(dataset), size, float(value), source)
        for dataset, values in meta.get("_metrics", {}).items()
        for metric, value in values.items()
        if math.isfinite(value)  # of weights without a classifier NaN is stated
    )
    digits = _HASH.search(weights.url)
    megabytes = meta.get("_file_size")
    categories = meta.get("categories")
    licence = str(meta.get("license", ""))
    return PublishedWeights(
        0,
        0,
        weights.name,
        f"torchvision:{name}.{weights.name}",
        dataset=metrics[0].dataset if metrics else "",
        licence=licence,
        licence_source=source if licence else "",
        classes=len(categories) if categories else None,
        bytes=None if megabytes is None else round(megabytes * _MEGABYTE),
        sha256=digits[1] if digits else "",
        url=weights.url,
        metrics=metrics,
    )


def _split(dataset: str) -> str:
    """Split of a data set, by its name; of one that names none, the validation set."""
    lower = dataset.lower()
    return next((split for split in ("train", "test") if split in lower), "val")
