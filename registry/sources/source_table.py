"""The table of sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from registry.extensions import SOURCES as ROWS
from registry.extensions import Table
from registry.sources.base import Source
from registry.sources.files.byte_source import SCHEMES as ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.types import ModelRef

__all__ = ["DEFERRED", "PREFIX", "SCHEMES", "SOURCES", "SUFFIXES", "discard", "is_weights_name", "location_of"]

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
    return found


SOURCES: Table[Source] = Table(ROWS, group="archreg.sources", check=_checked)
"""The sources of this package; ``find`` knows those of other packages, too."""

DEFERRED = "deferred"
"""Source of references that `expand` refused."""

SUFFIXES: Mapping[str, str] = {
    ".safetensors": "safetensors", ".pt": "torch", ".pth": "torch", ".th": "torch", ".ckpt": "torch", ".bin": "torch",
    ".npz": "npz", ".safetensors.index.json": "shards", ".bin.index.json": "shards",
    ".pkl": "pickle", ".pickle": "pickle", ".joblib": "pickle", ".pdparams": "pickle", ".ptl": "torchscript",
    ".pt2": "torch_export", ".npy": "npy", ".mat": "mat", ".onnx": "onnx", ".h5": "keras", ".hdf5": "keras",
    ".keras": "keras", ".pb": "tf_graph", ".tflite": "tflite", ".gguf": "gguf", ".msgpack": "flax",
    ".nemo": "nemo", ".params": "mxnet", ".caffemodel": "caffe", ".param": "ncnn", ".mnn": "mnn", ".mlmodel": "coreml",
}  # fmt: skip
"""Usual suffixes of weights files and their sources. Content decides; these tell of files that have lost theirs."""


SCHEMES: Mapping[str, str] = dict.fromkeys(ADDRESSES, "remote")
"""Kinds of addresses (``https://...``) and their source."""


def is_weights_name(path: Path) -> bool:
    """Whether the name is one that weights files usually have."""
    return path.name.lower().endswith(tuple(SUFFIXES))


def location_of(ref: ModelRef) -> str:
    """The path of a file, the reference of a published model; empty for a module in memory."""
    if ref.source == "module":
        return ""
    source = SOURCES.find(ref.source)
    return f"{source.prefix}:{ref.target}" if source is not None and source.prefix else ref.target


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
