"""Stored models whose weights correlate with those of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from registry.catalog.relating import relations_with, require_sketches
from registry.catalog.search_settings import passing
from registry.catalog.subjects import or_shapes, resolve
from registry.equivalence.relations import Matched, judged_all, judged_by_signs, matched
from registry.equivalence.sketches import SKETCH_VERSION, SMALLEST
from registry.errors import UsageError
from registry.spectral.specs import LAYERED
from registry.spelling import counted
from registry.types import Filter, Kin, Related, Relative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.catalog.subjects import Query
    from registry.equivalence.relations import SketchedLayers
    from registry.storage import Store
    from registry.storage.models.sketch_cache import SketchCache

__all__ = ["MOST_COMPARED", "Compared", "compared_with", "related", "with_kin"]

MOST_COMPARED: Final = 200_000
"""Models of which a question compares at most, those with most layers of equal shape first."""
MOST_TOPOLOGIES: Final = 256
"""Topologies of which a question compares models at most."""
MOST_EXACT: Final = 400
"""Models that are compared by all numbers of their sketches; where more could be, signs choose those."""
FEW, HALF = 3, 0.5
"""Layers of equal shape, or the part of the weights in them, from which on models are compared."""
SIGNS_R, SIGNS_RATIO = 0.05, 2.5
"""What signs tell at least of models that are worth comparing: half of the least r of related ones, half of their Z."""
MOST_KIN: Final = 10_000
"""Related models that a filter tells from others at most."""
MOST_DOUBTFUL, SIGNS_SURE = 100, 5.0
"""Models below this ratio that are compared exactly at most: with many, chance brings strangers there."""
SAME_FIGURE = 1e-4
"""Relative difference of a figure of the spectra up to which units in another order are looked for."""
MOST_PERMUTED = 10
"""Models whose spectra are compared for that."""
SPARE = 3
"""Models checked by the names of their layers beyond those shown: names can change the order."""
_REMEMBERED = 4_096


class Compared(NamedTuple):
    """Outcome of a comparison with all stored models that match: arrays of those compared exactly, best first.

    ``ids`` (n,), ``r`` (n,), ``related`` (n,) bool. The numbers are those of `Related`; ``permuted``: ids of models of
    equal spectra, which remain to be checked.
    """

    ids: NDArray[np.int64]
    r: NDArray[np.float64]
    related: NDArray[np.bool_]
    permuted: list[int]
    compared: int
    unlike: int
    unsketched: int
    cut: int
    unchecked: int


class _Group(NamedTuple):
    """Models (n,) of one topology to be compared, and how their layers belong to the query's."""

    code: int
    ids: NDArray[np.int64]
    pairs: Matched


def related(store: Store, query: Query, where: Filter, k: int, *, every: bool = False) -> Related:
    """The stored models related to a query, which is left out, the highest correlation first.

    O(n) for the filter, and for n models of topologies with common shapes n L m / 64 words of signs, from memory.

    Raises
    ------
    SpecMismatchError
        The query has no sketches.
    """
    from registry.storage.models.summaries import read_summaries

    mine = require_sketches(query)
    with store.snapshot():
        found = compared_with(store, query, mine, passing(store, where))
        chosen = np.flatnonzero(found.related)[: k + SPARE] if not every else np.arange(len(found.ids))[: k + SPARE]
        ids = list(dict.fromkeys([*found.permuted, *found.ids[chosen].tolist()]))
        told = {model.id: model for model in store.read(read_summaries, ids=ids)}
        models = [told[model] for model in ids]
        relatives = list(map(Relative, models, relations_with(store, query, models)))
    close = [each for each in relatives if each.relation.verdict in ("identical", "permuted", "related")]
    shown = relatives if every else close
    shown.sort(key=_rank)
    dropped = int(found.related[chosen].sum()) - sum(each.relation.verdict == "related" for each in close)
    return Related(
        query.model(),
        tuple(shown[:k]),
        found=int(found.related.sum()) - dropped + sum(each.relation.verdict == "permuted" for each in close),
        compared=found.compared,
        exactly=len(found.ids),
        unlike=found.unlike,
        unsketched=found.unsketched,
        cut=found.cut,
        unchecked=found.unchecked,
    )


