"""Searches: the nearest stored models, exact or by the index, and the equivalent ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import number, whole
from registry.catalog.search_settings import Candidates, candidates, passing, settings_for, summaries_of, verdicts_on
from registry.catalog.subjects import resolve, shapes_for, stored
from registry.equivalence import nearest, search
from registry.errors import UsageError, WeightsNotReadError
from registry.types import Neighbour, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query, QueryInput
    from registry.storage import Store
    from registry.types import Filter, FingerprintSpec, ModelSummary

    Found = tuple[NDArray[np.int64], NDArray[np.float64]]

__all__ = ["Gallery", "SearchLimits", "answered", "gallery_of", "look_up", "with_relations"]

DEFAULT_K = 10
INDEXED_K = 200  # largest k of an index search, whose candidates end at 1,000; larger k are searched exactly
MOST_RELATIONS = 1_000  # neighbours whose sketches are read: some megabytes
VISIT = 4  # cost of an index step, in vectors read and compared


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits of a search: at most ``k`` neighbours, within ``radius``, or both; ``k`` is 10 if neither is given.

    ``equivalent``: only models equivalent to the query; ``exact``: do not use an index; ``relations``: also tell the
    relation of each of the first 1,000 neighbours. Raises ``UsageError`` for ``k``
    below one, or a radius that is negative or not finite.
    """

    k: int | None = None
    radius: float | None = None
    equivalent: bool = False
    exact: bool = False
    relations: bool = False

    def __post_init__(self) -> None:
        if self.k is not None:
            whole(self.k, "k", 1)
        if self.radius is not None and not 0.0 <= number(self.radius, "radius") < float("inf"):
            raise UsageError(f"radius must be finite and not negative, not {self.radius}")
        if self.k is None and self.radius is None:
            object.__setattr__(self, "k", DEFAULT_K)


def look_up(
    store: Store,
    reference: QueryInput,
    spec: FingerprintSpec,
    distance: str | None,
    tolerance: float | None,
    where: Filter,
    limits: SearchLimits,
    *,
    assume_trained: bool = False,
) -> Search:
    """Find the stored models nearest to the query, which is left out; O(n d), or by a current index.

    By shapes alone, where the default fingerprint is asked for and the weights of the query were not read.
    """
    try:
        return _looked_up(store, reference, spec, distance, tolerance, where, limits, assume_trained)
    except WeightsNotReadError as error:
        spec = shapes_for(spec, error)
    return _looked_up(store, reference, spec, distance, tolerance, where, limits, assume_trained)


def _looked_up(
    store: Store,
    reference: QueryInput,
    spec: FingerprintSpec,
    distance: str | None,
    tolerance: float | None,
    where: Filter,
    limits: SearchLimits,
    assume_trained: bool,
) -> Search:
    from registry.storage.models.model_queries import require_models

    with store.snapshot():  # one snapshot for a stored model; weights are read outside of transactions
        settings = settings_for(store, spec, distance, tolerance, assume_trained=assume_trained)
        query = stored(store, reference, spec)
        if query is not None:
            return _found(store, query, settings, where, limits, query.id)
    store.read(require_models)
    query = resolve(store, reference, spec)
    with store.snapshot():
        return _found(store, query, settings, where, limits, query.vector)


def _found(
    store: Store,
    query: Query,
    settings: SearchSettings,
    where: Filter,
    limits: SearchLimits,
    probe: NDArray[np.float32] | int,
) -> Search:
    """Search for a query. ``probe``: its id, if this snapshot has read it; else its vector."""
    from registry.storage.models.model_queries import count_older, unknown_count

    ids = passing(store, where)
    unknown = 0 if ids is None else store.read(unknown_count, where, query.id)
    found, note = (None, "") if limits.exact else _indexed(store, query, settings, ids, limits, probe)
    if found is None:
        gallery = _gallery(store, query, settings, ids)
        found = answered(gallery, gallery.nearest(limits.k, limits.radius, equivalent=limits.equivalent), limits)
    older = store.read(count_older, settings.spec.matrix_rule, ids)
    return replace(found, unknown=unknown, note=note, older=older) if unknown or note or older else found


def answered(gallery: Gallery, found: Found, limits: SearchLimits, *, indexed: bool = False) -> Search:
    """The answer of ids and distances that were found in a gallery."""
    from registry.storage.models.summaries import read_summaries

    settings, query = gallery.settings, gallery.query
    ids = found[0].tolist()
    told = {model.id: model for model in gallery.store.read(read_summaries, ids=[*ids, query.id])}
    neighbours = gallery.with_verdicts([told[model] for model in ids], found[1])
    if limits.relations:
        neighbours = with_relations(gallery.store, query, neighbours)
    return Search(
        model=told.get(query.id) or query.model(),
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=settings.tolerance,
        rate=settings.rate,
        searched=gallery.searched,
        neighbours=neighbours,
        calibration=settings.calibration,
        radius=limits.radius,
        indexed=indexed,
        assume_trained=settings.assume_trained,
    )


