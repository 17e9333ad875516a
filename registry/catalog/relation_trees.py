"""Components of related models, and a spanning tree of highest correlations of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from registry.catalog.relating import relation, weighed
from registry.catalog.search_settings import passing
from registry.equivalence.relations import SketchedLayers, judged_all, matched
from registry.equivalence.sketches import SKETCH_VERSION, SMALLEST, folded
from registry.errors import UsageError
from registry.types import RelationEdge, RelationForest, RelationTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.equivalence.relations import Matched
    from registry.plots import TreePicture
    from registry.storage import Store
    from registry.storage.models.sketch_cache import Topology
    from registry.types import Filter, ModelSummary, Relation

__all__ = ["MOST", "forest", "picture_trees"]

MOST: Final = 10_000
"""Models of which trees are made at most."""
LEAST_R = 0.10  # of related models
FEW, HALF = 3, 0.5
"""Layers of equal shape, or the part of the weights in them, from which on models are compared."""
SAME_FIGURE = 1e-4
"""Relative difference of a figure of the spectra up to which units in another order are looked for."""
ROWS = 512  # models compared with all others of a topology at a time
HELD = 2_000_000  # pairs that are held before a spanning forest replaces them
CHECKED = 2_048  # pairs whose layers are compared one by one at a time


class _Group(NamedTuple):
    """Models of one topology: rows (n,) of the forest, sketches (n, L, m), and layers of one of them."""

    rows: NDArray[np.int64]
    values: NDArray[np.float16]
    topology: Topology
    layers: SketchedLayers


class _Pairs(NamedTuple):
    """Pairs that may be related: rows of the forest, places in their groups, r, and the groups."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    r: NDArray[np.float64]
    groups: NDArray[np.int64]


def forest(store: Store, where: Filter) -> RelationForest:
    """Trees of the models that match a filter.

    Pairs are those of topologies with three or more layers of equal shape: of n models of one topology O(n^2 L m), by
    matrix products, and one alignment for each two topologies.

    Raises
    ------
    UsageError
        More than 10,000 models with sketches match.
    """
    from registry.storage.models.sketch_reads import read_tail_figures
    from registry.storage.models.summaries import read_summaries

    with store.snapshot():
        cache = store.sketches(SKETCH_VERSION)
        wanted = passing(store, where)
        inside = np.ones(len(cache.ids), np.bool_) if wanted is None else np.isin(cache.ids, np.array(wanted, np.int64))
        chosen = inside & cache.drawn
        ids, codes = cache.ids[chosen], cache.codes[chosen]
        if len(ids) > MOST:
            raise UsageError(
                f"trees are made of at most {MOST:,} models, and {len(ids):,} match", "use filters, or archreg related"
            )
        groups = _groups(store, ids, codes, store.read(cache.topologies))
        figures = store.read(read_tail_figures, ids)
        models = {model.id: model for model in store.read(read_summaries, ids=ids.tolist())} if len(ids) else {}
        links = _Links(groups, len(ids))
        for a, b in _alike(groups, figures):
            told = _relations(store, [(models[int(ids[a])], models[int(ids[b])])])[0]
            if told.verdict == "permuted":
                links.join(a, b)
        index = store.read(cache.index, SMALLEST)
        for one, group in enumerate(groups):
            common = index.common(group.layers.shapes, group.layers.weights)
            near = (common.layers >= FEW) | ((common.layers > 0) & (common.share >= HALF))
            codes_near = set(common.codes[near].tolist())
            for other in range(one, len(groups)):
                if other == one or int(codes[groups[other].rows[0]]) in codes_near:
                    links.add(one, other)
        chosen_pairs = links.spanning()
        told_pairs = _relations(store, [(models[int(ids[a])], models[int(ids[b])]) for a, b in chosen_pairs])
        trees = _trees(
            [models[int(model)] for model in ids],
            [(a, b, told) for (a, b), told in zip(chosen_pairs, told_pairs, strict=True)],
        )
    return RelationForest(
        trees, len(ids), len(ids) - sum(len(tree.models) for tree in trees), int((inside & ~cache.drawn).sum())
    )


def picture_trees(store: Store, where: Filter) -> TreePicture:
    """The trees of the models that match a filter, as a picture shows them.

    Raises
    ------
    UsageError
        More than 400 models are in trees, or none is.
    """
    from registry.plots import MOST_LINES, TreePicture

    found = forest(store, where)
    lines = sum(len(tree.models) for tree in found.trees)
    if not lines:
        raise UsageError(f"none of {found.compared:,} models are related", "choose others by filters")
    if lines > MOST_LINES:
        raise UsageError(f"a figure shows at most {MOST_LINES} related models, not {lines:,}", "choose some by filters")
    names: list[str] = []
    depths: list[int] = []
    above: list[int | None] = []
    labels: list[str] = []
    for tree in found.trees:
        places: dict[str, int] = {}
        for model, edge in zip(tree.models, (None, *tree.edges), strict=True):
            places[model.name] = len(names)
            names.append(model.name)
            above.append(None if edge is None else places[edge.a])
            depths.append(0 if edge is None else depths[places[edge.a]] + 1)
            labels.append("" if edge is None else edge.relation.short)
    return TreePicture(tuple(names), tuple(depths), tuple(above), tuple(labels))


