"""Smaller models that can stand in for one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.catalog.arguments import whole
from registry.catalog.bounds import asked, below, smaller
from registry.catalog.constraint_report import removals
from registry.catalog.searching import gallery_of
from registry.equivalence import direction
from registry.storage.models.vectors import read_spectra
from registry.types import Candidate, Compression, MetricChange

if TYPE_CHECKING:
    from registry.catalog.search_settings import Terms
    from registry.catalog.subjects import Query
    from registry.storage import Store
    from registry.types import Filter, Metric, ModelSummary, Neighbour

__all__ = ["compress"]


def compress(
    store: Store, query: Query, by: Terms, where: Filter, k: int, *, max_ratio: float | None, explain: bool
) -> Compression:
    """Smaller equivalents, the best first; where there is none, the nearest of the smaller ones, nearest first; O(n d).

    Smaller in what ``where`` and ``max_ratio`` bound; in parameters by default, and where gigaflops alone are bounded
    and the model's own are not known. Best is the smallest: in gigaflops or bytes where those alone are bounded, else
    in parameters; of equal size, the nearest.
    """
    whole(k, "k", 1)
    where = asked(query.model(), where, max_ratio)
    gallery = gallery_of(store, query, by, smaller(query.model(), where))
    ids, distances = gallery.equivalent()
    equivalent = bool(len(ids))
    if equivalent:
        every = gallery.neighbours(ids, distances, len(ids))
        found = tuple(sorted(every, key=lambda n: (*_size(n.model, where), n.distance, n.model.id)))[:k]
    else:
        found = gallery.neighbours(*gallery.nearest(k, None), k)
    candidates = (_candidate(query.model(), neighbour) for neighbour in found)
    if explain:
        candidates = (_explained(store, query, candidate) for candidate in candidates)
    return Compression(
        model=query.model(),
        spec=by.spec,
        distance=by.distance.name,
        tolerance=gallery.by.limit,
        rate=gallery.by.rate,
        searched=gallery.searched,
        equivalent=equivalent,
        candidates=tuple(candidates),
        calibration=by.calibration,
        removals=() if found else removals(store, by, where, than=query.model()),
        note=_note(query.model(), where),
    )


def _note(model: ModelSummary, where: Filter) -> str:
    """Where the model's own cost is not known, of which nothing can be said to be less: what smaller means instead."""
    if where.max_gflops is None or model.gflops is not None:
        return ""
    small = below(model, where)
    nouns = {"parameters": small.max_params, "bytes": small.max_bytes}
    told = " and ".join(noun for noun, bound in nouns.items() if bound is not None)
    return f"the gigaflops of {model.name} are not known: smaller is meant in {told}"


def _size(model: ModelSummary, bounds: Filter) -> tuple[float, ...]:
    if bounds.max_params is not None or (bounds.max_bytes is None and bounds.max_gflops is None):
        return (model.parameters,)
    # What is bounded is known of whatever passed.
    return (model.bytes,) if bounds.max_gflops is None else (model.gflops or 0.0, model.bytes)


def _candidate(original: ModelSummary, neighbour: Neighbour) -> Candidate:
    model = neighbour.model
    known = {(m.name, m.dataset, m.split): m for m in model.metrics}
    return Candidate(
        model=model,
        verdict=neighbour.verdict,
        params_saved=1.0 - model.parameters / original.parameters,
        bytes_saved=1.0 - model.bytes / original.bytes,
        gflops_saved=1.0 - model.gflops / original.gflops if original.gflops and model.gflops is not None else None,
        changes=tuple(
            _change(m, known[m.name, m.dataset, m.split])
            for m in original.metrics
            if (m.name, m.dataset, m.split) in known
        ),
    )


def _change(original: Metric, candidate: Metric) -> MetricChange:
    place = (original.name, original.dataset, original.split)
    return MetricChange(*place, original.value, candidate.value, direction(original, candidate))


def _explained(store: Store, query: Query, candidate: Candidate) -> Candidate:
    from registry.spectral import contrast

    ours, theirs = query.spectra(), store.read(read_spectra, candidate.model.id)
    return candidate if ours is None or theirs is None else replace(candidate, contrast=contrast(ours, theirs))