def _indexed(
    store: Store,
    query: Query,
    settings: SearchSettings,
    ids: list[int] | None,
    limits: SearchLimits,
    probe: NDArray[np.float32] | int,
) -> tuple[Search | None, str]:
    """Index search, ranked by exact distances; None if the exact search is needed or cheaper, with the reason."""
    from registry.storage.index.pgvector_index import find_near, index_lacks
    from registry.storage.models.vectors import count_vectors

    index = store.index(settings.spec, settings.distance.name)
    if index is None:
        return None, ""
    if index.opened.problem:
        return None, f"All models were searched: {index.opened.problem}; {index.opened.remedy}"
    k, count = limits.k, index.held
    if k is None or k > INDEXED_K:
        return None, ""
    if ids is not None and VISIT * (k + 1) * count > len(ids) ** 2:
        return None, ""  # about (k + 1) count / len(ids) index steps, against reading the models that match
    trainings = settings.alike(query.training) if limits.equivalent and not settings.by_shapes else None
    if trainings == ():
        return None, ""
    own = bool(query.id) and (ids is None or query.id in ids)
    probe = probe if own else query.vector
    near, vectors = store.read(find_near, index, probe, k + 1, ids=ids, trainings=trainings)
    searched = count if ids is None else store.read(count_vectors, index.state.id, ids)
    short = len(near) < min(k + 1, searched)
    # Skipped if the result can be complete. With a filter, the scan may have stopped before enough models matched.
    gone = isinstance(probe, int) and probe not in near and store.read(index_lacks, index, probe)
    if gone or (short and not (len(near) and (ids or trainings)) and store.read(index_lacks, index)):
        return None, f"All models were searched: the index lacks some vectors; {index.opened.remedy}"
    settings = settings.among(searched - own)
    radius = limits.radius
    if limits.equivalent:
        radius = settings.limit if radius is None else min(radius, settings.limit)
    gallery = Gallery(store, query, settings, Candidates(near, vectors, lambda: np.empty(0)), searched - own)
    found = gallery.nearest(k, radius)
    if short and len(found[0]) == np.count_nonzero(near != query.id):
        return None, ""  # the scan stopped before enough models matched, or was past the radius
    return answered(gallery, found, limits, indexed=True), ""


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """The candidates of a query, and searches among them; the query itself is left out.

    ``searched``: number of candidates.
    """

    store: Store
    query: Query
    settings: SearchSettings
    among: Candidates
    searched: int

    def nearest(self, k: int | None, radius: float | None, *, equivalent: bool = False) -> Found:
        """Ids and distances of the ``k`` nearest within ``radius``, nearest first; ``equivalent``: those alone."""
        rows = self.among.rows
        if equivalent:
            radius = self.settings.limit if radius is None else min(radius, self.settings.limit)
            if not self.settings.by_shapes:
                alike = self._alike()
                rows = np.flatnonzero(alike) if rows is None else rows[alike[rows]]
        found, distances = search(
            self.query.vector,
            self.among.vectors,
            self.settings.distance,
            ids=self.among.ids,
            squares=self.among.squares,
            rows=rows,
            k=None if k is None else k + 1,
            radius=radius,
        )
        ids = self.among.ids[found]
        others = np.flatnonzero(ids != self.query.id)[:k]
        return ids[others], distances[others]

    def _alike(self) -> NDArray[np.bool_]:
        """Mask of the rows whose training class the query may be equivalent to; of none where it is undetermined."""
        from registry.storage.models.vectors import read_training_classes

        trainings = self.settings.alike(self.query.training)
        found = np.zeros(len(self.among.ids), np.bool_)
        if trainings and self.among.cached:
            for training in trainings:
                found |= self.store.of_training(self.settings.spec.hash, training)
        elif trainings:
            known = self.store.read(read_training_classes, self.among.ids.tolist())
            found[:] = [known.get(model, "") in trainings for model in self.among.ids.tolist()]
        return found

    def equivalent(self) -> Found:
        """Ids and distances of the equivalent models, nearest first."""
        return self.nearest(None, None, equivalent=True)

    def neighbours(self, ids: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> tuple[Neighbour, ...]:
        """The ``k`` nearest of these models with their verdicts."""
        chosen = nearest(distances, ids, k)
        return self.with_verdicts(summaries_of(self.store, ids[chosen].tolist()), distances[chosen])

    def with_verdicts(self, models: Sequence[ModelSummary], distances: NDArray[np.float64]) -> tuple[Neighbour, ...]:
        """The models at these distances with their verdicts."""
        return tuple(map(Neighbour, models, verdicts_on(self.query, models, distances, self.settings, self.searched)))


def with_relations(store: Store, query: Query, neighbours: tuple[Neighbour, ...]) -> tuple[Neighbour, ...]:
    """The neighbours, the first 1,000 of them with their relation to the query."""
    from registry.catalog.relating import relations_with

    first = neighbours[:MOST_RELATIONS]
    relations = relations_with(store, query, [neighbour.model for neighbour in first])
    told = (replace(neighbour, relation=each) for neighbour, each in zip(first, relations, strict=True))
    return (*told, *neighbours[MOST_RELATIONS:])


def gallery_of(store: Store, query: Query, settings: SearchSettings, where: Filter) -> Gallery:
    """The gallery of a query, with the settings for its number of models; valid until the next search."""
    return _gallery(store, query, settings, passing(store, where))


def _gallery(store: Store, query: Query, settings: SearchSettings, ids: list[int] | None) -> Gallery:
    found = candidates(store, settings.spec, ids)
    there = found.ids if found.rows is None else found.ids[found.rows]
    searched = len(there) - int((there == query.id).sum())
    return Gallery(store, query, settings.among(searched), found, searched)
