"""Distances between fingerprints. A new one is a function here and a line in ``DISTANCES``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from registry.errors import SpecMismatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DEFAULT_DISTANCE", "DISTANCES", "Distance", "distance_named"]

# Rows of the gallery taken at a time: a block of differences stays within a core's second-level cache.
_ROWS = 512
# Rows and columns of a tile of float64 distances, likewise.
_TILE = 256


def _l1(differences: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.abs(differences, out=differences).sum(axis=1), dtype=np.float64)


def _l2(differences: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", differences, differences)), dtype=np.float64)


def _linf(differences: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.abs(differences, out=differences).max(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Distance:
    """A metric on fingerprints, plain norms of the difference; no weighting, no normalisation.

    ``rows``: norms (n,) of differences (n, d), which it may overwrite; ``order``: of the norm, as in NumPy's.
    """

    name: str
    title: str
    rows: Callable[[NDArray[np.floating[Any]]], NDArray[np.float64]]
    scipy_name: Literal["cityblock", "euclidean", "chebyshev"]
    order: float

    def to_all(self, query: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances (n,) from one vector (d,) to each row of (n, d); O(n d), memory O(n).

        Raises ``SpecMismatchError`` where the lengths differ.
        """
        if query.shape != gallery.shape[1:]:
            raise SpecMismatchError(
                f"a vector of shape {query.shape} against vectors of shape {gallery.shape[1:]}",
                "compare fingerprints of one spec",
            )
        out = np.empty(len(gallery), dtype=np.float64)
        for start in range(0, len(gallery), _ROWS):
            out[start : start + _ROWS] = self.rows(gallery[start : start + _ROWS] - query)
        return out

    def between(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances (n,) of each row of ``a`` to the same row of ``b``, in float64: what decides close calls."""
        return self.rows(a.astype(np.float64) - b)

    def between_all(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Condensed distances (n (n - 1) / 2,) in SciPy's order, float64; O(n^2 d).

        By tiles: of rows one by one, as SciPy's ``pdist`` takes them, a core's cache holds a tenth at 10,000 models,
        and three times the time goes into memory.
        """
        from scipy.spatial.distance import cdist

        count, exact = len(vectors), vectors.astype(np.float64)
        out = np.empty(count * (count - 1) // 2)
        for top in range(0, count, _TILE):
            rows = exact[top : top + _TILE]
            for left in range(top, count, _TILE):
                tile = cdist(rows, exact[left : left + _TILE], self.scipy_name)
                for row in range(top, min(top + _TILE, count)):
                    # Row i of the upper triangle starts at i n - i (i + 1) / 2, with column i + 1.
                    first = max(left, row + 1)
                    start = row * count - row * (row + 1) // 2 + first - row - 1
                    values = tile[row - top, first - left :]
                    out[start : start + len(values)] = values
        return out


DEFAULT_DISTANCE = "l1"

DISTANCES = {
    distance.name: distance
    for distance in (
        Distance("l1", "sum of absolute differences", _l1, "cityblock", 1.0),
        Distance("l2", "Euclidean", _l2, "euclidean", 2.0),
        Distance("linf", "largest absolute difference", _linf, "chebyshev", np.inf),
    )
}


def distance_named(name: str | None) -> Distance:
    """The distance of that name, the default for None. Raises ``UsageError`` naming the known ones."""
    found = DISTANCES.get((name or DEFAULT_DISTANCE).lower())
    if found is None:
        raise UsageError(f"unknown distance {name!r}", f"known: {', '.join(DISTANCES)}")
    return found
