"""The Wishart ensemble on the `proper` scale: spectra of Gaussian matrices of given shapes.

For W of independent Gaussian entries, of shape (p, q), n = min(p, q), m = max(p, q), the n eigenvalues of W W^T that
are not structural zeros, divided by their mean, follow the Marchenko-Pastur law of aspect c = n / m on [(1 - sqrt c)^2,
(1 + sqrt c)^2] as n grows (Marchenko & Pastur 1967), for W and for its transpose.

Finite matrices are sampled without building them: W W^T is orthogonally similar to B B^T with B bidiagonal, chi_m,
chi_{m-1}, ..., chi_{m-n+1} on the diagonal, chi_{n-1}, ..., chi_1 below it (Dumitriu & Edelman 2002, math-ph/0206043,
beta = 1). The number of eigenvalues below a location is the number of negative pivots of B B^T - x (Sylvester's law of
inertia), which the stationary quotient-difference transform gives in O(n) (Dhillon & Parlett 2004).
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_locations, check_numbers, check_rng, check_shapes, check_whole
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "TRACY_WIDOM",
    "largest_eigenvalues",
    "largest_score",
    "marchenko_pastur_cumulative",
    "marchenko_pastur_density",
    "marchenko_pastur_edges",
    "sample_cumulative",
    "wishart_cumulative",
]

TRACY_WIDOM = {0.99: 2.0234, 0.999: 3.2724}
"""Quantiles of the Tracy-Widom law for real matrices, by level (Bejan 2005, table 1)."""

_TW_MEAN, _TW_SD = -1.2065335745820, 1.2680340580
# Mean and standard deviation of that law (Bornemann 2010, arXiv:0904.1581, table 10).

# Floats per block, so that the arrays of the recurrence stay in the second-level cache.
CACHED = 16384
# Added to each pivot: a pivot of 0 is then not negative, and its reciprocal stays finite.
SMALLEST_PIVOT = 1e-290


def marchenko_pastur_edges(aspect: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge (1 -+ sqrt c)^2 of the support.

    Parameters
    ----------
    aspect
        c = min(p, q) / max(p, q) in (0, 1], of any shape.

    Returns
    -------
    tuple of NDArray[np.float64]
        Both in the shape of ``aspect``.

    Raises
    ------
    SpectrumError
        An aspect is outside (0, 1].
    """
    c = check_numbers(aspect, "aspects")
    if not bool(np.all((c > 0) & (c <= 1))):
        raise SpectrumError(f"aspects min(p, q) / max(p, q) must lie in (0, 1], not {c[~((c > 0) & (c <= 1))][0]:g}")
    root = np.sqrt(c)
    return (1 - root) ** 2, (1 + root) ** 2


def marchenko_pastur_density(aspect: ArrayLike, locations: ArrayLike) -> NDArray[np.float64]:
    """Marchenko-Pastur density sqrt((b - x)(x - a)) / (2 pi c x) of mean 1, 0 off the support [a, b].

    Parameters
    ----------
    aspect
        c in (0, 1]; for c = 1 the density diverges at 0, as x^{-1/2}, and is given as 0 there.
    locations
        x, broadcast against ``aspect``.

    Returns
    -------
    NDArray[np.float64]
        Of the broadcast shape.

    Raises
    ------
    SpectrumError
        An aspect is outside (0, 1], or a location is NaN.
    """
    low, high = marchenko_pastur_edges(aspect)
    x = _numbers(locations)
    inside = (x > low) & (x < high)
    product = np.where(inside, (high - x) * (x - low), 0.0)
    return np.asarray(np.sqrt(product) / (2 * pi * np.asarray(aspect) * np.where(inside, x, 1.0)))


