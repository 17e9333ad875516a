"""Searches in the catalogue: the architectures nearest to a network by shapes alone, and smaller ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import whole
from registry.catalog.bounds import below, smaller, with_max_ratio
from registry.catalog.catalogue_rows import (
    architecture_summary,
    asks_for_weights,
    best_rows,
    bounded_metric,
    passing_rows,
    placed,
    read_rows,
    row_removals,
    summary_of,
)
from registry.catalog.search_settings import settings_for, verdicts_on
from registry.catalog.subjects import Query, names_a_source, shapes_query
from registry.equivalence import search
from registry.errors import AmbiguousError, SpecMismatchError, UnknownModelError, UsageError
from registry.spectral.specs import LAYERED, SHAPES, spec_named
from registry.spelling import near_spellings
from registry.types import Compression, Filter, Neighbour, Search

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from registry.architectures.catalogue_file import Catalogue
    from registry.catalog.catalogue_rows import Row
    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.searching import SearchLimits
    from registry.catalog.subjects import QueryInput
    from registry.types import Architecture, ModelSummary

__all__ = [
    "Likeness",
    "count_classes",
    "compress_to_architectures",
    "like_in_catalogue",
    "nearest_architectures",
    "query_of",
    "shapes_settings",
]

_OF_A_LAYER = 2  # tensors: a weight and a bias


@dataclass(frozen=True, slots=True)
class Likeness:
    """The layouts equivalent by shapes to a network, and their distances from it, among ``searched`` classes.

    ``settings``: with the tolerance for that many; ``model``: the network.
    """

    settings: SearchSettings
    model: ModelSummary
    distances: dict[int, float]
    searched: int


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """Classes of architectures that the fingerprint ``shapes`` and the number of parameters do not tell apart.

    ``vectors``: (n, d), of each class; ``members``: its architectures, by id, first those that a file is; ``rows``: of
    its first, those that pass. ``searched``: how many classes there are for the default numbers of classes and input
    channels; ``note``: how they were sized to those of a file.
    """

    vectors: NDArray[np.float32]
    members: list[list[Architecture]]
    rows: dict[int, Row]
    every: Sequence[Row]
    searched: int
    note: str

    def summary(self, at: int, where: Filter) -> ModelSummary:
        """A class as one model, of the first of its architectures; with weights where the filter chose among them."""
        first, *others = self.members[at]
        plain = architecture_summary(first, others)
        row = self.rows.get(first.id)
        if row is None or not asks_for_weights(where):
            return replace(plain, id=first.id)
        return replace(summary_of(row, bounded_metric(where)), id=first.id, names=plain.names)


def shapes_settings(fingerprint: str, distance: str | None, tolerance: float | None) -> SearchSettings:
    """Settings of a question to the catalogue: by ``shapes``, also where ``layered``, the default, is asked for.

    Raises ``UsageError`` for another fingerprint.
    """
    if spec_named(fingerprint) not in (LAYERED, SHAPES):
        raise UsageError("the catalogue knows shapes and no weights", f"use the fingerprint {SHAPES.name}")
    return settings_for(None, SHAPES, distance, tolerance)


def query_of(catalogue: Catalogue, reference: QueryInput) -> Query:
    """A network to compare by shapes: an architecture's name, a reference, a path, a live module or a state dict.

    Its ``id`` is that of the architecture, 0 for others. Of a file the header is read, where that tells the shapes.

    Raises
    ------
    AmbiguousError
        Several architectures of different shapes have that name.
    UnknownModelError
        Neither an architecture nor a reference to anything.
    SpecMismatchError
        An architecture without layer matrices.
    SourceError
        A reference or a path that cannot be read.
    """
    found = catalogue.named(reference) if isinstance(reference, str) else ()
    if not found:
        if isinstance(reference, str) and not names_a_source(reference):
            known = (name for each in catalogue.architectures() for name in (each.name, each.label))
            near = near_spellings(reference, known)
            raise UnknownModelError(
                f"{reference!r} is neither an architecture of the catalogue nor a file",
                f"similar: {', '.join(near)}" if near else "archreg list --db catalogue: shows them",
            )
        return shapes_query(reference)
    ids, vectors = catalogue.vectors()
    places = {each.id: np.flatnonzero(ids == each.layout) for each in found}
    if any(not len(at) for at in places.values()):
        raise SpecMismatchError(f"{reference} has no layer matrix to be compared by", "name another architecture")
    own = np.array([vectors[at[0]] for at in places.values()])
    if (own != own[0]).any() or len({each.parameters for each in found}) > 1:
        raise AmbiguousError(
            f"{reference!r} is {' and '.join(each.label for each in found)}, which differ", f"name {found[0].label}"
        )
    model = replace(architecture_summary(found[0], _equal_to(catalogue, found[0], ids, vectors)), id=found[0].id)
    return Query(found[0].id, "", own[0], lambda: model, lambda: None, lambda: None, lambda: None)


def _equal_to(
    catalogue: Catalogue, one: Architecture, ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> list[Architecture]:
    """The other architectures that the fingerprint and the number of parameters do not tell from one."""
    same = set(ids[(vectors == vectors[ids == one.layout]).all(axis=1)].tolist())
    return [
        other
        for other in catalogue.architectures()
        if other.layout in same and other.parameters == one.parameters and other.id != one.id
    ]


def nearest_architectures(
    catalogue: Catalogue, query: Query, settings: SearchSettings, where: Filter, limits: SearchLimits
) -> Search:
    """Find the classes of architectures nearest to a network by shapes; that of the query itself is left out."""
    where, classes = _classes(catalogue, query, settings, where)
    searched = classes.searched
    settings = settings.among(searched)
    radius = limits.radius
    if limits.equivalent:
        radius = settings.limit if radius is None else min(radius, settings.limit)
    at, distances = _nearest(classes, query, settings, limits.k, radius)
    return Search(
        model=query.model(),
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=settings.tolerance,
        rate=settings.rate,
        searched=searched,
        neighbours=_neighbours(classes, query, settings, where, at, distances),
        calibration=settings.calibration,
        radius=limits.radius,
        note=classes.note,
    )


def compress_to_architectures(
    catalogue: Catalogue, query: Query, settings: SearchSettings, where: Filter, k: int, *, max_ratio: float | None
) -> Compression:
    """Find smaller architectures that are equivalent by shapes, the smallest first; else the nearest smaller ones."""
    from registry.catalog.compressing import candidate_of, size_of

    whole(k, "k", 1)
    model = query.model()
    asked = with_max_ratio(model, placed(where, ()), max_ratio)
    where, classes = _classes(catalogue, query, settings, smaller(model, asked))
    searched = classes.searched
    settings = settings.among(searched)
    at, distances = _nearest(classes, query, settings, None, settings.limit)
    equivalent = bool(len(at))
    if not equivalent:
        at, distances = _nearest(classes, query, settings, k, None)
    found = _neighbours(classes, query, settings, where, at, distances)
    if equivalent:
        found = tuple(sorted(found, key=lambda n: (*size_of(n.model, where), n.distance, n.model.id)))[:k]
    return Compression(
        model=model,
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=settings.limit,
        rate=settings.rate,
        searched=searched,
        equivalent=equivalent,
        candidates=tuple(candidate_of(model, each, None) for each in found),
        calibration=settings.calibration,
        removals=() if found else row_removals(classes.every, asked, than=(model.name, below(model, asked))),
        note=" ".join(
            filter(None, (classes.note, _uncounted(classes.every, where), *_cut_off(catalogue, query, found[:k])))
        ),
    )


def _cut_off(catalogue: Catalogue, query: Query, found: Sequence[Neighbour]) -> Iterator[str]:
    """A sentence on each architecture with the shapes of all the network's tensors but those of one layer of it."""
    built = {one.id: one for one in catalogue.architectures()}
    if query.stored is not None:
        held = [(tensor.name, tuple(tensor.shape)) for tensor in query.stored.tensors]
    elif query.id in built:
        held = _tensors(catalogue, built[query.id])
    else:
        return
    for near in found:
        its = Counter(shape for _, shape in _tensors(catalogue, built[near.model.id]) if shape)
        rest = []
        for name, shape in held:
            if its[shape]:
                its[shape] -= 1
            elif shape:  # scalars are counters
                rest.append(name)
        if not its.total() and 0 < len(rest) <= _OF_A_LAYER:
            yield f"{near.model.name} has the shapes of all tensors of {query.model().name} but {' and '.join(rest)}."


