"""Pareto front of several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pareto"]


def pareto(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of the Pareto front, ascending: rows that no other row dominates.

    A row dominates another if it is at most as large in every column and smaller in one. ``costs``: (n, a), finite,
    smaller is better. Equal rows stay together. O(n f a) for a front of f rows.
    """
    left = np.lexsort(costs.T[::-1])
    front: list[int] = []
    while len(left):
        # A dominating row comes before the rows it dominates, so the first remaining row is on the front.
        first = costs[left[0]]
        same = (costs[left] == first).all(axis=1)
        front += left[same].tolist()
        left = left[~(costs[left] >= first).all(axis=1)]
    return np.array(sorted(front), dtype=np.intp)
