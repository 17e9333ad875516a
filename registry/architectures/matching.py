"""Which architecture of a catalogue the tensors of a file are: exact, near or unknown.

Shapes decide, not names: those of the floating-point tensors as they are stored, as a multiset. Names, buffers and the
order of the tensors tell architectures of equal shapes apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.architectures.layout_fit import Fit, LayoutShapes, Values, best_values, fitted, matrices, without_head
from registry.architectures.name_prefixes import NamePrefixes
from registry.architectures.shape_alignment import Tensor, differences, paired_by_name, paired_by_shape
from registry.types import ArchitectureMatch, Recognised, TensorDifference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from registry.architectures.catalogue_file import Catalogue
    from registry.types import Architecture, ArchitectureTensor, Layout, Symbol, TensorInfo

__all__ = ["NEAR", "recognise"]

Shape = tuple[int, ...]

NEAR = 0.6
"""Dice coefficient, of all shapes and of those of matrices alone, from which an architecture is near enough to be so
called. Vectors of common lengths are in any network: alone they would make strangers near (``docs/benchmarks.md``)."""

_MOST_DIMENSIONS = 16
_MOST_EXTENT = 2**62
_MOST_TRIED = 256
"""Layouts that are read to see whether their shapes are the file's, the ones with most in common first."""
_MOST_TIED = 8
"""Layouts that are read besides, in case that the file has their tied tensors by each name, and no buffers."""
_MOST_RANKED = 32
"""Layouts that are read to find the nearest ones, symbolic extents included."""


@dataclass(frozen=True)
class _File:
    """The tensors of a file: the floating-point ones in order, their shapes counted, and the starts of their names."""

    tensors: Sequence[TensorInfo]
    floating: list[Tensor]
    counts: Counter[Shape]
    prefixes: NamePrefixes

    @classmethod
    def of(cls, tensors: Sequence[TensorInfo], most: int) -> _File | None:
        """None where there are no floating-point tensors, or more than ``most``."""
        floating = [Tensor(one.name, tuple(one.shape)) for one in tensors if _is_floating(one.dtype)]
        if not floating or len(floating) > most:
            return None
        prefixes = NamePrefixes(tensor.name for tensor in floating)
        return cls(tensors, floating, Counter(tensor.shape for tensor in floating), prefixes)

    @cached_property
    def names(self) -> list[str]:
        return [tensor.name for tensor in self.floating]

    @cached_property
    def matrices(self) -> int:
        return matrices(self.counts.elements())

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """By name, of all tensors."""
        return {tensor.name: tuple(tensor.shape) for tensor in self.tensors}

    @cached_property
    def others(self) -> Counter[Shape]:
        """The shapes of the tensors that are not floating point."""
        return Counter(tuple(tensor.shape) for tensor in self.tensors if not _is_floating(tensor.dtype))

    @cached_property
    def sequence(self) -> list[tuple[Shape, bool]]:
        return [(tuple(tensor.shape), _is_floating(tensor.dtype)) for tensor in self.tensors]


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


class _Candidate(NamedTuple):
    """A layout, its tensors by kind, how the file fits it, and the Dice coefficients: of all shapes, of matrices."""

    layout: Layout
    shapes: LayoutShapes
    fit: Fit
    share: float
    of_matrices: float = 1.0


def recognise(
    tensors: Sequence[TensorInfo], catalogue: Catalogue, *, k: int = 5, without: Collection[int] = ()
) -> Recognised:
    """Which architectures of the catalogue the tensors of a file are.

    Exact are all architectures with the file's shapes, for one number of classes and one of input channels. The shapes
    are those of the floating-point tensors, as a multiset: tied ones once or by each name, the buffers all or none. The
    first of them are those whose names are the file's, then those with the file's buffers, other tensors, and order.
    Where none is exact, or none of them has the file's names, the file may be one but for its head. Otherwise the ``k``
    nearest by the Dice coefficient of the shapes follow, one of each that have equal shapes.

    Counters are integers in the libraries, and floating-point numbers in averages of state dicts: by their names they
    are taken for the integers that they stand for.

    ``tensors``: of the file, in its order. ``without``: ids of layouts that are passed over.

    Time: one lookup a distinct shape, and O(n m / 64) for each of the ``k`` shown, of n tensors of the file and m of
    the architecture. A file of so many tensors that none can be near is unknown without any lookup.
    """
    found = _recognised(tensors, catalogue, k, without)
    if found.verdict == "exact" or not found.matches:
        return found
    restored = _with_integers(tensors, catalogue, found.matches[0])
    if restored is None:
        return found
    again = _recognised(restored, catalogue, k, without)
    better = again.verdict == "exact" or (bool(again.matches) and again.matches[0].share > found.matches[0].share)
    return again if better else found


