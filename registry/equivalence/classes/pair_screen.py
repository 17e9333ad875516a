"""Search for all pairs of vectors within a radius, exact, with most other pairs excluded without measuring."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

    Rows = NDArray[np.intp]
    Pairs = tuple[Rows, Rows]
    # Selects, among pairs that may be near, those to measure.
    Wanted = Callable[[Rows, Rows], NDArray[np.bool_]]
    # Selects, from rows to compare with rows, parts of both.
    Narrowed = Callable[[Rows, Rows], Iterator[tuple[Rows, Rows]]]

__all__ = ["Screen"]

Number = TypeVar("Number", bound=np.floating[Any])

# Length of the sums of a vector, number of cells, and number of rows sampled to choose both.
_SUMS, _CELLS, _SAMPLE = 64, 256, 2_048
# Tiles of the sums of both sides fit a core's cache, and the pairs of a tile take some megabytes.
_ROWS, _COLUMNS = 1_024, 256
# Number of pairs measured in one call; above this fraction of a tile, measuring the whole tile is faster.
_AT_ONCE, _DENSE = 1_024, 0.3
# Relative error bound of sums of 480 float32 numbers; pairs nearer to the radius are measured in float64.
_ROUNDING = 1e-4
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows to compare with rows; ``ordered`` if both are from one list, of which each pair counts once."""

    left: Rows
    right: Rows
    ordered: bool = False