def marchenko_pastur_cumulative(aspect: ArrayLike, locations: ArrayLike) -> NDArray[np.float64]:
    """Marchenko-Pastur cumulative F(x) in closed form, the integral of `marchenko_pastur_density` up to x.

    2 pi c F(x) = sqrt((b - x)(x - a)) + (1 + c) A - (1 - c) B, where A = pi / 2 + arcsin((x - 1 - c) / (2 sqrt c)) and
    B = pi / 2 + arcsin(((1 + c) x - (1 - c)^2) / (2 sqrt c x)): the standard integral of sqrt(R) / x for a quadratic R.
    Parameters, shapes and errors are those of `marchenko_pastur_density`. The rounding error is about 1e-15 / c within
    the support and about 1e-8 at its edges.
    """
    low, high = marchenko_pastur_edges(aspect)
    c = np.asarray(aspect, dtype=np.float64)
    x = np.clip(_numbers(locations), low, high)
    spread = 2 * np.sqrt(c)
    rise = np.arcsin(np.clip((x - 1 - c) / spread, -1.0, 1.0)) + pi / 2
    # x = 0 is in the support only for c = 1, where the factor 1 - c of the last term is 0.
    positive = np.where(x > 0, x, 1.0)
    ratio = np.where(x > 0, ((1 + c) * x - (1 - c) ** 2) / (spread * positive), -1.0)
    fall = np.arcsin(np.clip(ratio, -1.0, 1.0)) + pi / 2
    root = np.sqrt(np.maximum((high - x) * (x - low), 0.0))
    return np.asarray(np.clip((root + (1 + c) * rise - (1 - c) * fall) / (2 * pi * c), 0.0, 1.0))


def wishart_cumulative(shapes: Sequence[tuple[int, int]], locations: ArrayLike) -> NDArray[np.float64]:
    """Expected cumulative F_W(x) of the conjugate Wishart ensemble: the mean of its layers' Marchenko-Pastur laws.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q) of the layer matrices.
    locations
        (K,) increasing locations on the `proper` scale.

    Returns
    -------
    NDArray[np.float64]
        (K,).

    Raises
    ------
    SpectrumError
        There are no layers, an extent is below 1, or the locations are invalid.
    """
    sizes = np.array(check_shapes(shapes), dtype=np.float64)
    aspects, layers = np.unique(sizes.min(axis=1) / sizes.max(axis=1), return_counts=True)
    values = marchenko_pastur_cumulative(aspects[:, None], check_locations(locations))
    return np.asarray(layers @ values / len(sizes))


def largest_eigenvalues(shapes: Sequence[tuple[int, int]], level: float = 0.99) -> NDArray[np.float64]:
    """Bound that the largest eigenvalue of a Gaussian matrix stays below with probability ``level``, by shape.

    With n <= m the extents, (mu + s sigma) / m, mu = (sqrt(m - 1) + sqrt n)^2 and sigma = sqrt mu (1 / sqrt(m - 1) + 1
    / sqrt n)^(1/3) (Johnstone 2001), s the Tracy-Widom quantile; at most n, which no eigenvalue exceeds. In simulations
    fewer exceed it, because dividing by the matrix's own mean removes some fluctuation.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q) of the layer matrices.
    level
        One of `TRACY_WIDOM`: 0.99, 0.999.

    Returns
    -------
    NDArray[np.float64]
        (L,) locations on the `proper` scale.

    Raises
    ------
    SpectrumError
        There are no layers, an extent is below 1, or the level is not in `TRACY_WIDOM`.
    """
    quantile = TRACY_WIDOM.get(level)
    if quantile is None:
        raise SpectrumError(f"level must be one of {', '.join(map(str, TRACY_WIDOM))}, not {level}")
    small, large = np.sort(np.array(check_shapes(shapes), dtype=np.float64), axis=1).T
    root, other = np.sqrt(small), np.sqrt(np.maximum(large - 1, 1.0))
    largest = ((root + other) ** 2 + quantile * (root + other) * np.cbrt(1 / root + 1 / other)) / large
    return np.asarray(np.minimum(largest, small))


def largest_score(p: int, q: int, largest: float) -> float:
    """How far a largest eigenvalue is above that of random entries, in standard deviations.

    With mu and sigma of `largest_eigenvalues`, s = (m largest - mu) / sigma follows the Tracy-Widom law for real
    matrices, whatever the law of the independent entries (Johnstone 2001; Soshnikov 2002); the score is (s - mean) /
    standard deviation of that law.

    Parameters
    ----------
    p, q
        Shape of the matrix, each >= 1.
    largest
        Its largest eigenvalue on the `proper` scale.

    Returns
    -------
    float

    Raises
    ------
    SpectrumError
        An extent is below 1.
    """
    n, m = sorted((check_whole(p, "p"), check_whole(q, "q")))
    root, other = np.sqrt(n), np.sqrt(max(m - 1, 1))
    spread = (root + other) * np.cbrt(1 / root + 1 / other)
    return float(((m * largest - (root + other) ** 2) / spread - _TW_MEAN) / _TW_SD)


