"""Decay law of a spectrum's tail: exponential, power law, or undecided.

Eigenvalues of one layer are dependent, so layers are resampled, not eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_whole
from registry.ensembles.wishart import largest_eigenvalues
from registry.spectral.cumulatives import check_spectra
from registry.types import Decay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = ["DECAY_LEVEL", "MIN_EXCEEDANCES", "MIN_LAYERS", "RESAMPLES", "decay", "tail_threshold"]

DECAY_LEVEL = 0.05
"""Two-sided significance level for preferring one law to the other, and for rejecting a law as not fitting."""
MIN_EXCEEDANCES = 30
MIN_LAYERS = 6
"""Smallest numbers of eigenvalues and of layers that decide. With 6 layers and 70 eigenvalues the laws are told apart
in a fifth of all cases, with 40 and 490 in nine of ten."""
RESAMPLES = 999
"""Number of resampled networks; a probability of 0.05 has an error of 0.014."""

CIRCULAR_EDGE = 2.0
# Quantile of |z| for a normal z at ``DECAY_LEVEL``.
NORMAL = 1.96
# Below this product of rate and range, a truncated exponential equals a uniform law to three digits.
FLAT = 1e-3
STEPS = 100
ROUNDING = 1e-12


def decay(spectra: Sequence[Spectrum], *, seed: int = 0) -> Decay:
    """The decay law of a network's tail, on `proper` spectra.

    Two laws are fitted to the eigenvalues beyond `tail_threshold`, each with its weight 1 / (L min(p, q)) in the mixed
    ensemble: a shifted exponential and a Pareto law. An eigenvalue x of a layer of n = min(p, q) cannot exceed n, their
    sum, so both laws are truncated there, layer by layer; without truncation the smallest layers make any power law
    look exponential. Both have one parameter, found by maximum weighted likelihood.

    A law is named if two conditions hold. Vuong's test (Vuong 1989; Clauset, Shalizi & Newman 2009, arXiv:0706.1062,
    section 6) prefers it, both by the normal quantile and by a bootstrap over layers. A score test against a curved
    log-density does not reject it; log-normal tails are rejected under either law. The bootstrap is studentised and
    equal-tailed (Hall 1992). Of tails that are equally near to both laws, 3 to 8 in 100 are still named.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers; their order does not matter.
    seed
        Seed of the resampling, non-negative.

    Returns
    -------
    Decay
        ``undecided`` without estimates if fewer than `MIN_EXCEEDANCES` eigenvalues or `MIN_LAYERS` layers lie beyond
        the threshold, or if the density does not decay.

    Raises
    ------
    SpectrumError
        There are no layers, a spectrum is empty, incomplete or not finite, or the seed is negative.
    """
    check_spectra(spectra)
    check_whole(seed, "seed", 0)
    threshold = tail_threshold([(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra])
    tails = [s.values[np.searchsorted(s.values, threshold, side="right") :].astype(np.float64) for s in spectra]
    orders = np.array([s.values.size for s, tail in zip(spectra, tails, strict=True) if tail.size])
    tails = [tail for tail in tails if tail.size]
    exceedances = sum(tail.size for tail in tails)
    undecided = Decay("undecided", threshold, exceedances)
    if exceedances < MIN_EXCEEDANCES or len(tails) < MIN_LAYERS:
        return undecided
    exponential = _fitted([tail - threshold for tail in tails], orders, orders - threshold)
    # The logarithm of a Pareto variable is exponential.
    power = _fitted([np.log(tail / threshold) for tail in tails], orders, np.log(orders / threshold))
    if exponential is None or power is None:
        return undecided
    # The power law as a density of x, not of log x, has the Jacobian 1 / x.
    ratios = power.likelihoods - power.sums - power.weights * np.log(threshold) - exponential.likelihoods
    statistic, chance = _tested(ratios, power.weights, seed)
    nearer, law = ("power", power) if statistic > 0 else ("exponential", exponential)
    decided = (
        abs(statistic) > NORMAL
        and chance < DECAY_LEVEL
        and _tested(law.curvatures, np.ones_like(ratios), seed)[1] >= DECAY_LEVEL
    )
    return Decay(
        law=nearer if decided else "undecided",
        threshold=threshold,
        exceedances=exceedances,
        rate=exponential.rate,
        exponent=1 + power.rate,
        statistic=statistic,
    )


def tail_threshold(shapes: Sequence[tuple[int, int]]) -> float:
    """Location beyond which neither conjugate ensemble has eigenvalues; at least 2, the end of the circular ensemble.

    For every layer it is also at least the value that the largest eigenvalue of a Gaussian matrix of its shape exceeds
    once in a hundred (`largest_eigenvalues`); in simulations between none and 0.8 % exceed it.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q) of the layer matrices.

    Returns
    -------
    float
        A location on the `proper` scale.

    Raises
    ------
    SpectrumError
        There are no layers, or an extent is below 1.
    """
    return max(CIRCULAR_EDGE, float(largest_eigenvalues(shapes).max()))


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A truncated exponential law fitted to values of several layers, with each layer's contributions, float64 (L,).

    ``weights``: of the layers. ``sums``: to the weighted sum of values. ``likelihoods``: to the log-likelihood.
    ``curvatures``: to the score of a quadratic term in the log-density, orthogonalised to the score of the rate.
    """

    rate: float
    weights: NDArray[np.float64]
    sums: NDArray[np.float64]
    likelihoods: NDArray[np.float64]
    curvatures: NDArray[np.float64]


