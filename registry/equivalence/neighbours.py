"""The nearest of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["nearest"]


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