def _with_integers(
    tensors: Sequence[TensorInfo], catalogue: Catalogue, nearest: ArchitectureMatch
) -> list[TensorInfo] | None:
    """The file's tensors, those as integers that the nearest layout has as such by name; None where there are none."""
    layout = catalogue.layout(nearest.architecture.layout)
    known = {nearest.prefix + one.name: one.shape for one in layout.tensors if not one.floating}
    counters = {
        at for at, one in enumerate(tensors) if _is_floating(one.dtype) and known.get(one.name) == tuple(one.shape)
    }
    if not counters:
        return None
    return [replace(one, dtype="int64") if at in counters else one for at, one in enumerate(tensors)]


def _recognised(tensors: Sequence[TensorInfo], catalogue: Catalogue, k: int, without: Collection[int]) -> Recognised:
    """`recognise`, for the kinds of the tensors as they are."""
    ids, sizes = catalogue.sizes()
    plain = catalogue.plain_sizes()
    if without:
        kept = ~np.isin(ids, np.array(sorted(without), np.int64))
        ids, sizes, plain = ids[kept], sizes[kept], plain[kept]
    # Of a and b tensors at most b are common: 2 b / (a + b) is the largest Dice coefficient.
    file = _File.of(tensors, most=int(sizes.max(initial=0) * (2 / NEAR - 1)))
    if file is None:
        return Recognised("unknown", ())
    common = _common(catalogue, ids, file.counts)
    total = len(file.floating)
    dice = 2 * common / (total + sizes)
    exact, headless = _exact(catalogue, file, ids, sizes, plain, common, dice)
    if exact:
        return Recognised("exact", _in_order(catalogue, file, exact), headless)
    nearest = _nearest(catalogue, file, ids, dice, k)
    matches = tuple(_near_match(catalogue, file, one) for one in nearest)
    near = bool(nearest) and min(nearest[0].share, nearest[0].of_matrices) >= NEAR
    return Recognised("near" if near else "unknown", matches)


def _common(catalogue: Catalogue, ids: NDArray[np.int64], counts: Counter[Shape]) -> NDArray[np.int64]:
    """How many tensors of the file each layout has: sums of the smaller of two counts."""
    possible = [shape for shape in counts if len(shape) <= _MOST_DIMENSIONS and max(shape, default=0) <= _MOST_EXTENT]
    found = np.zeros(2**16, np.int64)
    for shape, posting in catalogue.postings(possible).items():
        found[posting.layouts] += np.minimum(posting.counts, counts[shape])  # a layout is there once for each shape
    return found[ids]


def _exact(
    catalogue: Catalogue,
    file: _File,
    ids: NDArray[np.int64],
    sizes: NDArray[np.int64],
    plain: NDArray[np.int64],
    common: NDArray[np.int64],
    dice: NDArray[np.float64],
) -> tuple[list[_Candidate], bool]:
    """The layouts whose shapes are the file's; else those of which it has all but the head, and that it is these.

    Where none of the former has the file's names, and of the latter some have, it is these.
    """
    # Tensors of the file beyond what has a plain shape in the layout or may have a symbolic one: none but tied ones.
    beyond = len(file.floating) - common - (sizes - plain)
    order = np.lexsort((ids, -dice))
    whole = (common == plain) & (beyond >= 0)
    first = order[whole[order]][:_MOST_TRIED]
    read = [_with_shapes(catalogue, int(ids[at])) for at in first]
    found = _fitting(read, file.counts)
    statistics = any(one.fit.buffers and one.shapes.buffers for one in found)
    if statistics and any(_has_names(one.layout, file) for one in found):
        return found, False
    possible = (beyond <= 0) & ~whole
    others = list(order[possible[order]][:_MOST_TRIED])
    others += [at for at in order[:_MOST_TIED] if not possible[at] and not whole[at]]
    read += [_with_shapes(catalogue, int(ids[at])) for at in others]
    if not statistics:  # with its statistics it is not the parameters alone of another
        found += _fitting(read[len(first) :], file.counts)
    if any(_has_names(one.layout, file) for one in found):
        return found, False
    headless = []
    for layout, shapes in read:
        if found and not _has_names(layout, file):
            continue  # of a file that is another by its shapes, its names alone make it this one without its head
        fit = without_head(layout, shapes, file.counts)
        if fit is not None and not fit.extra:
            total = len(file.floating) + len(shapes.kept(fit.buffers))
            headless.append(_Candidate(layout, shapes, fit, 2 * len(file.floating) / total))
    return (headless, True) if headless else (found, False)


