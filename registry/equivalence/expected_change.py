"""Expected change of a metric: 90 % intervals learned from pairs of scored models.

Quantiles of the change are linear in features of the pair. Their ends are moved by split conformal prediction (Romano,
Patterson and Candes, arXiv:1905.03222, section 4, with a score for either end), with scores of families that the fit
has not seen (cross-conformal: Vovk, arXiv:1208.0806). Pairs that share a model or a family are not exchangeable, so
that no theorem gives the coverage. It is measured, by leaving families out of everything, and is part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["LEAST_COVERAGE", "LEAST_PAIRS", "LEVEL", "ChangeRule", "ScoredPairs", "features_of", "learned", "pairs_of"]

LEVEL = 0.9
"""Fraction of the changes that an interval is made to hold."""
LEAST_PAIRS = 30
"""Fewest pairs that a rule is learned from, and fewest scores that an end is moved by."""
LEAST_FITTED = 15
"""Fewest pairs that quantiles are fitted to where families are left out."""
LEAST_COVERAGE = 0.85
"""Lowest measured coverage of families left out at which a rule is given."""

NEAR = DRAWN = 4
"""Pairs of each larger model: with the nearest of the smaller ones, and with others drawn at random."""
FOLDS = 8
"""Most groups of families that are left out in turn, so that the time does not grow with their number."""
RIDGE = 1.0
"""Penalty on squared slopes of standardised features, in units of the spread of the changes: as one pair more."""
ROUNDS, SMOOTH = 15, 0.02
"""Weighted least-squares fits that approximate quantile regression, and the residual, in spreads of the changes, below
which the loss is smooth. What they lack, the moved ends make good."""
LEVELS = np.array([[(1.0 - LEVEL) / 2.0], [0.5], [(1.0 + LEVEL) / 2.0]])
"""The quantiles (3, 1): low end, median, high end."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPairs:
    """Pairs of a larger and a smaller model with the same metric.

    ``features`` (n, f) float64; ``changes`` (n,) float64: metric of the smaller minus that of the larger, in units of
    the metric; ``families`` (n, 2) int64: numbers of the families of both.
    """

    features: NDArray[np.float64]
    changes: NDArray[np.float64]
    families: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChangeRule:
    """Quantiles of the change, linear in standardised features, and what moves the two ends.

    ``pairs``: number of pairs learned from. ``coverage``: fraction of the pairs with a family left out whose change was
    within the interval that the other families gave. ``lows`` and ``highs`` (f,): range of each feature.
    """

    pairs: int
    coverage: float
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    _quantiles: _Quantiles
    _moved: tuple[float, float]

    def expected(self, features: ArrayLike) -> NDArray[np.float64]:
        """(m, 3) median, low and high end of the change for (m, f) features; NaN beyond the range learned from."""
        rows = np.asarray(features, dtype=np.float64)
        low, middle, high = self._quantiles.at(rows)
        low, high = low - self._moved[0], high + self._moved[1]
        found = np.stack([middle, np.minimum(low, middle), np.maximum(high, middle)], axis=1)
        found[~((rows >= self.lows) & (rows <= self.highs)).all(axis=1)] = np.nan
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Quantiles:
    """Linear quantiles at 5, 50 and 95 %: ``weights`` (3, f + 1) on standardised features, the constant first."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weights: NDArray[np.float64]

    def at(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3, m) quantiles for (m, f) features."""
        scaled = (features - self.mean) / self.spread
        return self.weights[:, :1] + self.weights[:, 1:] @ scaled.T


def features_of(distance: ArrayLike, larger: ArrayLike, smaller: ArrayLike, metric: ArrayLike) -> NDArray[np.float64]:
    """(n, 4) features of pairs.

    They are the distance, the log of the ratio of parameters (larger over smaller), the metric of the larger, and the
    product of distance and metric: the farther a model is, the more its metric is that of any model, whatever that of
    the larger is. Each argument: (n,), or a number for all.
    """
    ratio = np.log(np.asarray(larger, dtype=np.float64) / np.asarray(smaller, dtype=np.float64))
    apart, known = np.asarray(distance, dtype=np.float64), np.asarray(metric, dtype=np.float64)
    return np.stack(np.broadcast_arrays(apart, ratio, known, apart * known), axis=-1)


def pairs_of(
    distances: NDArray[np.float64], parameters: ArrayLike, metrics: ArrayLike, families: Sequence[str], seed: int = 0
) -> ScoredPairs:
    """At most eight pairs for each of n scored models: four nearest smaller models, and four others drawn by ``seed``.

    ``distances`` (n, n); ``parameters``, ``metrics`` and ``families`` (n,). Nearest models are what answers name; the
    others show how the change grows with the distance. O(n^2 log n).
    """
    sizes, values = np.asarray(parameters), np.asarray(metrics, dtype=np.float64)
    random = np.random.default_rng(seed)
    larger, smaller = list[int](), list[int]()
    for row in range(len(sizes)):
        below = np.flatnonzero(sizes < sizes[row])
        below = below[np.argsort(distances[row, below], kind="stable")]
        rest = below[NEAR:]
        chosen = [*below[:NEAR], *random.choice(rest, min(DRAWN, len(rest)), replace=False)]
        larger += [row] * len(chosen)
        smaller += chosen
    a, b = np.array(larger, np.int64), np.array(smaller, np.int64)
    codes = np.unique(np.asarray(families), return_inverse=True)[1]
    return ScoredPairs(
        features_of(distances[a, b], sizes[a], sizes[b], values[a]),
        values[b] - values[a],
        np.stack([codes[a], codes[b]], axis=1),
    )