def _fitted(
    values: Sequence[NDArray[np.float64]], orders: NDArray[np.int64], ranges: NDArray[np.float64]
) -> _Fit | None:
    """Maximum weighted likelihood fit of an exponential law truncated to (0, ``ranges``]; None if there is no decay."""
    starts = np.cumsum([0, *(layer.size for layer in values[:-1])])
    pooled = np.concatenate(values)
    weights = np.array([layer.size for layer in values]) / orders
    sums, squares = np.add.reduceat(pooled, starts) / orders, np.add.reduceat(pooled**2, starts) / orders
    rate = _rate(weights, float(sums.sum()), ranges)
    if rate is None:
        return None
    first, second, third = _moments(rate, ranges)
    slope = weights @ (third - first * second) / (weights @ (second - first**2))
    return _Fit(
        rate=rate,
        weights=weights,
        sums=sums,
        likelihoods=weights * (np.log(rate) - np.log(-np.expm1(-rate * ranges))) - rate * sums,
        curvatures=squares - weights * second - slope * (sums - weights * first),
    )


def _rate(weights: NDArray[np.float64], total: float, ranges: NDArray[np.float64]) -> float | None:
    """The rate whose expected sum of values is ``total``, by Newton's method.

    The expected sum is convex in the rate, so Newton steps from the left, the uniform law, stay left of the root.
    """
    excess = float(weights @ ranges) / 2 - total
    rate = excess / float(weights @ ranges**2 / 12)
    if rate * ranges.max() < FLAT:
        return None
    for _ in range(STEPS):
        first, second, _ = _moments(rate, ranges)
        step = float((weights @ first - total) / (weights @ (second - first**2)))
        rate += step
        if abs(step) <= 1e-12 * rate:
            break
    return float(rate)


def _moments(
    rate: float, ranges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """First three moments, (L,) each, of exponential laws truncated to (0, ``ranges``]."""
    mean = 1 / rate
    beyond = np.exp(-rate * ranges) / -np.expm1(-rate * ranges)
    return (
        mean - ranges * beyond,
        2 * mean**2 - ranges * (ranges + 2 * mean) * beyond,
        6 * mean**3 - ranges * (ranges**2 + 3 * ranges * mean + 6 * mean**2) * beyond,
    )


def _tested(parts: NDArray[np.float64], weights: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Ratio of sum(parts) / sum(weights) to its standard error over layers, and its two-sided p-value.

    The p-value, for a true ratio of 0, comes from studentised ratios of networks of resampled layers. Returns 0 and 1
    if all layers are equal, so that there is no standard error.
    """
    # Sorted, so that the result does not depend on the order of layers in the network.
    order = np.lexsort((weights, parts))
    parts, weights = parts[order], weights[order]
    layers = parts.size
    ratio = parts.sum() / weights.sum()
    error = np.sqrt(np.sum((parts - ratio * weights) ** 2)) / weights.sum()
    if error <= ROUNDING * np.abs(parts).sum() / weights.sum():
        return 0.0, 1.0
    drawn = _resampled(layers, seed)
    columns = np.stack((parts, weights, parts**2, parts * weights, weights**2), axis=1)
    total, size, squared, mixed, sizes = (drawn @ columns).T
    ratios = total / size
    errors = np.sqrt(np.maximum(squared - 2 * ratios * mixed + ratios**2 * sizes, 0.0)) / size
    # Each tail separately: a few large values increase ratio and error together, which makes one tail thinner.
    studentised, observed = (ratios - ratio) * error, ratio * errors
    tails = (np.count_nonzero(studentised >= observed), np.count_nonzero(studentised <= observed))
    chance = 2 * (1 + min(tails)) / (1 + len(drawn))
    return float(ratio / error * np.sqrt((layers - 1) / layers)), float(chance)


@lru_cache(maxsize=32)
def _resampled(layers: int, seed: int) -> NDArray[np.float64]:
    """How often each layer is drawn with replacement, (RESAMPLES, layers)."""
    rng = np.random.default_rng([seed, layers])
    return rng.multinomial(layers, np.full(layers, 1 / layers), size=RESAMPLES).astype(np.float64)