def with_kin(store: Store, where: Filter) -> Filter:
    """The filter with the ids of the models related to those that it names.

    Raises
    ------
    SpecMismatchError
        One of them has no sketches.
    UsageError
        More models may be related to one than can be compared.
    """

    def told(kin: Kin | None) -> Kin | None:
        if kin is None or kin.ids is not None:
            return kin
        model = kin.model
        query = or_shapes(LAYERED, lambda spec: resolve(store, model, spec))
        return replace(kin, ids=_kin(store, query), version=SKETCH_VERSION)

    return replace(where, related_to=told(where.related_to), unrelated_to=told(where.unrelated_to))


def _kin(store: Store, query: Query) -> tuple[int, ...]:
    """Ids of all models that are related to a query, and its own."""
    from registry.storage.models.summaries import read_summaries

    mine = require_sketches(query)
    with store.snapshot():
        found = compared_with(store, query, mine, None, exact=MOST_KIN)
        if found.cut or found.unchecked:
            raise UsageError(
                f"{counted(found.cut + found.unchecked, 'model')} beyond those compared may be related to "
                f"{query.model().name}",
                "ask archreg related, with other filters",
            )
        told = {model.id: model for model in store.read(read_summaries, ids=found.permuted)}
        models = [told[model] for model in found.permuted]
        relations = relations_with(store, query, models)
        alike = [model.id for model, each in zip(models, relations, strict=True) if each.verdict == "permuted"]
    own = (query.id,) if query.id else ()
    return (*own, *found.ids[found.related].tolist(), *alike)


def _rank(relative: Relative) -> tuple[bool, float, str]:
    """Units in another order first, then by r."""
    found = relative.relation
    return found.verdict not in ("identical", "permuted"), -(found.correlation or 0.0), relative.model.name


def compared_with(
    store: Store, query: Query, mine: SketchedLayers, ids: Sequence[int] | None, exact: int | None = None
) -> Compared:
    """Compare a query with the stored models, among ``ids`` if given, by the order of their layers; in a snapshot.

    ``exact``: models that are compared by all numbers at most, `MOST_EXACT` by default.
    """
    from registry.storage.models.sketch_reads import read_packed, unpacked_block

    cache = store.sketches(SKETCH_VERSION)
    inside = cache.ids != query.id
    if ids is not None:
        inside &= np.isin(cache.ids, np.array(ids, np.int64))
    groups, unlike, cut = _groups(store, cache, mine, inside)
    compared = sum(len(group.ids) for group in groups)
    own = cache.coded.get(query.model().topology)
    unchecked, permuted = 0, _permuted(store, cache, query, groups, own, by_signs=compared > MOST_EXACT)
    if compared > MOST_EXACT:
        groups, unchecked = _promising(store, cache, mine, groups, exact or MOST_EXACT)
    every, r, close = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.bool_)]
    topologies = store.read(cache.topologies)
    packed = store.read(read_packed, [model for group in groups for model in group.ids.tolist()], SKETCH_VERSION)
    for group in groups:
        topology = topologies[group.code]
        block = unpacked_block(packed, group.ids.tolist(), len(topology.shapes), topology.buckets)
        told = judged_all(mine, block.values, group.pairs)
        every.append(block.ids)
        r.append(told.r)
        close.append(told.related)
    all_ids, all_r, all_close = np.concatenate(every), np.concatenate(r), np.concatenate(close)
    order = np.lexsort((all_ids, -all_r))
    known = set(all_ids[all_close].tolist())
    return Compared(
        all_ids[order],
        all_r[order],
        all_close[order],
        [model for model in permuted if model not in known],
        compared,
        unlike,
        int((inside & ~cache.drawn).sum()),
        cut,
        unchecked,
    )