def _tensors(catalogue: Catalogue, one: Architecture) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of an architecture's tensors for its default numbers."""
    return [(tensor.name, tensor.sized(one.classes, one.channels)) for tensor in catalogue.layout(one.layout).tensors]


def _uncounted(every: Sequence[Row], where: Filter) -> str:
    """A sentence on the architectures left out because their parameters are unknown; empty where there are none."""
    others = passing_rows(every, replace(where, min_params=None, max_params=None))
    names = sorted({row.architecture.label for row in others if row.parameters is None})
    if where.max_params is None or not names:
        return ""
    end = "is not known to the catalogue: it was" if len(names) == 1 else "is not known to the catalogue: they were"
    return f"The number of parameters of {', '.join(names)} {end} left out."


def count_classes(catalogue: Catalogue, query: Query, where: Filter) -> int:
    """How many classes of architectures match a filter, without that of the query."""
    return _classes(catalogue, query, None, where)[1].searched


def like_in_catalogue(catalogue: Catalogue, query: Query, settings: SearchSettings) -> Likeness:
    """Find the layouts equivalent to a network by shapes; with its own, if it is an architecture of the catalogue."""
    _, classes = _classes(catalogue, query, settings, Filter())
    settings = settings.among(classes.searched)
    at, distances = _nearest(classes, query, settings, None, settings.limit)
    found = {
        one.layout: distance
        for number, distance in zip(at.tolist(), distances.tolist(), strict=True)
        for one in classes.members[number]
    }
    if query.id:
        found |= dict.fromkeys((one.layout for one in catalogue.architectures() if one.id == query.id), 0.0)
    return Likeness(settings, query.model(), found, classes.searched)


