"""Which of many models none beats in every aim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pareto"]


def pareto(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of the Pareto front, ascending: those that no other is at most as large as in every column, less in one.

    ``costs`` (n, a), finite, smaller is better; equal rows stay together. O(n f a) for a front of f rows.
    """
    left = np.lexsort(costs.T[::-1])
    front: list[int] = []
    while len(left):
        # Whatever dominates a row comes before it, so the first that is left is dominated by none.
        first = costs[left[0]]
        same = (costs[left] == first).all(axis=1)
        front += left[same].tolist()
        left = left[~(costs[left] >= first).all(axis=1)]
    return np.array(sorted(front), dtype=np.intp)