def sample_cumulative(
    p: int, q: int, locations: ArrayLike, rng: np.random.Generator, draws: int = 1
) -> NDArray[np.float64]:
    """Cumulatives of sampled Gaussian matrices: the fraction of eigenvalues below each location.

    Eigenvalues are counted without building a matrix.

    Parameters
    ----------
    p, q
        Shape of the matrix, each >= 1; (q, p) gives the same.
    locations
        (K,) increasing locations in units of the mean eigenvalue of each draw.
    rng
        Generator; the numbers taken from it do not depend on the locations.
    draws
        Number of matrices, >= 1.

    Returns
    -------
    NDArray[np.float64]
        (draws, K), multiples of 1 / min(p, q); O(min(p, q) K) operations per draw.

    Raises
    ------
    SpectrumError
        ``p``, ``q`` or ``draws`` is below 1, the locations are invalid, or ``rng`` is not a generator.
    """
    n, m = sorted((check_whole(p, "p"), check_whole(q, "q")))
    x = check_locations(locations)
    check_rng(rng)
    diagonal, below = _chi_squares(n, m, rng, check_whole(draws, "draws"))
    means = (diagonal.sum(axis=1) + below.sum(axis=1)) / n
    counts = np.empty((draws, x.size), dtype=np.int64)
    block = max(1, CACHED // x.size)
    for start in range(0, draws, block):
        rows = slice(start, start + block)
        counts[rows] = _counts_below(diagonal[rows], below[rows], means[rows, None] * x)
    return counts / n


def _numbers(locations: ArrayLike) -> NDArray[np.float64]:
    """Locations in any order, infinite values included. Raises ``SpectrumError`` for NaN."""
    x = check_numbers(locations, "locations")
    if bool(np.isnan(x).any()):
        raise SpectrumError("locations must be numbers, not nan")
    return x


def _chi_squares(
    n: int, m: int, rng: np.random.Generator, draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squares of the entries of B: on the diagonal (draws, n), below it (draws, n - 1)."""
    freedom = np.concatenate((np.arange(m, m - n, -1.0), np.arange(n - 1, 0, -1.0)))
    squares = rng.chisquare(freedom, size=(draws, 2 * n - 1))
    return squares[:, :n], squares[:, n:]


def _counts_below(
    diagonal: NDArray[np.float64], below: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Eigenvalues of B B^T below ``x`` (D, K), from the squares of B's entries (D, n) and (D, n - 1).

    Pivots d_i = q_i + t_i of B B^T - x, t_1 = -x, t_{i+1} = t_i e_i / d_i - x. A pivot of zero, which hardly ever comes
    up, leaves NaN in all that follow but for the next; then all is counted again with `SMALLEST_PIVOT` added.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        counts, last = _counted(diagonal, below, x, 0.0)
        if np.isnan(last).any():
            counts, _ = _counted(diagonal, below, x, SMALLEST_PIVOT)
    return counts


def _counted(
    diagonal: NDArray[np.float64], below: NDArray[np.float64], x: NDArray[np.float64], smallest: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of negative pivots, and the last pivot."""
    shifted = -x
    pivot, ratio = np.empty_like(x), np.empty_like(x)
    negative, few = np.empty(x.shape, dtype=bool), np.zeros(x.shape, dtype=np.int8)
    counts = np.zeros(x.shape, dtype=np.int64)
    steps = np.ascontiguousarray(diagonal.T)[:, :, None]
    couplings = np.ascontiguousarray(below.T)[:, :, None]
    for i, square in enumerate(steps):
        np.add(shifted, square, out=pivot)
        if smallest:
            np.add(pivot, smallest, out=pivot)
        np.less(pivot, 0.0, out=negative)
        np.add(few, negative.view(np.int8), out=few)
        if i % 127 == 126:
            # Counted in int8, which takes an eighth of the memory traffic; added up before it overflows.
            counts += few
            few[...] = 0
        if i < len(couplings):
            np.divide(couplings[i], pivot, out=ratio)
            np.multiply(shifted, ratio, out=shifted)
            np.subtract(shifted, x, out=shifted)
    return counts + few, pivot
