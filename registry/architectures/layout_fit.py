"""Whether the shapes of a file are those of a layout, for some number of classes and of input channels.

Shapes are compared as multisets over floating-point tensors. Tied tensors may be present once or by each name, and the
buffers may all be absent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from registry.types import ArchitectureTensor, Extent, Layout, Symbol

__all__ = ["Fit", "LayoutShapes", "Values", "best_values", "fitted", "matrices", "without_head"]

Shape = tuple[int, ...]

_MOST_VALUES = 64
"""Values of a symbol that are tried; two of each symbol are more than any file of the libraries has asked for."""
_LEAST_KEPT = 8
"""Tensors that a network without its head has at least, to be recognised by them."""


class Values(NamedTuple):
    """The number of classes and of input channels; None where nothing tells them."""

    classes: int | None = None
    channels: int | None = None


class Fit(NamedTuple):
    """How a file's shapes are those of a layout.

    ``buffers``: the file has the layout's buffers. ``lacking``: names of the tensors of the head that it lacks, or has
    others in place of. ``extra``: the number of those others.
    """

    values: Values
    buffers: bool
    lacking: frozenset[str] = frozenset()
    extra: int = 0


@dataclass(frozen=True, slots=True)
class LayoutShapes:
    """The floating-point tensors of a layout: with plain shapes, with symbolic ones, and those tied to others.

    ``parameters``, ``buffers``: plain shapes of distinct tensors. ``symbolic``: distinct tensors with a symbol.
    """

    parameters: Counter[Shape]
    buffers: Counter[Shape]
    symbolic: tuple[ArchitectureTensor, ...]
    tied: tuple[ArchitectureTensor, ...]

    @classmethod
    def of(cls, tensors: Iterable[ArchitectureTensor]) -> LayoutShapes:
        """Sort the tensors; those that are not floating point are left out."""
        floating = [tensor for tensor in tensors if tensor.floating]
        shapes = {tensor.shape for tensor in floating}
        plain = {shape for shape in shapes if all(type(extent) is int for extent in shape)}
        distinct = [tensor for tensor in floating if not tensor.tied]
        return cls(
            Counter(tensor.shape for tensor in distinct if tensor.shape in plain and not tensor.buffer),  # type: ignore[misc]
            Counter(tensor.shape for tensor in distinct if tensor.shape in plain and tensor.buffer),  # type: ignore[misc]
            tuple(tensor for tensor in distinct if tensor.shape not in plain),
            tuple(tensor for tensor in floating if tensor.tied),
        )

    def without(self, tensors: Iterable[ArchitectureTensor]) -> LayoutShapes:
        """The same without these tensors of the layout."""
        left_out = {tensor.name for tensor in tensors}
        other = LayoutShapes.of(tensors)
        return LayoutShapes(
            self.parameters - other.parameters,
            self.buffers - other.buffers,
            tuple(tensor for tensor in self.symbolic if tensor.name not in left_out),
            tuple(tensor for tensor in self.tied if tensor.name not in left_out),
        )

    @property
    def distinct(self) -> int:
        """Number of distinct tensors."""
        return self.parameters.total() + self.buffers.total() + len(self.symbolic)

    def kept(self, buffers: bool) -> list[tuple[Extent, ...]]:
        """The shapes of distinct tensors, with the buffers or without them."""
        plain = self.parameters + self.buffers if buffers else self.parameters
        return [*plain.elements(), *(one.shape for one in self.symbolic if buffers or not one.buffer)]


def fitted(shapes: LayoutShapes, counts: Counter[Shape]) -> Fit | None:
    """How the file's shapes are those of the layout, with its buffers or without them; None where they differ."""
    for needed, symbolic, buffers in _variants(shapes):
        if needed.total() + len(symbolic) > counts.total() or not needed <= counts:
            continue
        values = _solved(symbolic, counts - needed, shapes.tied)
        if values is not None:
            return Fit(values, buffers)
    return None


def _variants(shapes: LayoutShapes) -> Iterator[tuple[Counter[Shape], Sequence[ArchitectureTensor], bool]]:
    """Plain shapes and symbolic tensors: with the buffers, and without them where there are any."""
    yield shapes.parameters + shapes.buffers, shapes.symbolic, True
    parameters = [tensor for tensor in shapes.symbolic if not tensor.buffer]
    if shapes.buffers or len(parameters) < len(shapes.symbolic):
        yield shapes.parameters, parameters, False


def _solved(
    symbolic: Sequence[ArchitectureTensor], rest: Counter[Shape], tied: Sequence[ArchitectureTensor]
) -> Values | None:
    """The values for which the rest is these tensors, and some of the tied ones besides; None where there are none."""
    if not len(symbolic) <= rest.total() <= len(symbolic) + len(tied):
        return None
    for values in _possible(symbolic, rest):
        resolved = Counter(tensor.sized(*values) for tensor in symbolic)
        if resolved <= rest and rest - resolved <= Counter(_sized(tensor, values) for tensor in tied):
            return values
    return None


