"""Equivalence classes: groups in which every two models are within the accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

__all__ = ["MAX_COMPLETE", "Group", "complete_linkage"]

# n (n - 1) / 2 float64 distances, and SciPy's working copy of them: 0.8 GB at 10,000 models, 3.2 GB at 20,000.
MAX_COMPLETE = 20_000


@dataclass(frozen=True, slots=True)
class Group:
    """Row numbers of the members, ascending; the one of the smallest summed distance; the largest distance within."""

    members: tuple[int, ...]
    medoid: int
    diameter: float


def complete_linkage(
    vectors: NDArray[np.float32], kinds: Sequence[Hashable], distance: Distance, accuracy: float
) -> tuple[Group, ...]:
    """Groups with diameter <= ``accuracy`` whose members share their kind, largest first, then by first member.

    ``vectors`` (n, d); ``kinds`` (n,): models of different kinds (training class, tail class) are never grouped.
    Complete linkage (Defays 1977), cut at the accuracy: O(n^2 d) time, O(n^2) memory within a kind.

    Raises ``UsageError`` above ``MAX_COMPLETE`` models of a kind.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, kind in enumerate(kinds):
        rows_of.setdefault(kind, []).append(row)
    groups = [
        group for rows in rows_of.values() for group in _groups(np.array(rows), vectors[rows], distance, accuracy)
    ]
    return tuple(sorted(groups, key=lambda group: (-len(group.members), group.members[0])))


def _groups(rows: NDArray[np.intp], vectors: NDArray[np.float32], distance: Distance, accuracy: float) -> list[Group]:
    if len(rows) > MAX_COMPLETE:
        raise UsageError(
            f"{len(rows)} models are too many for exact classes (limit {MAX_COMPLETE})",
            "narrow the question by a filter such as --family or --max-params",
        )
    if len(rows) == 1:
        return [Group((int(rows[0]),), int(rows[0]), 0.0)]
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    labels = fcluster(linkage(distance.between_all(vectors), "complete"), accuracy, "distance")
    order = np.argsort(labels, kind="stable")
    groups = []
    for within in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        # Within a group again, rather than all of them as a square: most groups are small.
        block = squareform(distance.between_all(vectors[within]), checks=False)
        central = int(block.sum(axis=1).argmin())
        groups.append(Group(tuple(rows[within].tolist()), int(rows[within[central]]), float(block.max())))
    return groups
