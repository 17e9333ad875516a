"""Source for timm models: published weights and random initialisations."""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.published import hub_cache, torch_hub
from registry.sources.published.hub_cache import MAIN, cached_weights, files_of
from registry.sources.published.hub_download import fetch, reason, required
from registry.sources.published.hub_models import open_weights
from registry.sources.published.torch_hub import cache_path, download, hash_prefix
from registry.types import ModelCard, ModelFacts, ModelRef

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from registry.sources.base import OpenedCheckpoint
    from registry.types import Checkpoint

__all__ = ["SOURCE"]

RANDOM = "random"
_DATASET = re.compile(r"in(1|12|21|22)k")


def expand(text: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:
    """The models of ``NAME[.TAG]``, ``NAME.random`` or a pattern; reads timm's tables and the caches only.

    Raises
    ------
    NotFoundError
        The model or tag does not exist, or nothing matches; the remedy suggests similar names.
    SourceError
        timm is not installed.
    """
    timm = required("timm", "timm")
    if key is not None:
        raise NotFoundError(f"timm:{text} has no entries to choose from", "leave --key out")
    name, _, tag = text.partition(".")
    if any(sign in text for sign in "*?["):
        return tuple(_matches(name, tag, seed))
    if name not in timm.list_models():
        raise NotFoundError(f"timm has no model {name!r}", _hint(name))
    return (_random_ref(name, seed) if tag == RANDOM else _weights_ref(_published(name, tag)),)


def _hint(name: str) -> str:
    import timm.models

    now = timm.models.get_deprecated_models().get(name)
    near = [now] if now else difflib.get_close_matches(name.lower(), timm.list_models(), n=3)
    return f"did you mean {', '.join(f'timm:{n}' for n in near)}?" if near else "timm:* stands for all of them"


def _matches(pattern: str, tag: str, seed: int) -> Iterator[ModelRef]:
    """Models that match a pattern: their default weights, the random initialisation of each, or all matching tags."""
    import timm

    found = False
    for name in fnmatch.filter(sorted(timm.list_models()), pattern):
        tags = _tags(name)
        if tag == RANDOM:
            found = True
            yield _random_ref(name, seed)
            continue
        for one in fnmatch.filter(tags, tag) if tag else tags[:1]:
            found = True
            yield _weights_ref(_published(name, one))
    if not found:
        wanted = f"{pattern}.{tag}" if tag else pattern
        raise NotFoundError(f"no timm model with weights matches {wanted!r}", "timm:* stands for all of them")


def _tags(name: str) -> list[str]:
    """Tags of a model's published weights, the default tag first."""
    import timm
    import timm.models

    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*") if full.partition(".")[0] == name]
    default = timm.models.get_pretrained_cfg(name)
    first = default.tag or "" if default is not None and default.has_weights else None
    return sorted(tags, key=lambda tag: tag != first)


def _published(name: str, tag: str) -> Any:
    """Configuration of published weights in timm's tables."""
    import timm.models

    tags = _tags(name)
    if not tags:
        raise NotFoundError(f"timm has no weights for {name}", f"timm:{name}.random initialises it")
    if tag and tag not in tags:
        near = difflib.get_close_matches(tag.lower(), tags, n=1)
        offered = ", ".join(f"timm:{name}.{one}" for one in tags)
        hint = f"did you mean timm:{name}.{near[0]}?" if near else f"available: {offered}, timm:{name}.random"
        raise NotFoundError(f"timm has no weights {tag!r} for {name}", hint)
    return timm.models.get_pretrained_cfg(f"{name}.{tag or tags[0]}")


def _family(name: str) -> str:
    """Name of the Python module that defines the model."""
    import timm.models

    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def _random_ref(name: str, seed: int) -> ModelRef:
    target = f"{name}.{RANDOM}"
    card = ModelCard(family=_family(name), architecture=name, source=f"timm:{target}", training="none", seed=seed)
    return ModelRef("timm", target, f"timm/{target}{f'-{seed}' if seed else ''}", card, seed=seed)


def _weights_ref(published: Any) -> ModelRef:
    name, tag = published.architecture, published.tag
    target = f"{name}.{tag}"
    sets = _DATASET.findall(tag)  # in21k_ft_in1k: the output classes are those of the last dataset
    dataset = f"ImageNet-{sets[-1].replace('22', '21')}K" if sets else ""
    licence = published.license or ""
    card = ModelCard(
        family=_family(name), architecture=name, dataset=dataset, source=f"timm:{target}",
        task="classification" if dataset and published.num_classes else "",
        licence="" if licence == "unknown" else licence, recipe=published.origin_url or "",
    )  # fmt: skip
    files = _cached(published)
    size = sum(file.stat().st_size for file in files) if files else None
    return ModelRef("timm", target, f"timm/{target}", card, bytes=size, cached=bool(files))


def _repository(published: Any) -> tuple[str, str] | None:
    """Hub repository and revision of the weights, which timm prefers to their other address."""
    if not published.hf_hub_id:
        return None
    repository, _, revision = published.hf_hub_id.partition("@")
    return repository, revision or MAIN


def _cached(published: Any) -> list[Path]:
    """Files of the weights in the cache of the hub or of torch.hub; empty if one is missing."""
    where = _repository(published)
    if where is not None:
        weights = cached_weights(*where)
        return [] if weights is None else files_of(weights)
    path = cache_path(published.url)
    return [path] if path.is_file() else []


def open_timm(ref: ModelRef) -> Checkpoint:
    """Initialise the model, or build it with downloaded or cached weights; raises the errors of `open_ref`.

    timm's own loader puts the weights into the module, because it renames entries of old checkpoints. The tensors are
    those of the module, which is held in memory. Pickles are read here, since timm would run what they name.
    """
    timm = required("timm", "timm")
    from registry.sources.torch_tensors import TorchCheckpoint

    name, _, tag = ref.target.partition(".")
    if name not in timm.list_models():
        raise NotFoundError(f"timm has no model {name!r}", "expand the reference again with this timm")
    facts = ModelFacts(config={"architecture": name})  # which of timm's modules it is
    if tag == RANDOM:
        return TorchCheckpoint(_built(name, ref.seed, pretrained=False).state_dict(), ref, facts)
    published = _published(name, tag)
    path, revision = _fetched(published)
    with open_weights(ref, path) as opened:
        given = {"file": str(path)} if path.suffix == ".safetensors" else {"state_dict": _state_of(opened)}
    try:
        module = _built(ref.target, 0, pretrained=True, pretrained_cfg_overlay={**given, "custom_load": False})
    except Exception as error:  # timm's filters and torch's loader may raise any exception
        raise WeightsError(
            f"timm cannot load the weights of {ref.target} in {path}: {reason(error)}",
            "remove the file, then try again",
        ) from error
    ref = replace(ref, card=ModelCard(revision=revision).updated(ref.card))
    return TorchCheckpoint(module.state_dict(), ref, facts)


def _fetched(published: Any) -> tuple[Path, str]:
    """The weights file, and its revision: a commit, or the first digits of its sha256."""
    where = _repository(published)
    if where is not None:
        path, _ = fetch(*where)
        return path, path.parent.name
    path, name = cache_path(published.url), published.architecture
    if not path.is_file():
        download(published.url, f"weights of {name}", f"timm:{name}.{RANDOM}")
    return path.resolve(), hash_prefix(published.url) or ""


def _state_of(opened: OpenedCheckpoint) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint as torch's."""
    import torch

    state = {}
    for info in opened.tensors:
        data = bytearray(opened.raw(info.name))
        dtype = getattr(torch, info.dtype)
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        state[info.name] = flat.reshape(info.shape)
    return state


def _built(name: str, seed: int, **options: Any) -> torch.nn.Module:
    """The model that timm builds, initialised under ``seed``; the global random state of torch is restored."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: torch.nn.Module = timm.create_model(name, **options)
    return module


def discard(ref: ModelRef) -> None:
    """Remove the download from the cache of the hub or of torch.hub."""
    name, _, tag = ref.target.partition(".")
    if tag == RANDOM:
        return
    published = _published(name, tag)
    where = _repository(published)
    if where is None:
        torch_hub.forget(published.url)
    else:
        hub_cache.forget(*where)


SOURCE = Source(name="timm", open=open_timm, prefix="timm", expand=expand, discard=discard)
