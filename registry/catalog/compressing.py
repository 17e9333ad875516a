"""Compression: smaller models that are equivalent to a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.catalog.arguments import whole
from registry.catalog.bounds import below, smaller, with_max_ratio
from registry.catalog.constraint_report import removals
from registry.catalog.expecting import expected_changes
from registry.catalog.search_settings import older_among, passing
from registry.catalog.searching import gallery_of, with_relations
from registry.equivalence import changes
from registry.storage.models.vectors import read_spectra
from registry.types import Candidate, Compression

if TYPE_CHECKING:
    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query
    from registry.storage import Store
    from registry.types import ExpectedChange, Filter, ModelSummary, Neighbour

__all__ = ["candidate_of", "compress", "size_of"]


def compress(
    store: Store,
    query: Query,
    settings: SearchSettings,
    where: Filter,
    k: int,
    *,
    max_ratio: float | None,
    explain: bool,
    relations: bool = False,
) -> Compression:
    """Find smaller equivalent models, the best first; if there are none, the nearest smaller models. O(n d).

    Smaller refers to the sizes that ``where`` and ``max_ratio`` bound; by default to parameters, also if only gigaflops
    are bounded and those of the model are unknown. The best is the smallest: by gigaflops or bytes if only those are
    bounded, else by parameters; at equal size, the nearest.
    """
    whole(k, "k", 1)
    where = with_max_ratio(query.model(), where, max_ratio)
    gallery = gallery_of(store, query, settings, smaller(query.model(), where))
    ids, distances = gallery.equivalent()
    equivalent = bool(len(ids))
    if equivalent:
        every = gallery.neighbours(ids, distances, len(ids))
        found = tuple(sorted(every, key=lambda n: (*size_of(n.model, where), n.distance, n.model.id)))[:k]
    else:
        found = gallery.neighbours(*gallery.nearest(k, None), k)
    if relations:
        found = with_relations(store, query, found)
    expected = expected_changes(store, settings, query.model(), {near.model: near.distance for near in found})
    candidates = (candidate_of(query.model(), near, expected.get(near.model.id)) for near in found)
    if explain:
        candidates = (_explained(store, query, candidate) for candidate in candidates)
    return Compression(
        model=query.model(),
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=gallery.settings.limit,
        rate=gallery.settings.rate,
        searched=gallery.searched,
        equivalent=equivalent,
        candidates=tuple(candidates),
        calibration=settings.calibration,
        removals=() if found else removals(store, settings, where, than=query.model()),
        note=_note(query.model(), where),
        older=older_among(store, settings.spec, passing(store, where)),
        assume_trained=settings.assume_trained,
    )


def _note(model: ModelSummary, where: Filter) -> str:
    """A sentence that says which size is compared if gigaflops are bounded and those of the model are unknown."""
    if where.max_gflops is None or model.gflops is not None:
        return ""
    small = below(model, where)
    nouns = {"parameters": small.max_params, "bytes": small.max_bytes}
    told = " and ".join(noun for noun, bound in nouns.items() if bound is not None)
    return f"The gigaflops of {model.name} are unknown: smaller refers to {told}."


def size_of(model: ModelSummary, bounds: Filter) -> tuple[float, ...]:
    """What makes a stand-in smaller, under bounds: parameters, or bytes or gigaflops if only these are bounded."""
    if bounds.max_params is not None or (bounds.max_bytes is None and bounds.max_gflops is None):
        return (model.parameters,)
    # A model that passed a bound has a known value.
    return (model.bytes,) if bounds.max_gflops is None else (model.gflops or 0.0, model.bytes)


def candidate_of(original: ModelSummary, neighbour: Neighbour, expected: ExpectedChange | None) -> Candidate:
    """A smaller neighbour of a model, with what it saves and which metrics are known to change."""
    model = neighbour.model
    return Candidate(
        model=model,
        verdict=neighbour.verdict,
        relation=neighbour.relation,
        params_saved=1.0 - model.parameters / original.parameters,
        bytes_saved=1.0 - model.bytes / original.bytes,
        gflops_saved=1.0 - model.gflops / original.gflops if original.gflops and model.gflops is not None else None,
        changes=changes(original.metrics, model.metrics),
        expected_change=expected,
    )


def _explained(store: Store, query: Query, candidate: Candidate) -> Candidate:
    from registry.spectral import contrast

    ours, theirs = query.spectra(), store.read(read_spectra, candidate.model.id)
    return candidate if ours is None or theirs is None else replace(candidate, contrast=contrast(ours, theirs))
