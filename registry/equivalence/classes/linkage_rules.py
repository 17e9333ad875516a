"""Linkage rules, which sort rows into groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.equivalence.classes.groups import Group, measured
from registry.equivalence.classes.pair_screen import Screen
from registry.equivalence.judging import comparable
from registry.errors import UsageError
from registry.extensions import LINKAGE_RULES as ROWS
from registry.extensions import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

    Rows = NDArray[np.intp]
    Vectors = NDArray[np.float32]

__all__ = ["EXACT_UP_TO", "MAX_COMPLETE", "RULES", "Rule", "rule_for", "sorted_into_groups"]

EXACT_UP_TO = 10_000
"""Largest number of models for which complete linkage is the default rule."""

# n (n - 1) / 2 float64 distances, and SciPy's working copy of them: 0.8 GB at 10,000 models, 3.2 GB at 20,000.
MAX_COMPLETE = 20_000

_BLOCK = 4_096  # rows that a cover compares with its representatives at a time

# Two members within half the tolerance of their representative are within the tolerance, except for rounding, which
# adds less than this fraction. It is subtracted from the half, so that the guarantee holds in floating point.
_LESS = 1e-12


def components(vectors: Vectors, distance: Distance, tolerance: float) -> NDArray[np.intp]:
    """Labels (n,) of the connected components of the graph of pairs within the tolerance, numbered by first row.

    O(n^2) pairs are screened; those not known to be connected are measured at O(d). Memory O(n).
    """
    count = len(vectors)
    labels: Rows = np.arange(count, dtype=np.intp)
    if count < 2:
        return labels

    def apart(left: Rows, right: Rows) -> NDArray[np.bool_]:
        different: NDArray[np.bool_] = labels[left] != labels[right]
        return different

    def narrowed(left: Rows, right: Rows) -> Iterator[tuple[Rows, Rows]]:
        # Once most rows are connected, most pairs belong to the largest component of a tile.
        known, counts = np.unique(labels[right], return_counts=True)
        most = known[counts.argmax()]
        inside = labels[left] == most
        yield left[~inside], right
        yield left[inside], right[labels[right] != most]

    waiting: list[tuple[Rows, Rows]] = []
    for pairs in Screen(vectors, distance).within(tolerance, apart, narrowed):
        waiting.append(pairs)
        # Joining costs O(n) for any number of pairs.
        if sum(len(left) for left, _ in waiting) >= count:
            labels = _joined(labels, waiting)
            waiting = []
    _, firsts, labels = np.unique(_joined(labels, waiting), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[labels]


def _joined(labels: Rows, pairs: list[tuple[Rows, Rows]]) -> Rows:
    """Labels of the components after joining those that the pairs connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return labels
    left, right = (labels[np.concatenate(side)] for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(len(labels), len(labels)))
    joined = np.asarray(connected_components(edges, directed=False)[1], dtype=np.intp)
    return joined[labels]


def single_linkage(vectors: Vectors, distance: Distance, tolerance: float) -> list[Rows]:
    """Rows grouped by single linkage, cut at the tolerance: the connected components.

    The ends of a chain may be far apart.
    """
    return _by_label(components(vectors, distance, tolerance))


def complete_linkage(vectors: Vectors, distance: Distance, tolerance: float) -> list[Rows]:
    """Rows grouped by complete linkage (Defays 1977), cut at the tolerance: all pairs in a group are within it.

    It is applied to each component of the graph of pairs within the tolerance, which gives the same result: complete
    linkage joins two clusters at the largest distance between them, so below the cut it never joins clusters with a
    pair beyond the tolerance, and all pairs of rows of two components are beyond it. The result in a component
    therefore depends on that component only. If distances tie, there are several complete linkages, and this includes
    the choice among them.

    O(n^2 d) time; O(m^2) memory for m rows in the largest component. Raises ``UsageError`` if m exceeds
    ``MAX_COMPLETE``.
    """
    groups: list[Rows] = []
    for rows in single_linkage(vectors, distance, tolerance):
        groups += [rows] if len(rows) <= 2 else [rows[part] for part in _linked(vectors[rows], distance, tolerance)]
    return groups


