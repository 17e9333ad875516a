"""The table of sources, and opening a reference through it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from registry.errors import NotFoundError
from registry.sources import safetensors, torchfile, torchvision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.sources.source import Source
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCES", "SUFFIXES", "discard", "open_ref", "source_of_suffix"]

SOURCES: Mapping[str, Source] = MappingProxyType({
    "torchvision": torchvision.SOURCE,
    "safetensors": safetensors.SOURCE,
    "torch": torchfile.SOURCE,
})  # fmt: skip

SUFFIXES: frozenset[str] = frozenset(suffix for source in SOURCES.values() for suffix in source.suffixes)
"""Suffixes, in lower case with the dot, of the files that are read."""


def source_of_suffix(suffix: str) -> Source | None:
    """The source that reads files of this suffix, in any case; None where there is none."""
    return next((source for source in SOURCES.values() if suffix.lower() in source.suffixes), None)


def open_ref(ref: ModelRef) -> Checkpoint:
    """Open the weights of one model; close the result, or use it in a ``with`` statement.

    Parameters
    ----------
    ref
        As `expand` returns it.

    Returns
    -------
    Checkpoint
        Reads one tensor at a time. Of a safetensors file never more than the tensor asked for is in memory; a zipped
        ``.pt`` is mapped, so that its pages can be dropped at any time.

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