def _groups(
    store: Store, ids: NDArray[np.int64], codes: NDArray[np.int32], topologies: Mapping[int, Topology]
) -> list[_Group]:
    from registry.storage.models.sketch_reads import read_sketches_of

    found = []
    for code in np.unique(codes).tolist():
        topology = topologies.get(code)
        if topology is None:
            continue
        rows = np.flatnonzero(codes == code)
        size = len(topology.shapes), topology.buckets
        block = store.read(read_sketches_of, ids[rows].tolist(), SKETCH_VERSION, *size)
        at = np.searchsorted(ids, block.ids)
        may = (topology.shapes.prod(axis=1) >= SMALLEST) & (topology.shapes[:, 0] > 1)
        shapes = topology.shapes[may]
        layers = SketchedLayers(
            ("",) * len(shapes),
            shapes,
            np.zeros((len(shapes), topology.buckets), np.float32),
            int(topology.shapes.prod(axis=1).sum()),
        )
        if len(at):
            found.append(_Group(at, block.values, topology, layers))
    return found


def _alike(groups: Sequence[_Group], figures: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Rows of models of one topology that follow each other by a figure of the spectra, and have the same."""
    for group in groups:
        z = figures[group.rows]
        order = group.rows[np.argsort(z, kind="stable")]
        sorted_z = figures[order]
        same = np.diff(sorted_z) <= SAME_FIGURE * np.maximum(1.0, np.abs(sorted_z[1:]))
        yield from zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True)


def _relations(store: Store, pairs: Sequence[tuple[ModelSummary, ModelSummary]]) -> list[Relation]:
    """Relation of each pair, by the names of their layers."""
    found = []
    for start in range(0, len(pairs), ROWS):
        some = pairs[start : start + ROWS]
        models = {model.id: model for pair in some for model in pair}
        held = dict(zip(models, weighed(store, models.values()), strict=True))
        found += [relation(held[a.id], held[b.id]) for a, b in some]
    return found


class _Links:
    """Pairs that may be related, reduced to a forest of highest correlations whenever there are many."""

    def __init__(self, groups: Sequence[_Group], models: int) -> None:
        self._groups = groups
        self._joined: list[tuple[int, int]] = []
        self._models = models
        self._place = np.zeros(models, np.int64)
        self._group = np.zeros(models, np.int64)
        for at, group in enumerate(groups):
            self._place[group.rows], self._group[group.rows] = np.arange(len(group.rows)), at
        self._matched: dict[tuple[int, int], Matched] = {}
        self._held: list[NDArray[np.void]] = []
        self._count = 0

    def join(self, a: int, b: int) -> None:
        """Two models that belong together whatever their correlation."""
        self._joined.append((a, b))

    def add(self, one: int, other: int) -> None:
        """Pairs of the models of two groups whose r is that of related ones."""
        a, b = self._groups[one], self._groups[other]
        pairs = matched(a.layers, b.topology.shapes, b.topology.buckets)
        if not (len(pairs.mine) >= FEW or (len(pairs.mine) and pairs.share >= HALF)):
            return
        self._matched[one, other] = pairs
        mine, theirs = _own(a)[pairs.mine], pairs.theirs
        told = 1 / pairs.v
        root = np.sqrt(told / told.sum()).astype(np.float32)[:, None]
        y = (folded(b.values[:, theirs], pairs.buckets).astype(np.float32) * root).reshape(len(b.rows), -1)
        there = b.values[:, theirs].any(axis=2) * (told / told.sum())
        for start in range(0, len(a.rows), ROWS):
            some = a.values[start : start + ROWS, mine]
            x = (folded(some, pairs.buckets).astype(np.float32) * root).reshape(len(some), -1)
            with np.errstate(divide="ignore", invalid="ignore"):
                r = (x @ y.T) / (some.any(axis=2).astype(np.float64) @ there.T)
            if one == other:
                r[np.arange(len(r))[:, None] + start >= np.arange(len(b.rows))] = 0.0
            i, j = np.nonzero(r >= LEAST_R)
            self._keep(a.rows[start + i], b.rows[j], r[i, j])

    def _keep(self, a: NDArray[np.int64], b: NDArray[np.int64], r: NDArray[np.floating]) -> None:
        held = np.empty(len(a), _PAIR)
        held["a"], held["b"], held["r"] = a, b, r
        self._held.append(held)
        self._count += len(a)
        if self._count > HELD:
            self._held = [self._reduced()]
            self._count = len(self._held[0])

    def _reduced(self) -> NDArray[np.void]:
        """Of the pairs held those of a spanning forest of highest r, each of which is related: Kruskal's algorithm."""
        every = np.concatenate(self._held) if self._held else np.empty(0, _PAIR)
        every = every[np.lexsort((every["b"], every["a"], -every["r"]))]
        labels = _Labels(self._models)
        for a, b in self._joined:
            labels.join(a, b)
        kept = []
        while len(every):
            every = every[labels.of[every["a"]] != labels.of[every["b"]]]
            some, every = every[:CHECKED], every[CHECKED:]
            for pair in some[self._related(some)]:
                if labels.join(int(pair["a"]), int(pair["b"])):
                    kept.append(pair)
        return np.array(kept, _PAIR)

    def _related(self, pairs: NDArray[np.void]) -> NDArray[np.bool_]:
        """Which of the pairs are related, by all their layers."""
        found = np.zeros(len(pairs), np.bool_)
        groups = self._group[pairs["a"]] * len(self._groups) + self._group[pairs["b"]]
        for group in np.unique(groups).tolist():
            one, other = divmod(group, len(self._groups))
            matching = self._matched[one, other]
            a, b = self._groups[one], self._groups[other]
            its = np.flatnonzero(groups == group)
            left = pairs["a"][its]
            for model in np.unique(left).tolist():
                mine = its[left == model]
                own = a.layers._replace(values=a.values[self._place[model], _own(a)].astype(np.float32))
                has = own.values[matching.mine].any(axis=1)
                usable = matching._replace(
                    mine=matching.mine[has], theirs=matching.theirs[has], v=matching.v[has], sizes=matching.sizes[has]
                )
                found[mine] = judged_all(own, b.values[self._place[pairs["b"][mine]]], usable).related
        return found

    def spanning(self) -> list[tuple[int, int]]:
        """Pairs of a spanning forest, with those that were joined."""
        kept = self._reduced()
        return [*self._joined, *zip(kept["a"].tolist(), kept["b"].tolist(), strict=True)]


_PAIR = np.dtype([("a", np.int64), ("b", np.int64), ("r", np.float32)])


def _own(group: _Group) -> NDArray[np.intp]:
    """Positions of the layers that can have a sketch."""
    shapes = group.topology.shapes
    return np.flatnonzero((shapes.prod(axis=1) >= SMALLEST) & (shapes[:, 0] > 1))


class _Labels:
    """Components: ``of`` (n,) has equal numbers for members of one; the smaller takes the number of the larger."""

    def __init__(self, count: int) -> None:
        self.of = np.arange(count)
        self._members = [[each] for each in range(count)]

    def join(self, a: int, b: int) -> bool:
        """Join two components; False if they are one."""
        one, other = int(self.of[a]), int(self.of[b])
        if one == other:
            return False
        if len(self._members[one]) < len(self._members[other]):
            one, other = other, one
        self.of[self._members[other]] = one
        self._members[one] += self._members[other]
        self._members[other] = []
        return True


def _trees(models: Sequence[ModelSummary], edges: Sequence[tuple[int, int, Relation]]) -> tuple[RelationTree, ...]:
    """Trees from their edges, each walked from its oldest model, along the highest correlation first."""
    near: dict[int, list[tuple[int, Relation]]] = {}
    for a, b, told in edges:
        if told.verdict in ("identical", "permuted", "related"):
            near.setdefault(a, []).append((b, told))
            near.setdefault(b, []).append((a, told))
    seen: set[int] = set()
    found = []
    for root in sorted(near, key=lambda at: (models[at].created, models[at].id)):
        if root in seen:
            continue
        seen.add(root)
        walked, links, waiting = [root], [], [*_onwards(root, near, models)]
        while waiting:
            before, at, told = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            walked.append(at)
            links.append(RelationEdge(models[before].name, models[at].name, told))
            waiting += _onwards(at, near, models)
        found.append(RelationTree(tuple(models[at] for at in walked), tuple(links)))
    return tuple(sorted(found, key=lambda tree: -len(tree.models)))


def _onwards(
    at: int, near: dict[int, list[tuple[int, Relation]]], models: Sequence[ModelSummary]
) -> list[tuple[int, int, Relation]]:
    """Edges away from a model, the one to follow first at the end."""
    strength = {"identical": 2.0, "permuted": 1.5}
    onwards = [(at, to, told) for to, told in near[at]]
    onwards.sort(key=lambda edge: models[edge[1]].name, reverse=True)
    return sorted(onwards, key=lambda edge: strength.get(edge[2].verdict, edge[2].correlation or 0.0))