def _has_names(layout: Layout, file: _File) -> bool:
    """Whether each floating-point tensor of the file has a name of the layout, behind one prefix."""
    _, agreeing = file.prefixes.before(tensor.name for tensor in layout.tensors if tensor.floating)
    return agreeing == len(file.floating)


def _with_shapes(catalogue: Catalogue, id_: int) -> tuple[Layout, LayoutShapes]:
    layout = catalogue.layout(id_)
    return layout, LayoutShapes.of(layout.tensors)


def _fitting(read: Iterable[tuple[Layout, LayoutShapes]], counts: Counter[Shape]) -> list[_Candidate]:
    """The layouts whose shapes are the file's."""
    fits = ((layout, shapes, fitted(shapes, counts)) for layout, shapes in read)
    return [_Candidate(layout, shapes, fit, 1.0) for layout, shapes, fit in fits if fit is not None]


def _nearest(
    catalogue: Catalogue, file: _File, ids: NDArray[np.int64], dice: NDArray[np.float64], k: int
) -> list[_Candidate]:
    """The ``k`` layouts with the largest Dice coefficient, one of each that have equal shapes; names decide ties.

    The index leaves out symbolic shapes, and a file may lack the buffers: the coefficients of the first ones by the
    index are computed anew with the best values, with the buffers and without them.
    """
    ranked: list[tuple[float, int, _Candidate]] = []
    for at in np.lexsort((ids, -dice))[:_MOST_RANKED]:
        if not dice[at]:
            break
        layout = catalogue.layout(int(ids[at]))
        shapes = LayoutShapes.of(layout.tensors)
        candidate = max(
            (_judged(layout, shapes, file, buffers=buffers) for buffers in (True, False)), key=lambda one: one.share
        )
        _, agreeing = file.prefixes.before(tensor.name for tensor in layout.tensors)
        ranked.append((-candidate.share, -agreeing, candidate))
    plainest = _plainest(catalogue, (candidate.layout.id for *_, candidate in ranked))
    ranked.sort(key=lambda row: (*row[:2], len(plainest[row[2].layout.id].name), row[2].layout.id))
    chosen: dict[tuple[object, ...], _Candidate] = {}
    for *_, candidate in ranked:
        alike = (
            frozenset((candidate.shapes.parameters + candidate.shapes.buffers).items()),
            frozenset(Counter(tensor.shape for tensor in candidate.shapes.symbolic).items()),
        )
        chosen.setdefault(alike, candidate)
    return list(chosen.values())[:k]


def _plainest(catalogue: Catalogue, layouts: Iterable[int]) -> dict[int, Architecture]:
    """Of each layout the architecture with the plainest name: resnet50 before quantized_resnet50."""
    found: dict[int, Architecture] = {}
    for one in sorted(catalogue.of_layouts(set(layouts)), key=lambda one: (len(one.name), one.id)):
        found.setdefault(one.layout, one)
    return found


def _judged(layout: Layout, shapes: LayoutShapes, file: _File, *, buffers: bool) -> _Candidate:
    values, matched = best_values(shapes, file.counts, buffers)
    kept = shapes.kept(buffers)
    share = 2 * matched.total() / (len(file.floating) + len(kept))
    of_matrices = 2 * matrices(matched.elements()) / max(1, file.matrices + matrices(kept))
    return _Candidate(layout, shapes, Fit(values, buffers), share, of_matrices)