def _sized(tensor: ArchitectureTensor, values: Values) -> Shape | None:
    """The shape for these values; None where it follows from one that is not known."""
    if any(getattr(values, symbol) is None for symbol in tensor.symbols):
        return None
    return tensor.sized(*values)


def _possible(symbolic: Iterable[ArchitectureTensor], rest: Iterable[Shape]) -> Iterator[Values]:
    """Values by which one tensor of each symbol has a shape of the rest."""
    pivots: dict[Symbol, ArchitectureTensor] = {}
    for tensor in sorted(symbolic, key=lambda tensor: len(tensor.symbols)):
        for symbol in tensor.symbols:
            pivots.setdefault(symbol, tensor)
    among = list(rest)
    found = [
        _values_of(pivots[symbol], symbol, among) if symbol in pivots else [None] for symbol in ("classes", "channels")
    ]
    for classes, channels in product(*found):
        yield Values(classes, channels)


def _values_of(tensor: ArchitectureTensor, symbol: Symbol, among: Iterable[Shape]) -> list[int]:
    """The values of the symbol for which the tensor may have one of these shapes."""
    found: dict[int, None] = {}
    for shape in among:
        value = _value(tensor, symbol, shape)
        if value is not None:
            found[value] = None
            if len(found) == _MOST_VALUES:
                break
    return list(found)


def _value(tensor: ArchitectureTensor, symbol: Symbol, shape: Shape) -> int | None:
    """The positive value of the symbol that gives the tensor that shape, whatever the other symbol is."""
    if len(shape) != len(tensor.shape):
        return None
    told: int | None = None
    for extent, size in zip(tensor.shape, shape, strict=True):
        if isinstance(extent, int):
            if extent != size:
                return None
        elif extent.symbol == symbol:
            value, left = divmod(size - extent.offset, extent.factor)
            if left or value < 1 or told not in {None, value}:
                return None
            told = value
    return told


def best_values(shapes: LayoutShapes, counts: Counter[Shape], buffers: bool) -> tuple[Values, Counter[Shape]]:
    """The values for which most tensors of the layout are in the file, and the shapes of these."""
    needed, symbolic = shapes.parameters, [tensor for tensor in shapes.symbolic if buffers or not tensor.buffer]
    if buffers:
        needed = needed + shapes.buffers
    rest = counts - needed
    best = Values()
    symbols: tuple[Symbol, ...] = ("classes", "channels")
    for symbol in symbols:
        tried: Counter[int] = Counter()
        for tensor in symbolic:
            if symbol in tensor.symbols:
                tried.update(_values_of(tensor, symbol, rest))
        if tried:
            value, _ = max(tried.items(), key=lambda item: (item[1], -item[0]))
            best = best._replace(**{symbol: value})
    resolved = Counter(shape for tensor in symbolic if (shape := _sized(tensor, best)) is not None)
    return best, (needed & counts) + (resolved & rest)


def matrices(shapes: Iterable[tuple[Extent, ...]]) -> int:
    """How many are shapes of matrices and kernels: of two extents or more that are not one."""
    return sum(sum(extent != 1 for extent in shape) > 1 for shape in shapes)


def without_head(layout: Layout, shapes: LayoutShapes, counts: Counter[Shape]) -> Fit | None:
    """How the file's shapes are those of the layout but for its head, which the file lacks or has replaced.

    The head are the tensors whose shape follows from the number of classes, and what else is in the modules around
    them: the smallest modules for which the rest is all in the file. At least half of the tensors remain.
    """
    missing = shapes.parameters - counts
    if 2 * missing.total() > shapes.distinct:
        return None
    for head in _heads(layout):
        kept = shapes.without(head)
        if kept.distinct < _LEAST_KEPT:
            return None
        lacking = frozenset(tensor.name for tensor in head)
        for needed, symbolic, buffers in _variants(kept):
            if not needed <= counts:
                continue
            rest = counts - needed
            values = _solved(symbolic, rest, kept.tied)
            if values is not None:
                return Fit(values, buffers, lacking)
            values, matched = best_values(kept, counts, buffers)
            if matched.total() == needed.total() + len(symbolic):
                return Fit(values, buffers, lacking, counts.total() - matched.total())
    return None


def _heads(layout: Layout) -> Iterator[list[ArchitectureTensor]]:
    """The tensors of the head: of its innermost modules, then of these with what is in the modules around them."""
    modules = {one.name.rpartition(".")[0] for one in layout.tensors if "classes" in one.symbols} - {""}
    seen = 0
    while modules:
        within = tuple(f"{module}." for module in modules)
        head = [tensor for tensor in layout.tensors if tensor.name.startswith(within)]
        if 2 * len(head) > len(layout.tensors):
            return
        if len(head) > seen:
            yield head
        seen = len(head)
        wider = {module.rpartition(".")[0] or module for module in modules}
        modules = wider if wider != modules else set()
