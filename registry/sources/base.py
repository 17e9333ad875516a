"""What a source is, the table of sources, and the base class of opened checkpoints."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from registry.errors import SourceError, UnsafeError
from registry.extensions import SOURCES as ROWS
from registry.extensions import Table
from registry.sources.files.byte_source import SCHEMES as ADDRESSES
from registry.types.model_facts import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelFacts, ModelRef, TensorInfo

__all__ = [
    "DEFERRED",
    "MAX_TENSORS",
    "PREFIX",
    "SCHEMES",
    "SOURCES",
    "SUFFIXES",
    "OpenedCheckpoint",
    "Source",
    "common_prefix",
    "discard",
    "is_weights_name",
    "location_of",
    "verify",
]

PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_+-]+")  # a single letter is a Windows drive
_TAKEN = ("sha256", "module", "deferred")

MAX_TENSORS = 1_000_000
_MAX_NAME = 1000  # characters
_MAX_DIMENSIONS = 32
_SURROGATE = re.compile("[\ud800-\udfff]")
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


class Closable(Protocol):
    """What is released with a checkpoint: a file, a temporary folder."""

    def close(self) -> None:
        """Release it."""


Expander = Callable[[str, str | None, int], "tuple[ModelRef, ...]"]


@dataclass(frozen=True, slots=True)
class Source:
    """An entry of the table of sources.

    ``open`` turns a `ModelRef` of this source into a `Checkpoint`. ``expand`` turns the text after ``prefix`` in a
    reference (``torchvision:resnet*``), a key and a seed into models; None for sources of files, which are found
    by content (`recognition`). ``headers``: a file opens without reading its weights, so that its shapes cost nothing.
    ``discard`` removes what ``open`` downloaded; None for sources that download nothing. ``open_headers``: as ``open``,
    for what needs the header alone: of a remote model it reads no more than that. None: ``open`` itself, where
    ``headers`` is set. ``ranges``: ``open`` reads the file, and those beside it, by `byte_source.open_bytes` alone, so
    that of a remote file no more is transferred. ``schemes``: of a source of addresses (``https://...``), which
    ``expand`` takes whole.
    """

    name: str
    open: Callable[[ModelRef], Checkpoint]
    prefix: str = ""
    headers: bool = False
    expand: Expander | None = None
    discard: Callable[[ModelRef], None] | None = None
    open_headers: Callable[[ModelRef], Checkpoint] | None = None
    ranges: bool = False
    schemes: tuple[str, ...] = ()


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


def _check_tensor(where: str, info: TensorInfo) -> None:
    name = info.name
    if len(name) > _MAX_NAME or "\0" in name or (not name.isascii() and _SURROGATE.search(name)):
        raise UnsafeError(
            f"{where}: the tensor name {name[:60]!r} is too long or not valid text",
            "rename the tensor, then save again",
        )
    if len(info.shape) > _MAX_DIMENSIONS:
        raise UnsafeError(
            f"{where}: tensor {name} has {len(info.shape)} dimensions, more than {_MAX_DIMENSIONS}",
            "reshape it, then save again",
        )


class OpenedCheckpoint(ABC):
    """Base class of opened checkpoints: tensors, reference, and closing as a context manager.

    Raises
    ------
    UnsafeError
        A tensor's name is too long or not valid text, or a tensor has more dimensions than a NumPy array can have.
    """

    def __init__(self, ref: ModelRef, tensors: Sequence[TensorInfo], facts: ModelFacts | None = None) -> None:
        for info in tensors:
            _check_tensor(ref.target, info)
        self._ref = ref
        self._facts = NO_FACTS if facts is None else facts
        self._tensors = tuple(tensors)
        self._closed = False
        self._resources: list[Closable] = []

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order of the source."""
        return self._tensors

    @property
    def ref(self) -> ModelRef:
        """The reference that was opened, its card completed from the file's metadata."""
        return self._ref

    def under(self, ref: ModelRef) -> Self:
        """This checkpoint under the reference by which its file was fetched; card and entry are the file's."""
        self._ref = replace(ref, card=self._ref.card, key=self._ref.key)
        return self

    def keep(self, resource: Closable | None, *notes: str) -> Self:
        """This checkpoint, which closes ``resource`` when it is closed; ``notes`` are added to its facts."""
        if resource is not None:
            self._resources.append(resource)
        self._facts = replace(self._facts, notes=(*self._facts.notes, *notes))
        return self

    @property
    def facts(self) -> ModelFacts:
        """Configuration beside the weights and in their header; empty where there is none."""
        return self._facts

    @abstractmethod
    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64."""

    @abstractmethod
    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of a tensor in C order of its stored layout."""

    def bytes_of(self, name: str) -> int:
        """Size of a tensor in bytes."""
        return len(self.raw(name))

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a tensor. A source that can read a part of a file does better than this."""
        return self.raw(name)[start:stop]

    def verify(self) -> None:  # noqa: B027 - a source without checksums has nothing to compare
        """Compare the checksums of the file with its data, where it has any and reading does not compare them.

        Raises ``WeightsError`` that names file and entry. Takes one pass over the data; called before they are hashed.
        """

    def close(self) -> None:
        """Release files and memory. Closing twice has no effect."""
        self._closed = True
        while self._resources:
            self._resources.pop().close()

    def _check_open(self) -> None:
        if self._closed:
            raise SourceError(f"{self._ref.target} has been closed", "open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def verify(checkpoint: Checkpoint) -> None:
    """Compare the checksums of a checkpoint's file with its data; nothing for one of a plug-in that has none."""
    compare = getattr(checkpoint, "verify", None)
    if compare is not None:
        compare()


def common_prefix(names: Iterable[str]) -> str:
    """The wrappers' prefix that all names share: some sequence of ``module.`` and ``_orig_mod.``, often empty."""
    names = list(names)
    prefix = ""
    while names:
        longer = next((prefix + p for p in _WRAPPERS if all(name.startswith(prefix + p) for name in names)), None)
        if longer is None or longer in names:
            break
        prefix = longer
    return prefix
