"""Distances between fingerprints. A new one is a function here and a line in ``DISTANCES``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from registry.errors import SpecMismatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DEFAULT_DISTANCE", "DISTANCES", "Distance", "distance_named"]

# Rows of the gallery taken at a time: a block of differences stays within a core's second-level cache.
_ROWS = 512


def _l1(differences: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.abs(differences, out=differences).sum(axis=1), dtype=np.float64)


def _l2(differences: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", differences, differences)), dtype=np.float64)


def _linf(differences: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.abs(differences, out=differences).max(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Distance:
    """A metric on fingerprints, plain norms of the difference; no weighting, no normalisation."""

    name: str
    title: str
    rows: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    scipy_name: Literal["cityblock", "euclidean", "chebyshev"]

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

    def between_all(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Condensed distances (n (n - 1) / 2,) in SciPy's order, float64; O(n^2 d)."""
        from scipy.spatial.distance import pdist

        return np.asarray(pdist(vectors.astype(np.float64), self.scipy_name), dtype=np.float64)


DEFAULT_DISTANCE = "l1"

DISTANCES = {
    distance.name: distance
    for distance in (
        Distance("l1", "sum of absolute differences", _l1, "cityblock"),
        Distance("l2", "Euclidean", _l2, "euclidean"),
        Distance("linf", "largest absolute difference", _linf, "chebyshev"),
    )
}


def distance_named(name: str | None) -> Distance:
    """The distance of that name, the default for None. Raises ``UsageError`` naming the known ones."""
    found = DISTANCES.get((name or DEFAULT_DISTANCE).lower())
    if found is None:
        raise UsageError(f"unknown distance {name!r}", f"known: {', '.join(DISTANCES)}")
    return found