def _linked(vectors: Vectors, distance: Distance, tolerance: float) -> list[Rows]:
    from scipy.cluster.hierarchy import fcluster, linkage

    count = len(vectors)
    if count > MAX_COMPLETE:
        raise UsageError(
            f"complete linkage of {count} connected models is too large (limit {MAX_COMPLETE})",
            "use the rule cover, or a filter such as --family or --max-params",
        )
    apart = distance.between_all(vectors)
    # The same computation decides all comparisons; another order of summation could decide a tie differently.
    ends = np.cumsum(np.arange(count - 1, 0, -1))
    for start in range(0, len(apart), _BLOCK):
        close = start + np.flatnonzero(np.abs(apart[start : start + _BLOCK] - tolerance) <= 1e-9 * tolerance)
        left = np.searchsorted(ends, close, side="right")
        right = close - ends[left] + count
        apart[close] = distance.between(vectors[left], vectors[right])
    return _by_label(fcluster(linkage(apart, "complete"), tolerance, "distance"))


def greedy_cover(vectors: Vectors, distance: Distance, tolerance: float) -> list[Rows]:
    """Rows grouped by representative: a row joins the first representative within half the tolerance, or becomes one.

    All pairs in a group are within the tolerance by the triangle inequality. The group of a row depends only on earlier
    rows, so that appended rows move none. O(n r) pairs are screened for r representatives; O(n) memory.
    """
    count = len(vectors)
    if count < 2:
        return _by_label(np.zeros(count, np.intp))
    radius = 0.5 * tolerance * (1.0 - _LESS)
    screen = Screen(vectors, distance)
    chosen = np.full(count, count, np.intp)  # representative of a row; `count` if it has none yet
    representatives = np.empty(0, np.intp)

    def earlier(left: Rows, right: Rows) -> NDArray[np.bool_]:
        return right < chosen[left]

    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        for left, right in screen.between(block, representatives, radius, earlier):
            np.minimum.at(chosen, left, right)
        _cover_among(screen, block[chosen[block] == count], radius, chosen)
        representatives = np.concatenate([representatives, block[chosen[block] == block]])
    return _by_label(chosen)


def _cover_among(screen: Screen, rows: Rows, radius: float, chosen: Rows) -> None:
    """Cover rows that are not near an earlier representative."""
    found = [np.sort(np.stack(pairs), axis=0) for pairs in screen.among(rows, radius)]
    first, second = np.concatenate(found, axis=1) if found else np.empty((2, 0), np.intp)
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    starts, stops = np.searchsorted(first, rows, side="left"), np.searchsorted(first, rows, side="right")
    undecided = len(chosen)
    for row, start, stop in zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True):
        if chosen[row] == undecided:
            chosen[row] = row
            near = second[start:stop]
            chosen[near] = np.minimum(chosen[near], row)


def _by_label(labels: NDArray[np.integer]) -> list[Rows]:
    """Ascending rows of each label."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []


@dataclass(frozen=True, slots=True)
class Rule:
    """A linkage rule, its definition in words, and whether all pairs in a group are then within the tolerance.

    ``sort``: from vectors (n, d), the distance and the tolerance to the rows of each group.
    """

    name: str
    title: str
    sort: Callable[[Vectors, Distance, float], list[Rows]]
    keeps_within: bool = True


COMPLETE = Rule("complete", "complete linkage (all pairs within a class are within the tolerance)", complete_linkage)
COVER = Rule(
    "cover",
    "greedy cover (all pairs within a class are within the tolerance)",
    greedy_cover,
)
SINGLE = Rule(
    "single",
    "single linkage (each member is within the tolerance of at least one other)",
    single_linkage,
    keeps_within=False,
)

RULES: Table[Rule] = Table(ROWS)


def rule_for(name: str | None, models: int) -> Rule:
    """The linkage rule with that name; for None, complete linkage for up to ``EXACT_UP_TO`` models, else a cover.

    Raises ``UsageError`` for an unknown name.
    """
    found = RULES.get(str(name or ("complete" if models <= EXACT_UP_TO else "cover")).lower())
    if found is None:
        raise UsageError(f"unknown rule {name!r}", f"known: {', '.join(RULES)}")
    return found


def sorted_into_groups(
    vectors: Vectors, trainings: Sequence[str], distance: Distance, tolerance: float, rule: Rule
) -> tuple[Group, ...]:
    """Groups whose members share the training class, largest first, then by first member.

    ``vectors``: (n, d). ``trainings``: (n,), training classes; rows of different ones are never grouped, and those of
    an undetermined one each stand alone.
    """
    rows_of: dict[str, list[int]] = {}
    for row, training in enumerate(trainings):
        rows_of.setdefault(comparable(training, row), []).append(row)
    most = tolerance if rule.keeps_within else None
    groups = []
    for own in map(np.array, rows_of.values()):
        groups += [
            measured(own[part], vectors, distance, most) for part in rule.sort(vectors[own], distance, tolerance)
        ]
    return tuple(sorted(groups, key=lambda group: (-len(group.members), group.members[0])))