def _groups(
    store: Store, cache: SketchCache, mine: SketchedLayers, inside: NDArray[np.bool_]
) -> tuple[list[_Group], int, int]:
    """Models by topology that have enough layers of equal shape; how many have not, and how many were too many."""
    topologies, index = store.read(cache.topologies), store.read(cache.index, SMALLEST)
    common = index.common(mine.shapes, mine.weights)
    enough = (common.layers >= FEW) | ((common.layers > 0) & (common.share >= HALF))
    order = np.flatnonzero(enough)[np.argsort(-common.share[enough], kind="stable")]
    places = cache.order if inside.all() else cache.order[inside[cache.order]]
    codes = cache.codes[places]
    starts = np.searchsorted(codes, common.codes[order])
    ends = np.searchsorted(codes, common.codes[order], side="right")
    found: list[_Group] = []
    compared = cut = 0
    for code, start, end in zip(common.codes[order].tolist(), starts.tolist(), ends.tolist(), strict=True):
        if start == end:
            continue
        if found and (len(found) >= MOST_TOPOLOGIES or compared + end - start > MOST_COMPARED):
            cut += end - start
            continue
        topology = topologies[code]
        key = mine.shapes.tobytes(), mine.values.shape[1], code
        pairs = index.remembered.get(key)
        if pairs is None:
            pairs = matched(mine, topology.shapes, topology.buckets)
            if len(index.remembered) >= _REMEMBERED:
                index.remembered.clear()
            index.remembered[key] = pairs
        if len(pairs.mine) >= FEW or (len(pairs.mine) and pairs.share >= HALF):
            found.append(_Group(code, cache.ids[places[start:end]], pairs))
            compared += end - start
    return found, len(places) - compared - cut, cut


def _promising(
    store: Store, cache: SketchCache, mine: SketchedLayers, groups: Sequence[_Group], most: int
) -> tuple[list[_Group], int]:
    """Of the models those that signs do not rule out, at most ``most``; and how many more there surely were."""
    scores, places, members = [], [], []
    for at, group in enumerate(groups):
        block = store.read(cache.signs, group.code, group.pairs.buckets)
        r = judged_by_signs(mine, block.bits, group.pairs)
        ratio = r * np.sqrt((1 / group.pairs.v).sum())
        may = np.flatnonzero((r >= SIGNS_R) & (ratio >= SIGNS_RATIO))
        may = may[_among(block.ids[may], group.ids)]
        scores.append(ratio[may])
        members.append(block.ids[may])
        places.append(np.full(len(may), at))
    score, member, place = np.concatenate(scores), np.concatenate(members), np.concatenate(places)
    best = np.argsort(-score, kind="stable")
    sure = int(np.count_nonzero(score >= SIGNS_SURE))
    best = best[: min(most, max(sure, MOST_DOUBTFUL))]
    kept = [
        group._replace(ids=np.sort(member[best][place[best] == at]))
        for at, group in enumerate(groups)
        if (place[best] == at).any()
    ]
    return kept, max(0, sure - len(best))


def _among(ids: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some ids are among others, which are ascending and not none."""
    at = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    return np.asarray(ascending[at] == ids)


def _permuted(
    store: Store, cache: SketchCache, query: Query, groups: Sequence[_Group], own: int | None, *, by_signs: bool
) -> list[int]:
    """Models of the query's topology with an equal figure of the spectra, the nearest first."""
    from registry.storage.models.sketch_reads import read_tail_figures

    group = next((group for group in groups if group.code == own), None)
    figures = None if group is None else query.conjugacy()
    if group is None or figures is None:
        return []
    if by_signs:
        block = store.read(cache.signs, group.code, group.pairs.buckets)
        mask = _among(block.ids, group.ids)
        ids, z = block.ids[mask], block.figures[mask]
    else:
        ids, z = group.ids, store.read(read_tail_figures, group.ids)
    away = np.abs(z - figures.z)
    near = np.flatnonzero(away <= SAME_FIGURE * max(1.0, abs(figures.z)))
    return [int(model) for model in ids[near[np.argsort(away[near], kind="stable")][:MOST_PERMUTED]]]
