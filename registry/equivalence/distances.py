"""Distances between fingerprints, and the nearest of many by one of them.

A new distance is a `Distance`, with functions for rows and for bounds, and a line of ``registry.extensions``.

A distance is computed from
float32 vectors in float64. To find the nearest of many vectors, float32 arithmetic first gives *bounds* at a fraction
of the cost: values in the order of the distances, and their largest error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from registry.errors import SpecMismatchError, UsageError
from registry.extensions import DISTANCES as ROWS
from registry.extensions import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Numbers = NDArray[np.float64]
    Differences = NDArray[np.floating[Any]]

__all__ = ["DEFAULT_DISTANCE", "DISTANCES", "L1", "L2", "LINF", "Distance", "distance_named", "nearest", "search"]

PLAIN = 4_096  # rows up to which bounds cost more than they spare

# Rows of the gallery per block, so that a block of differences fits a core's second-level cache.
_ROWS = 256
# Rows and columns of a tile of float64 distances, for the same reason.
_TILE = 256

# Half a unit in the last place of float32, and the smallest normal number: smaller numbers are lost if the process
# flushes denormals to zero.
_UNIT = 2.0**-24
_TINY = 2.0**-126


def _l1(differences: Differences) -> Numbers:
    return np.asarray(np.abs(differences, out=differences).sum(axis=1), dtype=np.float64)


def _l2(differences: Differences) -> Numbers:
    return np.asarray(np.sqrt(np.square(differences, out=differences).sum(axis=1)), dtype=np.float64)


def _linf(differences: Differences) -> Numbers:
    return np.asarray(np.abs(differences, out=differences).max(axis=1, initial=0.0), dtype=np.float64)


def _l1_bounds(query: Vectors, block: Vectors, squares: Numbers, out: Vectors) -> tuple[Numbers, Numbers]:  # noqa: ARG001
    """Sums of absolute differences, and their error: each term is rounded once, and once per addition, in any order."""
    np.abs(np.subtract(block, query, out=out), out=out)
    about = (out @ np.ones(len(query), np.float32)).astype(np.float64)
    return about, about * _relative(len(query) + 2) + len(query) * _TINY


def _l2_bounds(query: Vectors, block: Vectors, squares: Numbers, out: Vectors) -> tuple[Numbers, Numbers]:  # noqa: ARG001
    """Squares, |x|^2 - 2 x.y + |y|^2, and their error: norms in float64, the product to (d + 2) units of |x| |y|."""
    wide = query.astype(np.float64)
    square = float(wide @ wide)
    about = squares + square - 2.0 * (block @ query)
    return about, 2.0 * np.sqrt(squares * square) * _relative(len(query) + 2) + 4.0 * len(query) * _TINY


def _linf_bounds(query: Vectors, block: Vectors, squares: Numbers, out: Vectors) -> tuple[Numbers, Numbers]:  # noqa: ARG001
    """The largest absolute difference, and its error: one rounding."""
    np.abs(np.subtract(block, query, out=out), out=out)
    about = out.max(axis=1, initial=0.0).astype(np.float64)
    return about, about * _relative(1) + _TINY


def _relative(roundings: int) -> float:
    """Relative error after n roundings (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1)."""
    return roundings * _UNIT / (1.0 - 2.0 * roundings * _UNIT)


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between fingerprints: the norm of their difference, without weights or normalisation.

    ``rows``: norms (m,) of differences (m, d), which it may overwrite. ``bounds``: takes a query (d,), a block (m, d),
    the squared norms (m,) of the block and a work array (m, d); returns approximate ``inner`` values of the distances
    and their largest error, not finite if float32 overflows. ``order``: order of the norm, as in NumPy.
    """

    name: str
    title: str
    rows: Callable[[Differences], Numbers]
    bounds: Callable[[Vectors, Vectors, Numbers, Vectors], tuple[Numbers, Numbers]]
    scipy_name: Literal["cityblock", "euclidean", "chebyshev"]
    order: float

    @property
    def squared(self) -> bool:
        """Whether ``bounds`` uses squared distances and needs squared norms."""
        return self.order == 2.0

    def inner(self, distance: float) -> float:
        """The distance in the form of ``bounds``: for L2 its square, which saves a square root per row."""
        return distance * distance if self.squared else distance

    def to_all(self, query: Vectors, gallery: Vectors, rows: NDArray[np.intp] | None = None) -> Numbers:
        """Distances (n,) from a vector (d,) to each row of (n, d), or to ``rows`` of it; O(n d), memory O(n).

        Each is equal, to the last bit, to the distance of its two vectors alone. Raises ``SpecMismatchError`` if the
        lengths differ.
        """
        if query.shape != gallery.shape[1:]:
            raise SpecMismatchError(
                f"a vector of shape {query.shape} cannot be compared with vectors of shape {gallery.shape[1:]}",
                "compare fingerprints of one spec",
            )
        count = len(gallery) if rows is None else len(rows)
        out = np.empty(count, dtype=np.float64)
        wide, room = query.astype(np.float64), np.empty((min(count, _ROWS), len(query)), np.float64)
        for start in range(0, count, _ROWS):
            part = slice(start, min(start + _ROWS, count))
            block = gallery[part] if rows is None else gallery[rows[part]]
            differences = room[: len(block)]
            np.subtract(block, wide, out=differences)
            out[part] = self.rows(differences)
        return out

    def bounds_to_all(
        self, query: Vectors, gallery: Vectors, squares: Numbers | None, rows: NDArray[np.intp] | None = None
    ) -> tuple[Numbers, Numbers]:
        """Lower and upper bounds (n,) of ``inner`` of each distance; not finite if float32 overflows.

        ``squares``: squared norms of the gallery, for a ``squared`` distance.
        """
        count = len(gallery) if rows is None else len(rows)
        low, high = np.empty(count, np.float64), np.empty(count, np.float64)
        room, none = np.empty((min(count, _ROWS), len(query)), np.float32), np.empty(0)
        for start in range(0, count, _ROWS):
            part = slice(start, min(start + _ROWS, count))
            here = part if rows is None else rows[part]
            block = gallery[here]
            with np.errstate(over="ignore", invalid="ignore"):
                about, off = self.bounds(query, block, none if squares is None else squares[here], room[: len(block)])
                # Plus the float64 rounding error of these bounds and of the distances computed later.
                off += 1e-12 * (about + off)
                low[part], high[part] = about - off, about + off
        return low, high

    def between(self, a: Vectors, b: Vectors) -> Numbers:
        """Distances (n,) of each row of ``a`` to the same row of ``b``, in float64; they decide close cases."""
        return self.rows(a.astype(np.float64) - b)

    def between_all(self, vectors: Vectors) -> Numbers:
        """Condensed distances (n (n - 1) / 2,) in SciPy's order, float64; O(n^2 d).

        Computed in tiles. SciPy's ``pdist`` goes row by row, of which a core's cache holds a tenth at 10,000 models,
        and takes three times as long.
        """
        from scipy.spatial.distance import cdist

        count, exact = len(vectors), vectors.astype(np.float64)
        out = np.empty(count * (count - 1) // 2)
        for top in range(0, count, _TILE):
            rows = exact[top : top + _TILE]
            for left in range(top, count, _TILE):
                tile = cdist(rows, exact[left : left + _TILE], self.scipy_name)
                for row in range(top, min(top + _TILE, count)):
                    # Row i of the upper triangle starts at index i n - i (i + 1) / 2, with column i + 1.
                    first = max(left, row + 1)
                    start = row * count - row * (row + 1) // 2 + first - row - 1
                    values = tile[row - top, first - left :]
                    out[start : start + len(values)] = values
        return out


L1 = Distance("l1", "sum of absolute differences", _l1, _l1_bounds, "cityblock", 1.0)
L2 = Distance("l2", "Euclidean", _l2, _l2_bounds, "euclidean", 2.0)
LINF = Distance("linf", "largest absolute difference", _linf, _linf_bounds, "chebyshev", np.inf)

DEFAULT_DISTANCE = "l1"
DISTANCES: Table[Distance] = Table(ROWS)


def distance_named(name: str | None) -> Distance:
    """The distance with that name, or the default for None. Raises ``UsageError`` for an unknown name."""
    found = DISTANCES.get(str(name or DEFAULT_DISTANCE).lower())
    if found is None:
        raise UsageError(f"unknown distance {name!r}", f"known: {', '.join(DISTANCES)}")
    return found


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
