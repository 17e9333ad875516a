"""Inverted index of topologies by the shapes of their layers: which have enough in common with a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Common", "ShapeIndex"]


class Common(NamedTuple):
    """What a network has in common with each topology: arrays (T,), whatever the order of the layers.

    ``codes``: of the topologies; ``layers``: layers of equal shape; ``share``: the part of the larger one's weights in
    them.
    """

    codes: NDArray[np.int64]
    layers: NDArray[np.int64]
    share: NDArray[np.float64]


class ShapeIndex:
    """Of each topology how many layers it has of each shape; layers that have no sketch do not count.

    ``remembered``: alignments of networks with topologies, by whoever makes them; at most 4,096.
    """

    def __init__(self, shapes: Mapping[int, NDArray[np.int64]], smallest: int) -> None:
        self._smallest = smallest
        self.remembered: dict[tuple[bytes, int, int], Any] = {}
        self._codes = np.array(list(shapes), np.int64)
        self._weights = np.array([of.prod(axis=1).sum() for of in shapes.values()], np.int64)
        counted = [self._counts(of) for of in shapes.values()]
        kinds = np.concatenate([each for each, _ in counted]) if counted else np.empty((0, 3), np.int64)
        self._kinds, of_kind = np.unique(kinds, axis=0, return_inverse=True)
        self._kind = of_kind.reshape(-1)
        self._count = np.concatenate([each for _, each in counted]) if counted else np.empty(0, np.int64)
        self._at = np.repeat(np.arange(len(counted)), [len(each) for each, _ in counted])
        self._places = {shape: at for at, shape in enumerate(map(tuple, self._kinds.tolist()))}

    def _counts(self, shapes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        may = (shapes.prod(axis=1) >= self._smallest) & (shapes[:, 0] > 1)
        kinds, counts = np.unique(shapes[may], axis=0, return_counts=True)
        return kinds.reshape(-1, 3), counts.astype(np.int64)

    def common(self, shapes: NDArray[np.int64], weights: int) -> Common:
        """Compare a network of layers (n, 3) and so many weights in all with each topology; O(kinds of layers)."""
        own = np.zeros(len(self._kinds), np.int64)
        for shape, count in zip(*self._counts(shapes), strict=True):
            at = self._places.get(tuple(shape.tolist()))
            if at is not None:
                own[at] = count
        both = np.minimum(own[self._kind], self._count)
        topologies = len(self._codes)
        layers = np.bincount(self._at, both, topologies).astype(np.int64)
        elements = np.bincount(self._at, both * self._kinds.prod(axis=1)[self._kind], topologies)
        return Common(self._codes, layers, elements / np.maximum(1, np.maximum(self._weights, weights)))
