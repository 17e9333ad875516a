"""The table of sources."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from registry.sources import hub_models, npz, safetensors, shards, timm, torch_file, torchvision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.sources.base import Source
    from registry.types import ModelRef

__all__ = ["DEFERRED", "SOURCES", "SUFFIXES", "discard", "source_of_file"]

SOURCES: Mapping[str, Source] = MappingProxyType({
    "torchvision": torchvision.SOURCE,
    "timm": timm.SOURCE,
    "hf": hub_models.SOURCE,
    "safetensors": safetensors.SOURCE,
    "torch": torch_file.SOURCE,
    "npz": npz.SOURCE,
    "shards": shards.SOURCE,
})  # fmt: skip

DEFERRED = "deferred"
"""Source of references that `expand` refused."""

SUFFIXES: frozenset[str] = frozenset(suffix for source in SOURCES.values() for suffix in source.suffixes)
"""Suffixes of the files that can be read, in lower case with the dot."""


def source_of_file(path: Path) -> Source | None:
    """The source for a file's suffix, in any case; None if the suffix is unknown."""
    return next((source for source in SOURCES.values() if path.name.lower().endswith(source.suffixes)), None)


def discard(ref: ModelRef) -> None:
    """Remove what opening had to download for ``ref``; what was there when it was expanded always stays.

    Raises
    ------
    SourceError
        The download could not be removed.
    """
    source = SOURCES.get(ref.source)
    if source is not None and source.discard is not None and not ref.cached:
        source.discard(ref)
