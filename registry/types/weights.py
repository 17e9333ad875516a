"""Tensors, layer matrices, model cards, references to models, and opened checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypedDict

from registry.types.reprs import Shown
from registry.types.weight_figures import VectorCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from registry.types.model_facts import ModelFacts

__all__ = [
    "HEADER_PREFIX",
    "NAMED",
    "CardChanges",
    "CardFields",
    "Checkpoint",
    "LayerMatrix",
    "LeftOut",
    "Metric",
    "ModelCard",
    "ModelRef",
    "Plan",
    "SkippedTensor",
    "TensorInfo",
    "WeightsPlan",
    "place_of",
]


HEADER_PREFIX: Final = "header:"
"""How the content hash of a model begins whose weights were not read: no hash of any content."""

NAMED: Final = 3
"""Names of files left out that are kept for each reason."""


def place_of(name: str, dataset: str, split: str) -> str:
    """A metric's name with its data set and split, as far as they are known: ``top1@cifar10/test``."""
    behind = f"/{split}" if split else ""
    return f"{name}@{dataset}{behind}" if dataset or split else name


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, dtype and shape of a stored tensor; the shape is in torch's layout (out, in, *kernel).

    ``dtype`` is torch's name without the prefix: ``float32``, ``bfloat16``, ``int64``, ``float8_e4m3fn``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, slots=True)
class SkippedTensor:
    """A tensor that is not a layer matrix, with the reason in words."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class LayerMatrix(Shown):
    """A weight matrix W of shape (p, q) in a checkpoint: its position, not its values.

    ``tensor`` is the effective tensor. ``name`` equals it, with ``[part]`` appended for a part of a fused tensor
    (``attn.in_proj_weight[q]``). ``start`` and ``stop`` bound the part along the tensor's axis ``axis``; with a
    ``period`` they bound it in each of the groups of that many indices, of which it is made up (heads that keep their
    q, k and v together). ``shape`` is the shape of the part, (out, in, *kernel); ``kernel`` its trailing extents, ()
    for linear layers. ``kind`` is one of ``linear``, ``conv``, ``depthwise``, ``embedding``, ``recurrent``,
    ``attention``.
    """

    position: int
    name: str
    tensor: str
    shape: tuple[int, ...]
    kind: str
    axis: int = 0
    start: int = 0
    stop: int = 0
    period: int = 0

    @property
    def p(self) -> int:
        """Number of outputs: the order of W W^T."""
        return self.shape[0]

    @property
    def q(self) -> int:
        """Product of all extents except the first."""
        size = 1
        for extent in self.shape[1:]:
            size *= extent
        return size

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial extents of a convolution's kernel; empty for a matrix."""
        return self.shape[2:]


@dataclass(frozen=True, slots=True, repr=False)
class Metric(Shown):
    """A published or measured score of a model."""

    name: str
    value: float
    dataset: str = ""
    split: str = ""
    higher_is_better: bool | None = None
    source: str = ""

    @property
    def place(self) -> str:
        """``top1@cifar10/test``: the name, and on what it was measured."""
        return place_of(self.name, self.dataset, self.split)


