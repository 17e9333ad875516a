"""The nearest stored models, and those that are equivalent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.catalog.terms import judged, summaries_of, vectors_of
from registry.equivalence import nearest
from registry.errors import UsageError
from registry.types import Neighbour, Search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.queries import Query
    from registry.catalog.terms import Terms
    from registry.storage import Store
    from registry.types import Filter

__all__ = ["Gallery", "check_count", "gallery_of", "search_for"]


def search_for(store: Store, query: Query, by: Terms, where: Filter, k: int, *, equivalent: bool) -> Search:
    """The ``k`` nearest stored models but the one asked about; O(n d)."""
    check_count(k)
    gallery = gallery_of(store, query, by, where)
    ids, distances = gallery.equivalent() if equivalent else (gallery.ids, gallery.distances)
    return Search(
        spec=by.spec,
        metric=by.distance.name,
        accuracy=gallery.by.accuracy,
        rate=gallery.by.rate,
        searched=len(gallery.ids),
        neighbours=gallery.neighbours(ids, distances, k),
        calibration=by.calibration,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Distances from a query to all stored models that pass the filter, the query itself left out."""

    store: Store
    query: Query
    by: Terms
    ids: NDArray[np.int64]
    distances: NDArray[np.float64]

    def equivalent(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those within the accuracy that share both classes with the query."""
        within = self.distances <= self.by.accuracy
        ids, distances = self.ids[within], self.distances[within]
        kinds = self.store.classes(ids.tolist())
        same = [row for row, model in enumerate(ids.tolist()) if kinds.get(model) == self.query.kind]
        return ids[same], distances[same]

    def neighbours(self, ids: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> tuple[Neighbour, ...]:
        """The ``k`` nearest of these, each with its verdict."""
        chosen = nearest(distances, ids, k)
        models = summaries_of(self.store, ids[chosen].tolist())
        return tuple(
            Neighbour(model, judged(self.query, model, float(distances[row]), self.by, len(self.ids)))
            for row, model in zip(chosen.tolist(), models, strict=True)
        )


def gallery_of(store: Store, query: Query, by: Terms, where: Filter) -> Gallery:
    """The gallery of a question, its terms for as many models as it holds; O(n d)."""
    ids, vectors = vectors_of(store, by.spec, where)
    others = ids != query.model.id
    distances = by.distance.to_all(query.vector, vectors)[others]
    return Gallery(store, query, by.among(len(distances)), ids[others], distances)


def check_count(k: int) -> None:
    """``UsageError`` for fewer than one."""
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
