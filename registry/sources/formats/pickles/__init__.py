"""Pickles, read without running anything: an interpreter of opcodes, and the values that it rebuilds."""

from __future__ import annotations

from registry.sources.formats.pickles.opcodes import Pickled, load, read_pickle
from registry.sources.formats.pickles.pickle_records import (
    AttributedDict,
    Buildable,
    Global,
    Instance,
    Key,
    Span,
    as_mapping,
    as_sequence,
    walked,
)

__all__ = [
    "AttributedDict",
    "Buildable",
    "Global",
    "Instance",
    "Key",
    "Pickled",
    "Span",
    "as_mapping",
    "as_sequence",
    "load",
    "read_pickle",
    "walked",
]