@dataclass(frozen=True, slots=True, repr=False)
class ModelCard(Shown):
    """What is known of a model besides its weights; an empty string and None mean unknown."""

    family: str = ""
    architecture: str = ""
    task: str = ""
    dataset: str = ""
    licence: str = ""
    source: str = ""
    revision: str = ""
    recipe: str = ""
    training: str = ""
    seed: int | None = None
    gflops: float | None = None
    metrics: tuple[Metric, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def updated(self, other: ModelCard) -> ModelCard:
        """This card with the known fields of ``other`` taking precedence; metrics and tags are merged."""
        known: dict[str, Any] = {
            f.name: getattr(other, f.name)
            for f in fields(other)
            if f.name not in ("metrics", "tags") and getattr(other, f.name) not in ("", None)
        }
        metrics = {(m.name, m.dataset, m.split): m for m in (*self.metrics, *other.metrics)}
        return replace(
            self, **known, metrics=tuple(metrics.values()), tags=tuple(dict([*self.tags, *other.tags]).items())
        )


class CardChanges(TypedDict, total=False):
    """The fields of `ModelCard` that ``Registry.set`` changes, as its keywords. None means unknown."""

    family: str | None
    architecture: str | None
    task: str | None
    dataset: str | None
    licence: str | None
    source: str | None
    revision: str | None
    recipe: str | None
    training: str | None
    seed: int | None
    gflops: float | None


class CardFields(CardChanges, total=False):
    """The fields of `ModelCard` as keywords of ``Registry.ingest``. None means unknown."""

    metrics: Iterable[Metric] | None
    tags: Iterable[tuple[str, str]] | None


@dataclass(frozen=True, slots=True, repr=False)
class ModelRef(Shown):
    """Reference to one model that a source can open; ``source`` is its name in the table of sources.

    ``target`` is the model in terms of that source (an absolute path, ``resnet50.IMAGENET1K_V2``). ``name`` is the
    default name in a registry. ``key`` is the entry of a wrapped checkpoint to read. ``bytes`` is the size to read or
    download, None if unknown. ``cached``: no download is needed. ``base``: reference to the model that an adapter
    adapts; empty for the one that its configuration names. ``access``: of a remote file, its address with user and
    signature, which is neither shown nor stored; empty if it has none.
    """

    source: str
    target: str
    name: str
    card: ModelCard = ModelCard()
    key: str | None = None
    seed: int = 0
    bytes: int | None = None
    cached: bool = True
    base: str = ""
    access: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files of a folder that no model is read from: the ``reason``, how many ``files``, and the first ``names``.

    ``remedy``: what to do to have their models read, where there is something.
    """

    reason: str
    files: int
    names: tuple[str, ...]
    remedy: str = ""


class Plan(tuple["ModelRef", ...]):
    """The models that references name, as a tuple; ``left_out``: files in scanned folders that are no models."""

    left_out: tuple[LeftOut, ...]

    def __new__(cls, refs: Iterable[ModelRef] = (), left_out: Iterable[LeftOut] = ()) -> Self:
        """Make a plan; files left out for one reason are counted together."""
        plan = super().__new__(cls, refs)
        merged: dict[str, LeftOut] = {}
        for each in left_out:
            held = merged.get(each.reason)
            files, names = (0, ()) if held is None else (held.files, held.names)
            names = tuple(sorted({*names, *each.names})[:NAMED])
            merged[each.reason] = LeftOut(each.reason, files + each.files, names, each.remedy)
        plan.left_out = tuple(sorted(merged.values(), key=lambda each: (-each.files, each.reason)))
        return plan


@dataclass(frozen=True, slots=True)
class WeightsPlan:
    """Result of the matrix rule for a checkpoint: layer matrices in depth order, skipped tensors, identity.

    ``content_hash``: hexadecimal sha256 over the set of distinct weights as stored, (dtype, shape, bytes), without
    names. ``topology``: hexadecimal hash of the sorted shapes (p, q) of the matrices. ``parameters``: number of
    weights, each of a quantised tensor counted, without batch statistics and tied copies. ``bytes``: size of all
    tensors as stored. ``precision``: how the layers' values are stored (``int4 gptq, float16``), most of them first.
    ``unread``: weights that are no part of any layer because they cannot be read; few, or the model is refused.
    ``nonfinite``: values of parameters and statistics that are NaN or infinite; none, unless they were allowed.
    ``notes``: sentences on choices that the reader of the file had to make. ``header``: hexadecimal sha256 over the
    location and the names, dtypes and shapes of the stored tensors; empty for weights in memory. Of a plan by headers
    alone, ``content_hash`` is ``header:`` and that hash, and tied and all-zero tensors are not known. ``vectors``:
    numbers of gains, statistics and biases, and of those that have left their start.
    """

    rule: str
    layers: tuple[LayerMatrix, ...]
    skipped: tuple[SkippedTensor, ...]
    content_hash: str
    topology: str
    parameters: int
    bytes: int
    precision: str = ""
    unread: int = 0
    nonfinite: int = 0
    notes: tuple[str, ...] = ()
    header: str = field(default="", compare=False)
    vectors: VectorCounts = field(default=VectorCounts(), compare=False)

    @property
    def weights_read(self) -> bool:
        """Whether the weights were read; else the plan is that of their headers."""
        return not self.content_hash.startswith(HEADER_PREFIX)


class Checkpoint(Protocol):
    """Opened weights, read one tensor at a time. Every source returns one; closing it releases files and memory."""

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order of the source."""

    @property
    def ref(self) -> ModelRef:
        """The reference that was opened, its card completed from the file's metadata."""

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor in torch's layout as float32 or float64; float16 and bfloat16 become float32."""

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order of torch's layout, for hashing; a view if possible."""

    @property
    def facts(self) -> ModelFacts:
        """Configuration beside the weights and in their header; empty where there is none."""

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes, as stored."""

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of what ``raw`` gives, read without the rest if possible."""

    def close(self) -> None:
        """Release files and memory."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