@dataclass(frozen=True)
class _Comparison:
    """The tensors of a file and of a layout side by side.

    ``layout``: the floating-point tensors that the file may have; ``expected``: these with their shapes for the values
    of the fit, and for default ones where there are none. ``prefix``: what the file's names have before the layout's.
    ``agreeing``: how many of the file's floating-point tensors have the name and shape of one of the layout.
    ``named``: all of them, and none of the layout is missing.
    """

    file: _File
    candidate: _Candidate
    layout: list[ArchitectureTensor]
    expected: list[Tensor]
    prefix: str
    agreeing: int
    named: bool

    @classmethod
    def of(cls, file: _File, candidate: _Candidate, architecture: Architecture) -> _Comparison:
        fit = candidate.fit
        floating = [
            tensor
            for tensor in candidate.layout.tensors
            if tensor.floating and (fit.buffers or not tensor.buffer) and (fit.extra or tensor.name not in fit.lacking)
        ]
        prefix, _ = file.prefixes.before(tensor.name for tensor in floating)
        own = set(file.names)
        there = {tensor.name for tensor in floating if prefix + tensor.name in own}
        if 2 * len(there) < len(floating):
            prefix, there = "", set()
        tied = sum(bool(tensor.tied) for tensor in floating)
        each = len(own) >= len(floating) and tied > 0  # the tied ones by each of their names
        kept = [tensor for tensor in floating if not tensor.tied or (tensor.name in there if there else each)]
        expected = [Tensor(one.name, _sized(one, fit.values, architecture)) for one in kept]
        known = {prefix + tensor.name: tensor.shape for tensor in expected}
        agreeing = sum(known.get(tensor.name) == tensor.shape for tensor in file.floating)
        roots = {tensor.tied or tensor.name for tensor in floating}
        covered = {tensor.tied or tensor.name for tensor in floating if tensor.name in there}
        named = bool(there) and agreeing == len(file.floating) and roots <= covered
        return cls(file, candidate, kept, expected, prefix, agreeing, named)

    @cached_property
    def by_name(self) -> bool:
        """Most names of the layout are in the file."""
        own = set(self.file.names)
        return 2 * sum(self.prefix + tensor.name in own for tensor in self.expected) >= len(self.expected)

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of tensors that belong together, in the file and in ``expected``."""
        if self.by_name:
            return paired_by_name(self.file.floating, self.expected, self.prefix)
        return paired_by_shape(self.file.floating, self.expected)

    def of_symbol(self, symbol: Symbol) -> tuple[str, ...]:
        """The file's tensors whose shape follows from a symbol, in its order; none where one of them is not there."""
        asked = {at for at, tensor in enumerate(self.layout) if symbol in tensor.symbols and not tensor.tied}
        same = [
            (at, there)
            for at, there in self.pairs
            if there in asked and self.file.floating[at].shape == self.expected[there].shape
        ]
        if len(same) == len(asked):
            return tuple(self.file.names[at] for at, _ in same)
        return ()

    def anywhere(self, symbol: Symbol) -> tuple[str, ...]:
        """`of_symbol`, and where the order differs: the last tensors of these shapes, the first for the channels."""
        found = self.of_symbol(symbol)
        if found:
            return found
        asked = Counter(
            self.expected[at].shape for at, one in enumerate(self.layout) if symbol in one.symbols and not one.tied
        )
        among = self.file.floating if symbol == "channels" else self.file.floating[::-1]
        names = []
        for tensor in among:
            if asked[tensor.shape] > 0:
                asked[tensor.shape] -= 1
                names.append(tensor.name)
        return tuple(names if symbol == "channels" else names[::-1])

    def replaced_head(self) -> list[Tensor]:
        """The file's tensors in place of the head: those that belong to nothing in the layout but to the head.

        None where the rest of the layout is not there.
        """
        lacking = self.candidate.fit.lacking
        body = {at for at, there in self.pairs if self.expected[there].name not in lacking}
        if len(body) < sum(tensor.name not in lacking for tensor in self.expected):
            return []
        return [tensor for at, tensor in enumerate(self.file.floating) if at not in body]

    def strict(self, architecture: Architecture, asks_metadata: Collection[str]) -> bool:
        """Whether the names and shapes, those of other tensors included, are those of the architecture."""
        if not self.named or self.candidate.fit.lacking or architecture.label in asks_metadata:
            return False
        whole = {
            self.prefix + one.name: _sized(one, self.candidate.fit.values, architecture)
            for one in self.candidate.layout.tensors
        }
        return len(self.file.tensors) == len(whole) and self.file.shapes == whole

    def standing(self) -> tuple[int, ...]:
        """What orders architectures of equal shapes: smaller is better.

        Names, with no prefix before them, the buffers, how many names agree, the shapes of other tensors, the order of
        all tensors, and of the floating-point ones.
        """
        fit = self.candidate.fit
        kept = {tensor.name for tensor in self.layout}
        present = [one for one in self.candidate.layout.tensors if not one.floating or one.name in kept]
        shapes = dict(self.expected)
        # Other tensors have no symbols in any library; one that had would not be found equal.
        sequence = [(shapes.get(one.name, one.shape), one.floating) for one in present]
        others = Counter(one.shape for one in present if not one.floating)
        return (
            not self.named,
            self.named and bool(self.prefix),
            not fit.buffers,
            -self.agreeing,
            others != self.file.others,
            sequence != self.file.sequence,
            [tensor.shape for tensor in self.expected] != [tensor.shape for tensor in self.file.floating],
        )


