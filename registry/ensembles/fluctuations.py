"""Statistics of circular ensembles that depend on beta: variance of counts and repulsion of phases."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_finite, check_locations, check_numbers, check_whole
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["SPACING_RATIOS", "mean_spacing_ratio", "mixed_variance", "number_variance"]

SPACING_RATIOS = {0: 0.38629, 1: 0.5307, 2: 0.5996, 4: 0.6744}
"""Mean ratio of consecutive spacings for large orders, by beta (Atas et al. 2013, arXiv:1212.5611, table I).

0 is the Poisson process, 2 ln 2 - 1.
"""

# COE: N - K(n) falls as N^3 / 12 n^2, so that the terms beyond 64 N sum to less than 1 / (36 pi^2 64^3) < 2e-8.
COE_TERMS = 64


def number_variance(order: int, beta: int, arc: ArrayLike) -> NDArray[np.float64]:
    """Variance of the number of eigenphases in an arc, exact for finite order.

    Var = N f (1 - f) - 2 sum_{n >= 1} (N - K(n)) (sin(n theta / 2) / (pi n))^2, f = theta / 2 pi, with the form factor
    K(n) = E |Tr U^n|^2 of the CUE (Diaconis & Shahshahani 1994), COE and CSE (Haake et al. 1996). Within 2e-8 for the
    COE, whose series is infinite; to rounding error for the others.

    Parameters
    ----------
    order
        N >= 1, the number of distinct phases.
    beta
        1, 2 or 4.
    arc
        Angles theta in radians within [0, 2 pi], of any shape.

    Returns
    -------
    NDArray[np.float64]
        Variances, in the shape of ``arc``.

    Raises
    ------
    SpectrumError
        ``order`` is below 1, ``beta`` is not 1, 2 or 4, or an angle is outside [0, 2 pi].
    """
    order = check_whole(order, "order")
    missing = order - _form_factor(order, beta)
    theta = check_numbers(arc, "arcs")
    if not bool(np.all((theta >= 0) & (theta <= 2 * pi))):
        raise SpectrumError(f"arcs must lie within [0, 2 pi], not {theta[~((theta >= 0) & (theta <= 2 * pi))][0]:g}")
    n = np.arange(1, missing.size + 1)
    weight = 2 * missing / (pi * n) ** 2
    summed = [float(weight @ np.sin(n * (half % pi)) ** 2) for half in (theta / 2).ravel()]
    fraction = theta / (2 * pi)
    return np.asarray(np.maximum(order * fraction * (1 - fraction) - np.reshape(summed, theta.shape), 0.0))


def mixed_variance(orders: Sequence[int], beta: int, locations: ArrayLike) -> NDArray[np.float64]:
    """Variance of the mixed ensemble's cumulative F_c(x), x = theta / pi: L^-2 sum_l Var_l(pi x) / p_l^2.

    Its square root, times a normal quantile, is the half-width of a band about the expected F_c(x) = x / 2.

    Parameters
    ----------
    orders
        (L,) orders p_l of the layers, each >= 1.
    beta
        1, 2 or 4.
    locations
        (K,) increasing locations; from 2 on, where every phase is counted, the variance is 0.

    Returns
    -------
    NDArray[np.float64]
        (K,).

    Raises
    ------
    SpectrumError
        There are no orders, an order is below 1, ``beta`` is not 1, 2 or 4, or the locations are invalid.
    """
    if not len(orders):
        raise SpectrumError("no layers: the ensemble of a network without layers is undefined")
    arcs = np.minimum(pi * check_locations(locations), 2 * pi)
    distinct, layers = np.unique([check_whole(p, "order") for p in orders], return_counts=True)
    total = sum(
        (
            count * number_variance(int(p), beta, arcs) / float(p) ** 2
            for p, count in zip(distinct, layers, strict=True)
        ),
        np.zeros(arcs.size),
    )
    return np.asarray(total / len(orders) ** 2)


def mean_spacing_ratio(phases: ArrayLike) -> float:
    """Mean of min(s_i, s_{i+1}) / max(s_i, s_{i+1}) over consecutive spacings around the circle.

    Parameters
    ----------
    phases
        (N,) angles in radians, N >= 3, in any order.

    Returns
    -------
    float
        Within [0, 1]. `SPACING_RATIOS` has the values for large orders by beta.

    Raises
    ------
    SpectrumError
        There are fewer than three phases, or one is not finite.
    """
    angles = check_finite(phases, "phases")
    if angles.ndim != 1 or angles.size < 3:
        raise SpectrumError(f"spacing ratios need a list of at least three phases, not one of shape {angles.shape}")
    angles = np.sort(angles)
    gaps = np.diff(angles, append=angles[0] + 2 * pi)
    after = np.roll(gaps, -1)
    larger = np.maximum(gaps, after)
    # Two consecutive spacings of 0 (a threefold phase) have ratio 0: no repulsion.
    return float(np.mean(np.divide(np.minimum(gaps, after), larger, out=np.zeros_like(gaps), where=larger > 0)))


def _form_factor(order: int, beta: int) -> NDArray[np.float64]:
    """K(n) for n = 1, 2, ..., up to where it equals the order N, or for the COE up to the cut-off."""
    if beta == 2:
        return np.arange(1.0, order + 1)
    if beta == 4:
        n = np.arange(1.0, 2 * order)
        return np.asarray(n / 2 + n / 4 * np.cumsum(1 / (order + 0.5 - n)))
    if beta != 1:
        raise SpectrumError(f"the number variance is known in closed form for beta 1, 2 and 4, not {beta!r}")
    n = np.arange(1.0, COE_TERMS * order + 1)
    # Both sums, up to N and beyond it, are differences of one running sum of reciprocals.
    running = np.cumsum(1 / (n + (order - 1) / 2))
    rising = 2 * n[:order] - n[:order] * running[:order]
    return np.concatenate((rising, 2 * order - n[order:] * (running[order:] - running[:-order])))