class Screen:
    """Vectors (n, d) float32 under a norm, prepared for finding pairs within a radius.

    Two bounds exclude most pairs. Correlated coordinates form groups g, and each group is summed with signs s. By
    Hoelder's inequality |sum_g s x| <= |g|^(1 - 1/p) ||x_g||_p, so the distance of the scaled sums never exceeds the
    distance of the vectors. The sums are sorted into cells around anchors. By the triangle inequality, the distance of
    a row to any member of a cell is at least its distance to the anchor minus the cell's radius. Both bounds only
    exclude pairs; the result does not depend on groups, anchors, tiles or threads.

    O(n d) to prepare; O(n) memory besides the vectors.
    """

    def __init__(self, vectors: NDArray[np.float32], distance: Distance) -> None:
        self.vectors, self._distance = vectors, distance
        matrix = _grouping(_sample(vectors).astype(np.float64), distance.order)
        self._sums = np.concatenate(
            [vectors[start : start + _ROWS].astype(np.float64) @ matrix for start in range(0, len(vectors), _ROWS)]
        )
        # Error bound of sums: a rounding error of the largest number for every two terms, over all groups.
        self._slack: float = 1e-15 * vectors.shape[1] ** 2 * float(np.abs(vectors).max(initial=0.0))
        self._anchors = self._far_apart(_sample(self._sums))
        self._cell, self._reach = self._nearest_anchors()

    def within(self, radius: float, wanted: Wanted, narrowed: Narrowed) -> Iterator[Pairs]:
        """Yield all wanted pairs of different rows at most ``radius`` apart, each once, in batches.

        ``narrowed`` removes pairs that are not wanted before they are measured; it may keep some.
        """
        every = np.arange(len(self.vectors), dtype=np.intp)
        tiles = (
            part
            for tile in self._own_tiles(every, radius)
            for part in ([tile] if tile.ordered else (_Tile(*sides) for sides in narrowed(tile.left, tile.right)))
            if len(part.left) and len(part.right)
        )
        return self._found(tiles, radius, wanted)

    def among(self, rows: Rows, radius: float) -> Iterator[Pairs]:
        """Yield the pairs among the given rows, as `within`."""
        return self._found(self._own_tiles(rows, radius), radius, None)

    def between(self, left: Rows, right: Rows, radius: float, wanted: Wanted) -> Iterator[Pairs]:
        """Yield the pairs of a row of ``left`` and a row of ``right``, which are disjoint, as `within`."""
        return self._found(self._cross_tiles(left, right, radius), radius, wanted)

    def _own_tiles(self, rows: Rows, radius: float) -> Iterator[_Tile]:
        ordered = rows[np.argsort(self._cell[rows], kind="stable")]
        for anchor, start, stop in self._cells(ordered):
            later = self._reachable(ordered[stop:], ordered[start:stop], anchor, radius)
            members = ordered[start:stop]
            for first in range(0, len(members), _COLUMNS):
                right = members[first : first + _COLUMNS]
                yield _Tile(right, right, ordered=True)
                for left in _chunks(np.concatenate([members[first + _COLUMNS :], later])):
                    yield _Tile(left, right)

    def _cross_tiles(self, left: Rows, right: Rows, radius: float) -> Iterator[_Tile]:
        ordered = right[np.argsort(self._cell[right], kind="stable")]
        for anchor, start, stop in self._cells(ordered):
            near = self._reachable(left, ordered[start:stop], anchor, radius)
            for first in range(start, stop, _COLUMNS):
                for chunk in _chunks(near):
                    yield _Tile(chunk, ordered[first : min(first + _COLUMNS, stop)])

    def _cells(self, ordered: Rows) -> Iterator[tuple[int, int, int]]:
        """The cells of rows in order of cell: number, start and stop."""
        cells, starts = np.unique(self._cell[ordered], return_index=True)
        yield from zip(cells.tolist(), starts.tolist(), np.append(starts, len(ordered))[1:].tolist(), strict=True)

    def _reachable(self, rows: Rows, members: Rows, anchor: int, radius: float) -> Rows:
        """The ``rows`` that may be within the radius of a member of a cell."""
        apart = self._apart(self._sums[rows], self._anchors[anchor : anchor + 1])[:, 0]
        return rows[apart <= self._loosened(radius + float(self._reach[members].max()))]

    def _loosened(self, bound: float) -> float:
        """The value that a distance of sums must exceed to be beyond the bound in spite of rounding."""
        return bound * (1.0 + 1e-12) + 3.0 * self._slack

    def _found(self, tiles: Iterator[_Tile], radius: float, wanted: Wanted | None) -> Iterator[Pairs]:
        def work(tile: _Tile) -> Pairs:
            return self._pairs(tile, radius, wanted)

        with ThreadPoolExecutor(_WORKERS) as pool:
            # A window of tiles at a time, so that results do not accumulate.
            while window := list(islice(tiles, 4 * _WORKERS)):
                yield from (pairs for pairs in pool.map(work, window) if len(pairs[0]))

    def _pairs(self, tile: _Tile, radius: float, wanted: Wanted | None) -> Pairs:
        may = self._apart(self._sums[tile.left], self._sums[tile.right]) <= self._loosened(radius)
        if tile.ordered:
            may = np.triu(may, 1)
        rows, columns = np.nonzero(may)
        left, right = tile.left[rows], tile.right[columns]
        if wanted is not None:
            kept = wanted(left, right)
            rows, columns, left, right = rows[kept], columns[kept], left[kept], right[kept]
        if len(rows) > _DENSE * may.size:
            whole = self._apart(self.vectors[tile.left].astype(float), self.vectors[tile.right].astype(float))
            rough = whole[rows, columns]
        else:
            rough = self._rough(left, right)
        inside = rough <= radius
        close = np.flatnonzero(np.abs(rough - radius) <= _ROUNDING * radius)
        for some in np.split(close, range(_AT_ONCE, len(close), _AT_ONCE)):
            inside[some] = self._distance.between(self.vectors[left[some]], self.vectors[right[some]]) <= radius
        return left[inside], right[inside]

    def _rough(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """Distances of pairs, computed in float32."""
        out = np.empty(len(left))
        for start in range(0, len(left), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            out[some] = self._distance.rows(self.vectors[left[some]] - self.vectors[right[some]])
        return out

    def _apart(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.spatial.distance import cdist

        return np.asarray(cdist(a, b, self._distance.scipy_name))

    def _far_apart(self, sample: NDArray[np.float64]) -> NDArray[np.float64]:
        """Anchors by farthest-point traversal from the first row (Gonzalez 1985)."""
        chosen, nearest = [0], self._apart(sample, sample[:1])[:, 0]
        while len(chosen) < _CELLS and nearest.max() > 0.0:
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, self._apart(sample, sample[chosen[-1:]])[:, 0])
        return sample[chosen]

    def _nearest_anchors(self) -> tuple[Rows, NDArray[np.float64]]:
        """The nearest anchor of each row, and its distance."""
        cell, reach = np.empty(len(self._sums), np.intp), np.empty(len(self._sums))
        for start in range(0, len(self._sums), _ROWS):
            apart = self._apart(self._sums[start : start + _ROWS], self._anchors)
            cell[start : start + _ROWS] = apart.argmin(axis=1)
            reach[start : start + _ROWS] = apart.min(axis=1)
        return cell, reach


def _sample(vectors: NDArray[Number]) -> NDArray[Number]:
    """About a thousand rows at equal steps."""
    return vectors[:: -(-len(vectors) // _SAMPLE)]


def _chunks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _grouping(sample: NDArray[np.float64], order: float) -> NDArray[np.float64]:
    """The (d, k) matrix of scaled signs that sums coordinates in groups.

    Correlated coordinates are placed side by side (average linkage) and cut into groups of one size. The signs are
    those of the group's first principal component, so that the sums keep as much of the variation as possible.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    length = sample.shape[1]
    groups = min(_SUMS, length)
    centred = sample - sample.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    scaled = centred / np.where(spread > 0.0, spread, 1.0)
    places: NDArray[np.integer[Any]] = np.arange(length)
    if length > groups:
        unlike = 1.0 - np.minimum(np.abs(scaled.T @ scaled), 1.0)
        np.fill_diagonal(unlike, 0.0)
        places = leaves_list(linkage(squareform(unlike, checks=False), "average"))
    matrix = np.zeros((length, groups))
    for number, group in enumerate(np.array_split(places, groups)):
        main = np.linalg.svd(centred[:, group], full_matrices=False)[2][0]
        matrix[group, number] = np.where(main < 0.0, -1.0, 1.0) * len(group) ** (1.0 / order - 1.0)
    return matrix
