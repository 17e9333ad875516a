"""Source for models of the Hugging Face hub: weights files and model cards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from registry.errors import NotFoundError
from registry.sources import shards
from registry.sources.base import OpenedCheckpoint, Source
from registry.sources.files.remote.files import open_address
from registry.sources.formats import safetensors, torch_file
from registry.sources.published.hub_cache import MAIN, cached_weights, files_of, forget
from registry.sources.published.hub_download import fetch, located, required
from registry.sources.weight_files import is_index
from registry.types import Metric, ModelCard, ModelRef

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import ModelInfo

    from registry.types import Checkpoint

__all__ = ["SOURCE", "open_weights"]

_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*")
_MAX_TEXT = 1000  # characters kept of a card field
_MAX_METRICS = 100


def expand(text: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:  # noqa: ARG001  # nothing is initialised
    """The model of ``ORG/NAME[@REVISION]``; reads the cache and does not contact the hub.

    Raises
    ------
    NotFoundError
        The text is not the name of a repository or revision.
    SourceError
        huggingface_hub is not installed.
    """
    required("huggingface_hub", "hub")
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    repository, at, revision = text.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise NotFoundError(f"hf:{text} names no repository of the hub", "write hf:ORG/NAME[@REVISION]") from error
    if at and not _REVISION.fullmatch(revision):
        raise NotFoundError(f"hf:{text} names no revision", "write a branch, tag or commit after the @")
    weights = cached_weights(repository, revision or MAIN)
    size = None if weights is None else sum(file.stat().st_size for file in files_of(weights))
    card = ModelCard(source=f"hf:{text}")
    return (ModelRef("hf", text, f"hf/{text}", card, key=key, bytes=size, cached=weights is not None),)


def open_hub(ref: ModelRef) -> Checkpoint:
    """Download what is missing and open it; raises the errors of `open_ref` and `fetch`."""
    required("huggingface_hub", "hub")
    repository, _, revision = ref.target.partition("@")
    weights, info = fetch(repository, revision or MAIN)
    said = ModelCard() if info is None else _card(info)
    ref = replace(ref, card=replace(said, revision=weights.parent.name).updated(ref.card))
    return open_weights(ref, weights).under(ref)


def open_hub_headers(ref: ModelRef) -> Checkpoint:
    """Read the header alone, by ranges of bytes from the hub where the model is not in the cache.

    Raises the errors of `open_headers` and `located`.
    """
    required("huggingface_hub", "hub")
    repository, _, revision = ref.target.partition("@")
    weights = cached_weights(repository, revision or MAIN)
    if weights is not None:
        return open_weights(replace(ref, card=replace(ref.card, revision=weights.parent.name)), weights).under(ref)
    address, sent, info = located(repository, revision or MAIN)
    card = replace(_card(info), revision=info.sha or "").updated(ref.card)
    return open_address(replace(ref, card=card), address, header_only=True, sent=sent)


def open_weights(ref: ModelRef, weights: Path) -> OpenedCheckpoint:
    """Open a file of the cache with the source for its suffix, under that source's rules."""
    if is_index(weights):
        source = shards.SOURCE
    else:
        source = safetensors.SOURCE if weights.suffix == ".safetensors" else torch_file.SOURCE
    opened = source.open(replace(ref, source=source.name, target=str(weights)))
    return cast("OpenedCheckpoint", opened)  # as every source of files returns it


def _card(info: ModelInfo) -> ModelCard:
    """Card from the structured part of the hub's model card; only texts and numbers are used, truncated."""
    config = info.config if isinstance(info.config, dict) else {}
    data = info.card_data
    base = _text(getattr(data, "base_model", None))
    return ModelCard(
        family=_text(config.get("model_type")),
        architecture=_text(config.get("architectures")),
        task=_text(info.pipeline_tag),
        dataset=_text(getattr(data, "datasets", None)),
        licence=_text(getattr(data, "license_name", None)) or _text(getattr(data, "license", None)),
        metrics=_metrics(getattr(data, "eval_results", None)),
        tags=(("base_model", base),) if base else (),
    )


def _text(value: object) -> str:
    """The text, or the first of a list of texts; empty for any other value."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return value.replace("\0", "")[:_MAX_TEXT].strip() if isinstance(value, str) else ""


def _metrics(results: Any) -> tuple[Metric, ...]:
    return tuple(
        Metric(_text(r.metric_type), float(r.metric_value), _text(r.dataset_name), _text(r.dataset_split), None, "hub")
        for r in list(results or ())[:_MAX_METRICS]
        if isinstance(r.metric_value, int | float) and not isinstance(r.metric_value, bool) and _text(r.metric_type)
    )


def discard(ref: ModelRef) -> None:
    """Remove the weights from the hub's cache. Files that were present but incomplete count as downloaded."""
    repository, _, revision = ref.target.partition("@")
    forget(repository, revision or MAIN)


SOURCE = Source(name="hf", open=open_hub, prefix="hf", expand=expand, discard=discard, open_headers=open_hub_headers)