def _classes(
    catalogue: Catalogue, query: Query, settings: SearchSettings | None, where: Filter
) -> tuple[Filter, _Classes]:
    """The classes of the architectures that match a filter, without that of the query; and the filter as it was read.

    Only with a filter are the weights and their metrics read. ``settings``: with them, the layouts nearest to a file
    are sized as the file is; without, all are as the libraries build them by default.
    """
    every: Sequence[Row] = ()
    rows: dict[int, Row] = {}
    if where != Filter():
        every = read_rows(catalogue)
        where = placed(where, every)
        for row in best_rows(passing_rows(every, where), bounded_metric(where)):
            rows.setdefault(row.architecture.id, row)
    ids, vectors = catalogue.vectors()
    at = {layout: number for number, layout in enumerate(ids.tolist())}
    own = set(query.model().names) if query.id else set()
    passing = [one for one in catalogue.architectures() if one.layout in at and (where == Filter() or one.id in rows)]
    asked = [one for one in passing if one.label not in own]
    members = _grouped(asked, vectors, at)
    searched, note = len(members), ""
    if settings is not None and query.stored is not None:
        from registry.catalog.layout_vectors import sized_vectors

        chosen = np.array(sorted({at[one.layout] for one in asked}), np.intp)
        sized = sized_vectors(catalogue, query.stored, query.vector, ids[chosen], vectors[chosen], settings.distance)
        if sized is not None:
            vectors, note = vectors.copy(), sized.note
            for layout, vector in sized.vectors.items():
                if layout in at:
                    vectors[at[layout]] = vector
            first = {known: number for number, known in enumerate(sized.recognised)}
            asked.sort(key=lambda one: (first.get(one.id, len(first)), one.id))
            members = _grouped(asked, vectors, at)
    kept = list(members.values())
    those = vectors[[at[each[0].layout] for each in kept]] if kept else vectors[:0]
    return where, _Classes(those, kept, rows, every, searched, note)


def _grouped(
    architectures: Sequence[Architecture], vectors: NDArray[np.float32], at: dict[int, int]
) -> dict[tuple[bytes, int], list[Architecture]]:
    """Architectures by vector and number of parameters, in their order. ``at``: the row of each layout's vector."""
    members: dict[tuple[bytes, int], list[Architecture]] = {}
    for one in architectures:
        members.setdefault((vectors[at[one.layout]].tobytes(), one.parameters), []).append(one)
    return members


def _nearest(
    classes: _Classes, query: Query, settings: SearchSettings, k: int | None, radius: float | None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    if not len(classes.members):
        return np.empty(0, np.intp), np.empty(0)
    ids = np.arange(len(classes.members))  # at equal distance the first, which the file is

    def squares() -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.square(classes.vectors, dtype=np.float64).sum(axis=1)
        return found

    return search(query.vector, classes.vectors, settings.distance, ids=ids, squares=squares, k=k, radius=radius)


def _neighbours(
    classes: _Classes,
    query: Query,
    settings: SearchSettings,
    where: Filter,
    at: NDArray[np.intp],
    distances: NDArray[np.float64],
) -> tuple[Neighbour, ...]:
    models = [classes.summary(number, where) for number in at.tolist()]
    return tuple(map(Neighbour, models, verdicts_on(query, models, distances, settings, classes.searched)))
