"""Source for torchvision models: published weights and random initialisations."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError
from registry.sources.base import Source
from registry.sources.published.torch_hub import cache_path, download, forget, hash_prefix
from registry.types import Metric, ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from registry.types import Checkpoint

__all__ = ["SOURCE"]

RANDOM = "random"
_MEGABYTE = 2**20  # bytes; the unit of torchvision's _file_size
_TASKS = {"segmentation": "segmentation", "detection": "detection", "video": "video", "optical_flow": "optical flow"}
_LOWER_IS_BETTER = ("epe", "per_image_epe", "fl_all")
_WARNS_WITHOUT_INIT = ("googlenet", "inception_v3")
_DENSENET_NAMES = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


def expand(text: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:
    """The models of ``NAME[.WEIGHTS]``, ``NAME.random`` or a pattern; reads torchvision's tables only.

    Raises
    ------
    NotFoundError
        The model or weights do not exist, or nothing matches; the remedy suggests similar names.
    """
    import torchvision.models as models

    name, _, tag = text.partition(".")
    if key is not None:
        raise NotFoundError(f"torchvision:{text} has no entries to choose from", "leave --key out")
    if any(sign in text for sign in "*?["):
        return tuple(_matches(name, tag, seed))
    if name not in models.list_models():
        near = difflib.get_close_matches(name.lower(), models.list_models(), n=3)
        hint = (
            f"did you mean {', '.join('torchvision:' + n for n in near)}?"
            if near
            else "torchvision:* stands for all of them"
        )
        raise NotFoundError(f"torchvision has no model {name!r}", hint)
    if tag == RANDOM:
        return (_random_ref(name, seed),)
    return (_weights_ref(name, _weights(name, tag)),)


def _matches(pattern: str, tag: str, seed: int) -> Iterator[ModelRef]:
    """Models that match; quantised models, whose weights are integers, only if the pattern names them."""
    import torchvision.models as models

    found = False
    for name in sorted(models.list_models()):
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if name.startswith("quantized_") and not pattern.startswith("quantized"):
            continue
        available = models.get_model_weights(name)
        if len(available) == 0 or tag not in ("", RANDOM, "DEFAULT", *available.__members__):
            continue
        found = True
        yield _random_ref(name, seed) if tag == RANDOM else _weights_ref(name, _weights(name, tag))
    if not found:
        wanted = f"{pattern}.{tag}" if tag else pattern
        raise NotFoundError(
            f"no torchvision model with weights matches {wanted!r}", "torchvision:* stands for all of them"
        )


def _weights(name: str, tag: str) -> Any:
    """Entry of torchvision's enumeration of weights; ``DEFAULT`` if there is no tag."""
    import torchvision.models as models

    available = models.get_model_weights(name)
    if len(available) == 0:
        raise NotFoundError(f"torchvision has no weights for {name}", f"torchvision:{name}.random initialises it")
    if (tag or "DEFAULT") in available.__members__:
        return available[tag or "DEFAULT"]
    near = difflib.get_close_matches(tag.upper(), available.__members__, n=1)
    offered = ", ".join(f"torchvision:{name}.{w.name}" for w in available)
    hint = f"did you mean torchvision:{name}.{near[0]}?" if near else f"available: {offered}, torchvision:{name}.random"
    raise NotFoundError(f"torchvision has no weights {tag!r} for {name}", hint)


def _random_ref(name: str, seed: int) -> ModelRef:
    suffix = f"{RANDOM}-{seed}" if seed else RANDOM
    family, task = _family_and_task(name)
    card = ModelCard(
        family=family, architecture=name, task=task, source=f"torchvision:{name}.{RANDOM}", training="none", seed=seed
    )
    return ModelRef("torchvision", f"{name}.{RANDOM}", f"torchvision/{name}.{suffix}", card, seed=seed)


def _weights_ref(name: str, weights: Any) -> ModelRef:
    target = f"{name}.{weights.name}"
    meta = weights.meta
    family, task = _family_and_task(name)
    metrics = tuple(
        Metric(metric, float(value), dataset, _split(dataset), metric not in _LOWER_IS_BETTER, "torchvision")
        for dataset, values in meta.get("_metrics", {}).items()
        for metric, value in values.items()
    )
    card = ModelCard(
        family=family, architecture=name, task=task, dataset=metrics[0].dataset if metrics else "",
        licence=str(meta.get("license", "")), source=f"torchvision:{target}", revision=hash_prefix(weights.url) or "",
        recipe=str(meta.get("recipe", "")), gflops=meta.get("_ops"), metrics=metrics,
    )  # fmt: skip
    size = meta.get("_file_size")
    return ModelRef(
        "torchvision", target, f"torchvision/{target}", card,
        bytes=None if size is None else round(size * _MEGABYTE), cached=cache_path(weights.url).is_file(),
    )  # fmt: skip


def _split(dataset: str) -> str:
    """Split of a dataset. torchvision names it only for training splits (Sintel-Train-Cleanpass)."""
    return "train" if "train" in dataset.lower() else "val"


def _family_and_task(name: str) -> tuple[str, str]:
    """Python module that builds the model, and the task of its package."""
    import torchvision.models as models

    parts = models.get_model_builder(name).__module__.split(".")
    return parts[-1], _TASKS.get(parts[2], "classification")


def open_torchvision(ref: ModelRef) -> Checkpoint:
    """Initialise the model, or open its downloaded or cached weights; raises the errors of `open_ref`."""
    import torchvision.models as models

    from registry.sources.formats.torch_file import open_renamed
    from registry.sources.torch_tensors import TorchCheckpoint

    name, _, tag = ref.target.partition(".")
    if name not in models.list_models():
        raise NotFoundError(f"torchvision has no model {name!r}", "expand the reference again with this torchvision")
    if tag == RANDOM:
        return TorchCheckpoint(_initialised(name, ref.seed).state_dict(), ref)
    weights = _weights(name, tag)
    path = cache_path(weights.url)
    if not path.is_file():
        download(weights.url, f"weights of {name}", f"torchvision:{name}.{RANDOM}")
    opened = open_renamed(replace(ref, target=str(path.resolve())), lambda stored: _as_built(name, stored))
    return opened.under(ref)


def _initialised(name: str, seed: int) -> torch.nn.Module:
    """The model that its builder initialises under ``seed``; the global random state of torch is restored."""
    import torch
    import torchvision.models as models

    builder = models.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None
    if name.removeprefix("quantized_") in _WARNS_WITHOUT_INIT:
        options["init_weights"] = True  # the default, but these two builders warn unless it is given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: torch.nn.Module = builder(**options)
    return module


def _as_built(name: str, stored: str) -> str | None:
    """The name that torchvision's builder gives a tensor of a file, so that both are one model; None without one.

    The builder of densenet renames old entries (``norm.1`` to ``norm1``); that of googlenet drops its auxiliary
    classifiers.
    """
    if name.startswith("densenet"):
        return _DENSENET_NAMES.sub(r"\1\2", stored)
    return None if name == "googlenet" and stored.startswith(("aux1.", "aux2.")) else stored


def discard(ref: ModelRef) -> None:
    """Remove the download from torch.hub's cache."""
    name, _, tag = ref.target.partition(".")
    if tag == RANDOM:
        return
    forget(_weights(name, tag).url)


SOURCE = Source(name="torchvision", open=open_torchvision, prefix="torchvision", expand=expand, discard=discard)
