"""The nearest stored models, and those that are equivalent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import number, whole
from registry.catalog.search_settings import Candidates, candidates, judged, passing, summaries_of, terms
from registry.catalog.subjects import resolve, stored
from registry.equivalence import nearest, search
from registry.errors import UsageError
from registry.types import Neighbour, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.catalog.search_settings import Terms
    from registry.catalog.subjects import Asked, Query
    from registry.storage import Store
    from registry.types import Filter, FingerprintSpec, ModelSummary

    Found = tuple[NDArray[np.int64], NDArray[np.float64]]

__all__ = ["Gallery", "Wanted", "gallery_of", "look_up"]

DEFAULT_K = 10
INDEXED_K = 200  # neighbours that an index is asked for at most; more are searched for exactly
VISIT = 4  # what a step through an index costs, in vectors read and compared


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which neighbours: ``k`` at most, within ``radius``, or both; ``k`` is 10 where neither is given.

    ``equivalent``: of those only what is equivalent to the query; ``exact``: no index is used, even if one is there.
    Raises ``UsageError`` for a ``k`` below one, or a radius that is negative or no number.
    """

    k: int | None = None
    radius: float | None = None
    equivalent: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if self.k is not None:
            whole(self.k, "k", 1)
        if self.radius is not None and not 0.0 <= number(self.radius, "radius") < float("inf"):
            raise UsageError(f"radius must be a distance, zero or larger, not {self.radius}")
        if self.k is None and self.radius is None:
            object.__setattr__(self, "k", DEFAULT_K)


def look_up(
    store: Store,
    reference: Asked,
    spec: FingerprintSpec,
    distance: str | None,
    tolerance: float | None,
    where: Filter,
    wanted: Wanted,
) -> Search:
    """The nearest stored models but the one asked about; O(n d), or by an index where one is current."""
    from registry.storage.models.model_queries import require_models

    with store.snapshot():  # of a stored model all is asked at once; weights are read outside of any transaction
        by = terms(store, spec, distance, tolerance)
        query = stored(store, reference, spec)
        if query is not None:
            return _found(store, query, by, where, wanted, query.id)
    store.read(require_models)
    query = resolve(store, reference, spec)
    with store.snapshot():
        return _found(store, query, by, where, wanted, query.vector)


def _found(
    store: Store, query: Query, by: Terms, where: Filter, wanted: Wanted, asked: NDArray[np.float32] | int
) -> Search:
    """``asked``: the id of a query that this snapshot has read, so that an index has the very vector; else its own."""
    from registry.storage.models.model_queries import unknown_count

    ids = passing(store, where)
    unknown = 0 if ids is None else store.read(unknown_count, where, query.id)
    found, note = (None, "") if wanted.exact else _indexed(store, query, by, ids, wanted, asked)
    if found is None:
        gallery = _gallery(store, query, by, ids)
        found = _answer(gallery, gallery.nearest(wanted.k, wanted.radius, equivalent=wanted.equivalent), wanted)
    return replace(found, unknown=unknown, note=note) if unknown or note else found


def _answer(gallery: Gallery, found: Found, wanted: Wanted, *, indexed: bool = False) -> Search:
    from registry.storage.models.summaries import read_summaries

    by, query = gallery.by, gallery.query
    ids = found[0].tolist()
    told = {model.id: model for model in gallery.store.read(read_summaries, ids=[*ids, query.id])}
    return Search(
        model=told.get(query.id) or query.model(),
        spec=by.spec,
        distance=by.distance.name,
        tolerance=by.tolerance,
        rate=by.rate,
        searched=gallery.searched,
        neighbours=gallery.judged([told[model] for model in ids], found[1]),
        calibration=by.calibration,
        radius=wanted.radius,
        indexed=indexed,
    )


