"""The table of sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from registry.extensions import SOURCES as ROWS
from registry.extensions import Table
from registry.sources.base import Source

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import ModelRef

__all__ = ["BUILT_IN", "DEFERRED", "PREFIX", "SOURCES", "SUFFIXES", "discard", "source_of_file"]

PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_+-]+")  # a single letter is a Windows drive
_TAKEN = ("sha256", "module", "deferred")


def _checked(name: str, found: Any) -> Source:
    """The object of an entry point, if it is a source with that prefix. Raises ``TypeError``."""
    if not isinstance(found, Source):
        raise TypeError(f"it is a {type(found).__name__}, not a registry.sources.base.Source")
    if not PREFIX.fullmatch(name) or name in _TAKEN:
        raise TypeError("that name cannot stand before a colon")
    if (found.name, found.prefix) != (name, name) or found.expand is None:
        raise TypeError(f"its name and prefix must be {name!r}, and it must have an expand function")
    if found.suffixes or found.headers:
        raise TypeError("it claims file suffixes, which only built-in sources have")
    return found


SOURCES: Table[Source] = Table(ROWS, group="archreg.sources", check=_checked)
"""The sources of this package; ``find`` knows those of other packages, too."""

DEFERRED = "deferred"
"""Source of references that `expand` refused."""

BUILT_IN = dict(SOURCES)
"""The built-in sources, loaded: each file and reference is looked up here first."""

SUFFIXES: frozenset[str] = frozenset(suffix for source in BUILT_IN.values() for suffix in source.suffixes)
"""Suffixes of the files that can be read, in lower case with the dot."""


def source_of_file(path: Path) -> Source | None:
    """The source for a file's suffix, in any case; None if the suffix is unknown."""
    return next((source for source in BUILT_IN.values() if path.name.lower().endswith(source.suffixes)), None)


def discard(ref: ModelRef) -> None:
    """Remove what opening had to download for ``ref``; what was there when it was expanded always stays.

    Raises
    ------
    SourceError
        The download could not be removed.
    """
    source = SOURCES.find(ref.source)
    if source is not None and source.discard is not None and not ref.cached:
        source.discard(ref)
