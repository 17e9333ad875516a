"""The table of sources, and opening a reference through it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from registry.errors import NotFoundError
from registry.sources import hub_models, npz, safetensors, shards, timm, torch_file, torchvision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.sources.base import Source
    from registry.types import Checkpoint, ModelRef

__all__ = ["DEFERRED", "SOURCES", "SUFFIXES", "discard", "open_ref", "source_of_file"]

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
"""Source of a reference that meant nothing when it was expanded."""

SUFFIXES: frozenset[str] = frozenset(suffix for source in SOURCES.values() for suffix in source.suffixes)
"""What the names of files that are read end in, in lower case with the dot."""


def source_of_file(path: Path) -> Source | None:
    """The source that reads files whose name ends like this one's, in any case; None where there is none."""
    return next((source for source in SOURCES.values() if path.name.lower().endswith(source.suffixes)), None)


def open_ref(ref: ModelRef) -> Checkpoint:
    """Open the weights of one model; close the result, or use it in a ``with`` statement.

    Parameters
    ----------
    ref
        As `expand` returns it.

    Returns
    -------
    Checkpoint
        Reads one tensor at a time. Of safetensors files, shards, ``.npz`` and zipped ``.pt`` files never more than the
        tensor asked for is in memory; a bare pickle, as torch before 1.6 wrote it, is read whole, and so is what timm
        builds.

    Raises
    ------
    NotFoundError
        The file is gone, or the source or the key is unknown.
    AmbiguousError
        The file holds several state dicts and none is clearly the model's.
    UnsafeError
        The file would run code or exhaust the machine.
    WeightsError
        The file is damaged or holds no state dict.
    SourceError
        Weights could not be downloaded.
    """
    if ref.source == DEFERRED:
        from registry.sources.references import resolved  # which knows this table

        ref = resolved(ref)
    source = SOURCES.get(ref.source)
    if source is None:
        raise NotFoundError(f"unknown source {ref.source!r}", f"known sources: {', '.join(sorted(SOURCES))}")
    return source.open(ref)


def discard(ref: ModelRef) -> None:
    """Remove what `open_ref` had to download for ``ref``; what was there when it was expanded always stays.

    Raises
    ------
    SourceError
        The download could not be removed.
    """
    source = SOURCES.get(ref.source)
    if source is not None and source.discard is not None and not ref.cached:
        source.discard(ref)
