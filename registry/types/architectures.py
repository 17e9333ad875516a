"""Architectures as libraries build them: their tensors, and the weights published for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "Architecture",
    "ArchitectureMatch",
    "ArchitectureTensor",
    "CatalogueEntry",
    "Extent",
    "Layout",
    "PublishedWeights",
    "Recognised",
    "Symbol",
    "Symbolic",
    "TensorDifference",
    "WeightsMetric",
]

Symbol = Literal["classes", "channels"]

_CHANNELS = re.compile(r"(, )?\w+=\{channels\}")


class Symbolic(NamedTuple):
    """An extent that follows from an argument of the builder: ``factor`` times its value, plus ``offset``.

    ``symbol``: ``classes`` (the number of classes) or ``channels`` (the number of input channels).
    """

    symbol: Symbol
    factor: int = 1
    offset: int = 0

    def of(self, value: int) -> int:
        """The extent for a value of the argument."""
        return self.factor * value + self.offset


Extent = int | Symbolic


class ArchitectureTensor(NamedTuple):
    """One tensor of a state dict.

    ``shape``: extents, some of them symbolic. ``buffer``: it is no parameter. ``floating``: its values are floating
    point. ``tied``: name of an earlier tensor of the same layout with which it shares its storage, empty for most.
    """

    name: str
    shape: tuple[Extent, ...]
    buffer: bool = False
    floating: bool = True
    tied: str = ""

    def sized(self, classes: int | None, channels: int | None) -> tuple[int, ...]:
        """The shape for a number of classes and of input channels. Raises ``ValueError`` if one is needed and None."""
        values = {"classes": classes, "channels": channels}
        return tuple(
            extent if isinstance(extent, int) else _valued(extent, values[extent.symbol]) for extent in self.shape
        )

    @property
    def symbols(self) -> frozenset[Symbol]:
        """The arguments that its shape follows from."""
        return frozenset(extent.symbol for extent in self.shape if not isinstance(extent, int))


def _valued(extent: Symbolic, value: int | None) -> int:
    if value is None:
        raise ValueError(f"the number of {extent.symbol} is needed")
    return extent.of(value)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a state dict in its order. Architectures with equal tensors, names included, share one layout."""

    id: int
    tensors: tuple[ArchitectureTensor, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture that a library builds without data.

    ``library``: ``torchvision``, ``timm`` or ``transformers``. ``name``: the library's. ``code``: the expression that
    builds it, with ``{classes}`` and ``{channels}`` where a number of them goes, ``imports``: the modules that it
    needs. ``classes``, ``channels``: default numbers, None where the architecture takes none. ``parameters``: number of
    trainable values with these. ``image_size``: side of the default input in pixels, None where the input is no image.
    ``gmacs``: multiply-adds of one forward pass at that size, in units of 1e9, None where no source states them.
    ``family``: the library's module. ``task``: what it is built for.
    """

    id: int
    library: str
    name: str
    layout: int
    code: str
    imports: str
    family: str = ""
    task: str = ""
    classes: int | None = None
    channels: int | None = None
    parameters: int = 0
    image_size: int | None = None
    gmacs: float | None = None

    @property
    def label(self) -> str:
        """``library/name``: unique in the catalogue."""
        return f"{self.library}/{self.name}"

    def line(self, classes: int | None = None, channels: int | None = None) -> str:
        """The line of code that builds it; with the default numbers where None is given.

        An argument for the input channels is left out where their number is the default.
        """
        code = _CHANNELS.sub("", self.code) if channels in (None, self.channels) else self.code
        return code.format(classes=classes or self.classes, channels=channels or self.channels)


@dataclass(frozen=True, slots=True)
class WeightsMetric:
    """A published score of published weights. ``source``: the table it is from."""

    name: str
    dataset: str
    split: str
    image_size: int | None
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """Weights that a library publishes for an architecture.

    ``tag``: the library's name of them. ``reference``: what ``archreg ingest`` takes (``timm:resnet50.a1_in1k``).
    ``classes``: the number that they were trained for. ``bytes``: size of the published file. ``sha256``: hash of the
    published file or the first digits of it, empty where none is known. ``licence_source``: where the licence is
    stated.
    """

    id: int
    architecture: int
    tag: str
    reference: str
    dataset: str = ""
    licence: str = ""
    licence_source: str = ""
    classes: int | None = None
    bytes: int | None = None
    sha256: str = ""
    url: str = ""
    metrics: tuple[WeightsMetric, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What the catalogue states of an architecture that an answer names, beside the summary.

    ``library``, ``code``: as of `Architecture`, the line with its default numbers. ``image_size``: side of the input in
    pixels that the other figures are for, None where it is no image or where no size was chosen. ``gmacs``:
    multiply-adds of one forward pass at that size, in units of 1e9, by ``gmacs_source``; None where no source states
    them. ``weights``: the published weights that the answer names, None if it names none; ``chosen_by``: the metric by
    which they are the best at that size (``top1@imagenet-1k/val``), empty if none decided.
    """

    library: str
    code: str
    image_size: int | None = None
    gmacs: float | None = None
    gmacs_source: str = ""
    weights: PublishedWeights | None = None
    chosen_by: str = ""


class TensorDifference(NamedTuple):
    """One place at which the tensors of a file and of an architecture differ, in the order of an alignment.

    ``name``, ``shape``: of the file; an empty name where it has nothing there. ``expected``, ``expected_shape``: of the
    architecture; an empty name where that has nothing there.
    """

    name: str
    shape: tuple[int, ...]
    expected: str
    expected_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArchitectureMatch:
    """How the tensors of a file and of an architecture agree.

    ``share``: Dice coefficient over the shapes of distinct floating-point tensors, 2 c / (a + b) for c in common; where
    the file has none of the architecture's buffers (running statistics), these are not counted. ``exact``: all of them
    agree, but for the head of a headless file. ``classes``, ``channels``: numbers that symbolic extents follow from;
    None where the architecture takes no such number, or the file does not tell it. ``prefix``: what stands before the
    file's names and not before the architecture's. ``named``: the names agree, too, without that prefix. ``strict``:
    the file, without that prefix, loads by ``load_state_dict`` with ``strict=True`` into what
    ``architecture.line(classes, channels)`` builds: names and shapes of all tensors agree, those of integers included.
    ``head``, ``stem``: the file's tensors whose shape follows from the number of classes, and of input channels, in the
    file's order; of a near one with another head, the tensors in its place, with their last number of outputs as
    ``classes``. ``differences``: where they differ: nothing for an exact one, the head for a headless one.
    """

    architecture: Architecture
    share: float
    exact: bool
    named: bool
    strict: bool
    classes: int | None = None
    channels: int | None = None
    prefix: str = ""
    head: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    differences: tuple[TensorDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which architectures of a catalogue the tensors of a file are.

    ``verdict``: ``exact`` (``matches`` are the class of architectures with equal shapes, the best tie first), ``near``
    (the nearest ones, the nearest first, one of each that have equal shapes) or ``unknown`` (nothing is near enough;
    ``matches`` are the nearest nevertheless, to be shown as such, and may be empty). ``headless``: exact but for the
    head, which the file lacks.
    """

    verdict: Literal["exact", "near", "unknown"]
    matches: tuple[ArchitectureMatch, ...]
    headless: bool = False