def learned(pairs: ScoredPairs) -> ChangeRule | None:
    """The rule of these pairs, or None where they do not carry one; O(n f^2) for n pairs.

    They do not if there are fewer than 30, if without two of the (groups of) families fewer than 15 pairs are left to
    fit, or if the measured coverage of families left out is below 85 %.
    """
    if len(pairs.changes) < LEAST_PAIRS:
        return None
    folds = _Folds(pairs)
    moved, fitted = folds.moved(frozenset()), folds.fitted(frozenset())
    if moved is None or fitted is None:
        return None
    held = asked = 0
    for number, fold in enumerate(folds.masks):
        left = frozenset({number})
        ends, others = folds.moved(left), folds.fitted(left)
        if ends is None or others is None:
            return None
        low, _, high = others.at(pairs.features[fold])
        changes = pairs.changes[fold]
        held += int(((changes >= low - ends[0]) & (changes <= high + ends[1])).sum())
        asked += len(changes)
    if held < LEAST_COVERAGE * asked:
        return None
    features = pairs.features
    return ChangeRule(len(pairs.changes), held / asked, features.min(axis=0), features.max(axis=0), fitted, moved)


class _Folds:
    """Groups of families, the pairs that have a model of each, and quantiles fitted without some of the groups."""

    def __init__(self, pairs: ScoredPairs) -> None:
        self.pairs = pairs
        self.masks = _masks(pairs.families)
        self._fits: dict[frozenset[int], _Quantiles | None] = {}

    def without(self, left_out: frozenset[int]) -> NDArray[np.bool_]:
        """Mask (n,) of the pairs with no model of these groups."""
        kept = np.ones(len(self.pairs.changes), np.bool_)
        for number in left_out:
            kept &= ~self.masks[number]
        return kept

    def fitted(self, left_out: frozenset[int]) -> _Quantiles | None:
        """Quantiles without these groups, fitted once; None from fewer than 15 pairs."""
        if left_out not in self._fits:
            kept = self.without(left_out)
            few = kept.sum() < LEAST_FITTED
            self._fits[left_out] = None if few else _quantiles(self.pairs.features[kept], self.pairs.changes[kept])
        return self._fits[left_out]

    def moved(self, left_out: frozenset[int]) -> tuple[float, float] | None:
        """By how much the low and the high end move outwards: each group's changes beyond the ends of all others."""
        kept = self.without(left_out)
        below: list[NDArray[np.float64]] = []
        above: list[NDArray[np.float64]] = []
        for number, mask in enumerate(self.masks):
            asked = kept & mask
            if number in left_out or not asked.any():
                continue
            others = self.fitted(left_out | {number})
            if others is None:
                return None
            low, _, high = others.at(self.pairs.features[asked])
            below.append(low - self.pairs.changes[asked])
            above.append(self.pairs.changes[asked] - high)
        count = sum(map(len, below))
        rank = ceil((1.0 + LEVEL) / 2.0 * (count + 1))
        if count < LEAST_PAIRS or rank > count:
            return None
        low_end, high_end = (float(np.partition(np.concatenate(side), rank - 1)[rank - 1]) for side in (below, above))
        return low_end, high_end


def _masks(families: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Masks (n,) of the pairs that have a model of each group of families; large families first, to even groups."""
    names, counts = np.unique(families, return_counts=True)
    sizes = [0] * min(FOLDS, len(names))
    group = dict[int, int]()
    for at in np.argsort(-counts, kind="stable").tolist():
        emptiest = sizes.index(min(sizes))
        group[int(names[at])] = emptiest
        sizes[emptiest] += int(counts[at])
    of = np.array([group[family] for family in families.ravel().tolist()]).reshape(families.shape)
    return [(of == fold).any(axis=1) for fold in range(len(sizes))]


def _quantiles(features: NDArray[np.float64], changes: NDArray[np.float64]) -> _Quantiles:
    """Linear quantiles of (n,) changes for (n, f) features: least pinball loss by reweighted least squares."""
    mean, spread, unit = features.mean(axis=0), features.std(axis=0), float(changes.std())
    spread = np.where(spread > 0.0, spread, 1.0)
    count = features.shape[1]
    weights = np.zeros((len(LEVELS), count + 1))
    if unit == 0.0:
        weights[:, 0] = changes[0]
        return _Quantiles(mean, spread, weights)
    design, values = np.column_stack([np.ones(len(changes)), (features - mean) / spread]), changes / unit
    products = (design[:, :, None] * design[:, None, :]).reshape(len(changes), -1)
    weights[:, 0] = np.quantile(values, LEVELS[:, 0])
    penalty = np.diag([0.0] + [RIDGE] * count)
    for _ in range(ROUNDS):
        left = values - weights @ design.T
        # A residual's pinball loss over its square: a parabola near zero, so that it stays finite.
        loss = np.where(left > 0.0, LEVELS, 1.0 - LEVELS) / np.maximum(np.abs(left), SMOOTH)
        weighed = (loss @ products).reshape(len(LEVELS), count + 1, count + 1)
        weights = np.linalg.solve(weighed + penalty, ((loss * values) @ design)[..., None])[..., 0]
    return _Quantiles(mean, spread, weights * unit)