def _sized(tensor: ArchitectureTensor, values: Values, architecture: Architecture) -> Shape:
    return tensor.sized(values.classes or architecture.classes or 1, values.channels or architecture.channels or 1)


def _in_order(catalogue: Catalogue, file: _File, found: Iterable[_Candidate]) -> tuple[ArchitectureMatch, ...]:
    """The matches of layouts with the file's shapes, the best tie first."""
    by_layout = {candidate.layout.id: candidate for candidate in found}
    asks_metadata = catalogue.facts.get("asks_metadata", ())
    rows = []
    for architecture in catalogue.of_layouts(by_layout):
        candidate = by_layout[architecture.layout]
        beside = _Comparison.of(file, candidate, architecture)
        lacking = () if not candidate.fit.lacking else _lacking(candidate, architecture)
        match = ArchitectureMatch(
            architecture,
            candidate.share,
            exact=True,
            named=beside.named,
            strict=beside.strict(architecture, asks_metadata),
            classes=candidate.fit.values.classes,
            channels=candidate.fit.values.channels,
            prefix=beside.prefix,
            head=beside.anywhere("classes"),
            stem=beside.anywhere("channels"),
            differences=lacking,
        )
        # Of those that nothing tells apart, the plainest name, as of near ones.
        rows.append((beside.standing(), len(architecture.name), architecture.id, match))
    return tuple(match for *_, match in sorted(rows, key=lambda row: row[:3]))


def _lacking(candidate: _Candidate, architecture: Architecture) -> tuple[TensorDifference, ...]:
    """The tensors of the head that the file lacks."""
    fit = candidate.fit
    return tuple(
        TensorDifference("", (), one.name, _sized(one, fit.values, architecture))
        for one in candidate.layout.tensors
        if one.name in fit.lacking and one.floating and (fit.buffers or not one.buffer)
    )


def _near_match(catalogue: Catalogue, file: _File, candidate: _Candidate) -> ArchitectureMatch:
    """The match of a layout with other shapes, for the architecture with the plainest name that has it."""
    architecture = _plainest(catalogue, [candidate.layout.id])[candidate.layout.id]
    beside = _Comparison.of(file, candidate, architecture)
    head, classes = beside.of_symbol("classes"), candidate.fit.values.classes
    replaced = without_head(candidate.layout, candidate.shapes, file.counts)
    if replaced is not None and replaced.extra and 2 * replaced.extra <= len(file.floating):
        other = _Comparison.of(file, candidate._replace(fit=replaced), architecture)
        new = other.replaced_head()
        if new and not (head and other.by_name):
            beside, head, classes = other, tuple(one.name for one in new), _outputs(new)
    stem = beside.of_symbol("channels")
    return ArchitectureMatch(
        architecture,
        candidate.share,
        exact=False,
        named=beside.named,
        strict=False,
        classes=classes if head else None,
        channels=candidate.fit.values.channels if stem else None,
        prefix=beside.prefix,
        head=head,
        stem=stem,
        differences=differences(file.floating, beside.expected, beside.pairs, named=beside.by_name),
    )


def _outputs(head: Sequence[Tensor]) -> int | None:
    """The outputs of the last matrix of a head."""
    return next((tensor.shape[0] for tensor in reversed(head) if len(tensor.shape) > 1), None)
