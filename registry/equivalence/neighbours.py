"""The nearest of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

__all__ = ["nearest", "search"]

PLAIN = 4_096  # rows up to which bounds cost more than they spare


def nearest(distances: NDArray[np.float64], ids: NDArray[np.int64], k: int) -> NDArray[np.intp]:
    """Indices of the ``k`` smallest distances, ascending, equal distances in order of id; O(n + k log k).

    ``distances`` (n,), ``ids`` (n,); fewer than ``k`` where n is smaller.
    """
    if k <= 0:
        return np.empty(0, dtype=np.intp)
    if k < len(distances):
        # Whatever ties with the k-th stays in, so that ties are broken by id and not by the partition.
        edge = np.partition(distances, k - 1)[k - 1]
        kept = np.flatnonzero(distances <= edge)
    else:
        kept = np.arange(len(distances))
    order = np.lexsort((ids[kept], distances[kept]))
    return kept[order[:k]]


def search(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    distance: Distance,
    *,
    ids: NDArray[np.int64],
    squares: Callable[[], NDArray[np.float64]],
    rows: NDArray[np.intp] | None = None,
    k: int | None = None,
    radius: float | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows of the ``k`` vectors nearest to a query, of those within ``radius``, and their distances.

    Ascending, equal distances in order of id; all of them without ``k`` and ``radius``. Exact: float32 arithmetic only
    excludes rows that cannot be among them, and the distances of the others are `Distance.to_all`'s. O(n d) time, and
    O(n) memory beside the vectors.

    Parameters
    ----------
    query : (d,) float32
    vectors : (n, d) float32
    distance : Distance
    ids : (n,) int64
    squares : callable
        Squared norms of the vectors (n,), float64; called where they are needed.
    rows : (m,) intp, optional
        The rows to search; all by default.
    k, radius : optional
        How many at most, and how far away at most.
    """
    count = len(vectors) if rows is None else len(rows)
    limited = (k is not None and k < count) or radius is not None
    if limited and count > PLAIN:
        kept = _possible(query, vectors, distance, squares, rows, k, radius)
        if kept is not None:
            rows = kept if rows is None else rows[kept]
    found = distance.to_all(query, vectors, rows)
    chosen = np.arange(len(found)) if radius is None else np.flatnonzero(found <= radius)
    at = chosen if rows is None else rows[chosen]
    order = nearest(found[chosen], ids[at], len(chosen) if k is None else k)
    return at[order], found[chosen][order]


def _possible(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    distance: Distance,
    squares: Callable[[], NDArray[np.float64]],
    rows: NDArray[np.intp] | None,
    k: int | None,
    radius: float | None,
) -> NDArray[np.intp] | None:
    """Which rows can be among the nearest, by bounds on their distances; None where float32 cannot tell."""
    low, high = distance.bounds_to_all(query, vectors, squares() if distance.squared else None, rows)
    if not np.isfinite(high).all():
        return None
    limit = np.inf if radius is None else distance.inner(radius)
    if k is not None and k < len(high):
        # k rows are no farther than this, for certain.
        limit = min(limit, float(np.partition(high, k - 1)[k - 1])) if k > 0 else -np.inf
    return np.flatnonzero(low <= limit)
