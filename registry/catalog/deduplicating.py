"""Duplicates: models of several names or places, in another order of units, or of one start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from registry.sources.base import DEFERRED, location_of
from registry.types import Duplicate, DuplicateGroup, Duplicates, ModelRef, WeightsPlace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.storage import Store
    from registry.types import Filter, ModelSummary, RelationTree

__all__ = ["duplicates"]

Places = dict[str, WeightsPlace]
"""Places of a model by location."""


def duplicates(store: Store, where: Filter) -> Duplicates:
    """Groups of duplicates among the models that match a filter.

    Identical models are one stored model: O(n + items of the journal). Permuted and related ones are those of
    `relation_trees.forest`: O(m^2) for each topology of m models, by matrix products. Raises as it does.
    """
    from registry.catalog.relation_trees import forest
    from registry.storage.journal.ingested_places import read_ingested
    from registry.storage.models.summaries import read_summaries

    with store.snapshot():
        models = store.read(read_summaries, where)
        places = _places(store.read(read_summaries), store.read(read_ingested))
        found = forest(store, where)
    groups = [*_identical(models, places)]
    for tree in found.trees:
        groups += _permuted(tree, places)
    groups += [_related(tree, places) for tree in found.trees if _is_related(tree)]
    order = ("identical", "permuted", "related")
    groups.sort(key=lambda group: (order.index(group.kind), -group.freeable, -len(group.members)))
    return Duplicates(tuple(groups), len(models), found.unsketched)


def _places(models: Sequence[ModelSummary], ingested: Sequence[tuple[int, str, str]]) -> dict[int, Places]:
    """Where the weights of each model lie, by its id, as far as it was recorded.

    A file that was replaced holds what was read from it last: of the models at one location, the one of the last event.

    Parameters
    ----------
    models
        All stored models: each was first read at its location.
    ingested
        Of each finished item: id of its model, time of its run (ISO 8601, UTC), and its reference in the journal.
    """
    sizes = {model.id: model.bytes for model in models}
    events = [(model.created, model.location, model.id, model.bytes) for model in models if model.location]
    for model, time, reference in ingested:
        record = json.loads(reference)
        # A reference that was not resolved when it was planned does not tell where the weights lie.
        if model in sizes and record["source"] != DEFERRED:
            ref = ModelRef(record["source"], record["target"], record["name"])
            events.append((time, location_of(ref), model, record["bytes"] or sizes[model]))
    events.sort(key=lambda event: event[0])
    found: dict[int, Places] = {}
    for location, (model, size) in {location: (model, size) for _, location, model, size in events}.items():
        found.setdefault(model, {})[location] = WeightsPlace(location, size)
    return found


def _duplicate(model: ModelSummary, places: Mapping[int, Places], correlation: float | None = None) -> Duplicate:
    known = places.get(model.id, {})
    return Duplicate(model, tuple(known[location] for location in sorted(known)), correlation)


def _on_disk(found: Duplicate) -> list[int]:
    """Bytes of each place that is a file or folder here, and no reference."""
    return [place.bytes for place in found.places if Path(place.location).is_absolute()]


def _identical(models: Sequence[ModelSummary], places: Mapping[int, Places]) -> list[DuplicateGroup]:
    """One group for each model of several names or places. What was not read is no known content."""
    groups = []
    for model in models:
        found = _duplicate(model, places)
        if model.weights_read and (len(model.names) > 1 or len(found.places) > 1):
            sizes = _on_disk(found)
            groups.append(DuplicateGroup("identical", (found,), sum(sizes) - max(sizes, default=0)))
    return groups


def _permuted(tree: RelationTree, places: Mapping[int, Places]) -> list[DuplicateGroup]:
    """One group for each set of models that are connected by permuted weights. Of each model one place counts."""
    of = {model.name: model for model in tree.models}
    sets: dict[str, list[str]] = {name: [name] for name in of}
    for edge in tree.edges:
        if edge.relation.verdict == "permuted" and sets[edge.a] is not sets[edge.b]:
            joined = sets[edge.a] + sets[edge.b]
            sets.update(dict.fromkeys(joined, joined))
    groups = []
    for names in {id(each): each for each in sets.values() if len(each) > 1}.values():
        members = tuple(_duplicate(of[name], places) for name in sorted(names))
        sizes = [max(some) for some in map(_on_disk, members) if some]
        groups.append(DuplicateGroup("permuted", members, sum(sizes) - max(sizes, default=0)))
    return groups


def _is_related(tree: RelationTree) -> bool:
    return any(edge.relation.verdict == "related" for edge in tree.edges)


def _related(tree: RelationTree, places: Mapping[int, Places]) -> DuplicateGroup:
    near = [None, *(edge.relation.correlation for edge in tree.edges)]
    return DuplicateGroup(
        "related", tuple(_duplicate(model, places, r) for model, r in zip(tree.models, near, strict=True))
    )
