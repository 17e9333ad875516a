"""Smaller models that can stand in for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.searching import check_count, gallery_of
from registry.types import Candidate, Compression, MetricChange

if TYPE_CHECKING:
    from registry.catalog.queries import Query
    from registry.catalog.terms import Terms
    from registry.storage import Store
    from registry.types import Filter, ModelSummary, Neighbour

__all__ = ["compress"]


def compress(store: Store, query: Query, by: Terms, where: Filter, k: int) -> Compression:
    """Smaller equivalents, the smallest first; where there is none, the nearest of the smaller ones, nearest first.

    ``where`` says how small, and that is for the caller to set: larger models that pass it are candidates too.
    """
    check_count(k)
    gallery = gallery_of(store, query, by, where)
    ids, distances = gallery.equivalent()
    equivalent = bool(len(ids))
    if equivalent:
        every = gallery.neighbours(ids, distances, len(ids))
        found = tuple(sorted(every, key=lambda n: (n.model.parameters, n.distance, n.model.id)))[:k]
    else:
        found = gallery.neighbours(gallery.ids, gallery.distances, k)
    return Compression(
        model=query.model,
        spec=by.spec,
        metric=by.distance.name,
        accuracy=by.accuracy,
        searched=len(gallery.ids),
        equivalent=equivalent,
        candidates=tuple(_candidate(query.model, neighbour) for neighbour in found),
    )


def _candidate(original: ModelSummary, neighbour: Neighbour) -> Candidate:
    model = neighbour.model
    known = {(m.name, m.dataset, m.split): m.value for m in model.metrics}
    return Candidate(
        model=model,
        verdict=neighbour.verdict,
        params_saved=1.0 - model.parameters / original.parameters,
        bytes_saved=1.0 - model.bytes / original.bytes,
        changes=tuple(
            MetricChange(m.name, m.dataset, m.split, m.value, known[m.name, m.dataset, m.split])
            for m in original.metrics
            if (m.name, m.dataset, m.split) in known
        ),
    )
