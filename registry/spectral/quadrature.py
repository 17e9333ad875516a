"""Spectra from quadratures: nodes and weights that a Lanczos process leaves, to a cumulative, to eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Nodes", "eigenvalues_of"]

# Residuals below this share of the distance to the next node: an eigenvalue, or several too close to tell, and a jump.
ISOLATED = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """A Gauss quadrature of one vector's spectral measure: ascending nodes, weights of sum 1, residuals; (k,) each."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]

    def tilted(self, mean: float) -> Nodes:
        """Weights times 1 + c (node - their mean), with the c that makes the mean ``mean``; none of them below 0.

        A calibration estimator (Deville & Saerndal 1992): what is known exactly takes its part of the scatter away.
        """
        away = self.values - self.weights @ self.values
        spread = self.weights @ away**2
        if spread <= 0:
            return self
        weights = self.weights * np.maximum(1 + away * ((mean - self.weights @ self.values) / spread), 0.0)
        return Nodes(self.values, weights / weights.sum(), self.residuals)

    def path(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The cumulative as a path: singular values, ascending, a jump having two alike, and heights.

        At a node the cumulative lies between the sum of weights before it and that sum with its own (the inequalities
        of Chebyshev, Markov and Stieltjes): half-way, unless the node is isolated and so a jump. Straight between, in
        singular values, of which densities are smooth where those of eigenvalues rise without bound at 0.
        """
        sums = np.concatenate(([0.0], np.cumsum(self.weights)))
        before, behind = sums[:-1], sums[1:] / sums[-1]
        gaps = np.diff(self.values, prepend=-np.inf, append=np.inf)
        jump = self.residuals <= ISOLATED * np.minimum(gaps[:-1], gaps[1:])
        middle = 0.5 * (before + behind)
        places = np.sqrt(np.maximum(self.values, 0.0))
        lower, upper = np.where(jump, before, middle), np.where(jump, behind, middle)
        x, heights = np.repeat(places, 2), np.stack([lower, upper], axis=1).ravel()
        # Half a node's weight lies beyond the outermost ones, within half the distance to the next.
        half = 0.5 * np.diff(places)[[0, -1]] if places.size > 1 else np.zeros(2)
        first, last = max(0.0, places[0] - half[0]), places[-1] + half[1]
        return np.concatenate(([first], x, [last])), np.concatenate(([0.0], heights, [1.0]))


def eigenvalues_of(quadratures: Sequence[Nodes], count: int, total: float) -> NDArray[np.float64]:
    """``count`` ascending values of sum ``total`` whose cumulative is the mean of the quadratures', (count,).

    At the middles of the steps that ``count`` eigenvalues make, so that theirs differs by half a step at most.
    """
    paths = [nodes.tilted(total / count).path() for nodes in quadratures]
    x = np.unique(np.concatenate([places for places, _ in paths]))
    # np.interp takes the upper end of a jump; turned around, the lower one.
    upper = np.mean([np.interp(x, places, heights, left=0) for places, heights in paths], axis=0)
    lower = np.mean([1 - np.interp(-x, -s[::-1], 1 - h[::-1], left=0) for s, h in paths], axis=0)
    heights = np.maximum.accumulate(np.stack([lower, upper], axis=1).ravel())
    values: NDArray[np.float64] = np.interp((np.arange(count) + 0.5) / count, heights, np.repeat(x, 2)) ** 2
    missing = total - float(values.sum())
    if not values[-1] > 0:
        return values
    # Straight pieces are longest, and so most wrong about the mean, where eigenvalues are large: those give way most.
    share = missing / float(values @ values)
    if abs(share) * values[-1] < 0.25:
        return np.asarray(values + share * values**2)
    return np.asarray(values * (total / (total - missing)))