def _indexed(
    store: Store, query: Query, by: Terms, ids: list[int] | None, wanted: Wanted, asked: NDArray[np.float32] | int
) -> tuple[Search | None, str]:
    """What an index finds, ranked by exact distances; None where the exact search is needed, or cheaper; and why."""
    from registry.storage.index.pgvector_index import find_near, index_lacks
    from registry.storage.models.vectors import count_vectors

    index = store.index(by.spec, by.distance.name)
    if index is None:
        return None, ""
    if index.opened.problem:
        return None, f"{index.opened.problem}, so all were searched; {index.opened.remedy}"
    k, count = wanted.k, index.held
    if k is None or k > INDEXED_K:
        return None, ""
    if ids is not None and VISIT * (k + 1) * count > len(ids) ** 2:
        return None, ""  # (k + 1) count / len(ids) steps until enough pass, against reading those that do
    kind = query.kind if wanted.equivalent else None
    own = bool(query.id) and (ids is None or query.id in ids)
    asked = asked if own else query.vector
    near, vectors = store.read(find_near, index, asked, k + 1, ids=ids, kind=kind)
    searched = count if ids is None else store.read(count_vectors, index.state.id, ids)
    short = len(near) < min(k + 1, searched)
    # At no cost where what was found can be all. Of what passes a filter the scan may not have come to enough.
    gone = isinstance(asked, int) and asked not in near and store.read(index_lacks, index, asked)
    if gone or (short and not (len(near) and (ids or kind)) and store.read(index_lacks, index)):
        return None, f"the index lacks some of the vectors, so all were searched; {index.opened.remedy}"
    by = by.among(searched - own)
    radius = wanted.radius
    if wanted.equivalent:
        radius = by.limit if radius is None else min(radius, by.limit)
    gallery = Gallery(store, query, by, Candidates(near, vectors, lambda: np.empty(0)), searched - own)
    found = gallery.nearest(k, radius)
    if short and len(found[0]) == np.count_nonzero(near != query.id):
        return None, ""  # the scan gave up before enough passed, or was past the radius: no filter may cost answers
    return _answer(gallery, found, wanted, indexed=True), ""


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """The stored models that pass the filter, the query itself left out, and their distances from it.

    ``searched``: how many they are.
    """

    store: Store
    query: Query
    by: Terms
    among: Candidates
    searched: int

    def nearest(self, k: int | None, radius: float | None, *, equivalent: bool = False) -> Found:
        """Ids and distances of the ``k`` nearest within ``radius``, nearest first; ``equivalent``: of those only."""
        rows = self.among.rows
        if equivalent:
            radius = self.by.limit if radius is None else min(radius, self.by.limit)
            alike = self._alike()
            rows = np.flatnonzero(alike) if rows is None else rows[alike[rows]]
        found, distances = search(
            self.query.vector,
            self.among.vectors,
            self.by.distance,
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
        """Which rows are of the query's tail class and training class."""
        from registry.storage.models.vectors import read_classes

        if self.among.remembered:
            return self.store.of_kind(self.by.spec.hash, self.query.kind)
        kinds = self.store.read(read_classes, self.among.ids.tolist())
        return np.array([kinds.get(model, ("", "")) == self.query.kind for model in self.among.ids.tolist()], np.bool_)

    def equivalent(self) -> Found:
        """Those within the tolerance that share both classes with the query, nearest first."""
        return self.nearest(None, None, equivalent=True)

    def neighbours(self, ids: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> tuple[Neighbour, ...]:
        """The ``k`` nearest of these, each with its verdict."""
        chosen = nearest(distances, ids, k)
        return self.judged(summaries_of(self.store, ids[chosen].tolist()), distances[chosen])

    def judged(self, models: Sequence[ModelSummary], distances: NDArray[np.float64]) -> tuple[Neighbour, ...]:
        """Models at their distances, each with its verdict."""
        return tuple(map(Neighbour, models, judged(self.query, models, distances, self.by, self.searched)))


def gallery_of(store: Store, query: Query, by: Terms, where: Filter) -> Gallery:
    """The gallery of a question, its terms for as many models as it holds; its vectors are good until the next one."""
    return _gallery(store, query, by, passing(store, where))


def _gallery(store: Store, query: Query, by: Terms, ids: list[int] | None) -> Gallery:
    found = candidates(store, by.spec, ids)
    there = found.ids if found.rows is None else found.ids[found.rows]
    searched = len(there) - int((there == query.id).sum())
    return Gallery(store, query, by.among(searched), found, searched)
