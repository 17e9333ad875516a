"""Eigenvalues from Gauss quadratures: nodes and weights of a Lanczos process, cumulative, eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Nodes", "eigenvalues_of"]

# A node whose residual is below this fraction of the distance to the next node is an eigenvalue, or a cluster: a jump.
ISOLATED = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Gauss quadrature of a vector's spectral measure: ascending nodes, weights of sum 1, residuals; (k,) each."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]

    def tilted(self, mean: float) -> Nodes:
        """Weights times 1 + c (node - mean node), with the c that makes the mean ``mean``; weights stay >= 0.

        A calibration estimator (Deville & Saerndal 1992): a known exact value reduces the variance.
        """
        away = self.values - self.weights @ self.values
        spread = self.weights @ away**2
        if spread <= 0:
            return self
        weights = self.weights * np.maximum(1 + away * ((mean - self.weights @ self.values) / spread), 0.0)
        return Nodes(self.values, weights / weights.sum(), self.residuals)

    def path(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The cumulative as a path: ascending singular values, where a jump has two equal ones, and heights.

        At a node the cumulative lies between the sum of weights before it and that sum plus its own weight
        (inequalities of Chebyshev, Markov and Stieltjes). The midpoint is used, unless the node is isolated, which
        makes it a jump. Between nodes the path is linear in singular values, whose densities are smooth where those of
        eigenvalues diverge at 0.
        """
        sums = np.concatenate(([0.0], np.cumsum(self.weights)))
        before, behind = sums[:-1], sums[1:] / sums[-1]
        gaps = np.diff(self.values, prepend=-np.inf, append=np.inf)
        jump = self.residuals <= ISOLATED * np.minimum(gaps[:-1], gaps[1:])
        middle = 0.5 * (before + behind)
        places = np.sqrt(np.maximum(self.values, 0.0))
        lower, upper = np.where(jump, before, middle), np.where(jump, behind, middle)
        x, heights = np.repeat(places, 2), np.stack([lower, upper], axis=1).ravel()
        # Half the weight of an outermost node lies beyond it, within half the distance to the next node.
        half = 0.5 * np.diff(places)[[0, -1]] if places.size > 1 else np.zeros(2)
        first, last = max(0.0, places[0] - half[0]), places[-1] + half[1]
        return np.concatenate(([first], x, [last])), np.concatenate(([0.0], heights, [1.0]))


def eigenvalues_of(quadratures: Sequence[Nodes], count: int, total: float) -> NDArray[np.float64]:
    """``count`` ascending values with sum ``total`` whose cumulative is the mean of the quadratures', (count,).

    Taken at the midpoints of the steps of ``count`` eigenvalues, so that their cumulative differs by at most half a
    step.
    """
    paths = [nodes.tilted(total / count).path() for nodes in quadratures]
    x = np.unique(np.concatenate([places for places, _ in paths]))
    # np.interp takes the upper end of a jump; with reversed arrays, the lower end.
    upper = np.mean([np.interp(x, places, heights, left=0) for places, heights in paths], axis=0)
    lower = np.mean([1 - np.interp(-x, -s[::-1], 1 - h[::-1], left=0) for s, h in paths], axis=0)
    heights = np.maximum.accumulate(np.stack([lower, upper], axis=1).ravel())
    values: NDArray[np.float64] = np.interp((np.arange(count) + 0.5) / count, heights, np.repeat(x, 2)) ** 2
    missing = total - float(values.sum())
    if not values[-1] > 0:
        return values
    # Linear pieces are longest, and their means least accurate, where eigenvalues are large: those are adjusted most.
    share = missing / float(values @ values)
    if abs(share) * values[-1] < 0.25:
        return np.asarray(values + share * values**2)
    return np.asarray(values * (total / (total - missing)))
