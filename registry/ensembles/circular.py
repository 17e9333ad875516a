"""Circular beta ensembles (COE, CUE, CSE: beta = 1, 2, 4), sampled without a matrix.

The eigenphases of the circular beta ensemble of order N are those of a CMV matrix with independent Verblunsky
coefficients alpha_0..alpha_{N-2}, of uniform phase and |alpha_k|^2 ~ Beta(1, beta (k + 1) / 2), closed by one uniform
phase eta (Killip & Nenciu 2004, math/0410034). They solve psi(theta) = 2 pi n + eta, where the Pruefer phase psi rises
by exactly 2 pi N around the circle (Killip & Stoiciu, math-ph/0608002). Counts in K bins therefore cost O(N K), and
bisection finds single phases.

With u_k = e^{i psi_k} and w_k = 1 - alpha_k u_k, psi = N theta - 2 sum_k arg w_k. The unit number u is computed from
the half-turned Szegő polynomial h = z^{-(k+1)/2} Phi*_k(z), z = e^{i theta}, as u = conj(h) / h. Its recurrence h <-
z^{-1/2} (h - alpha conj(h)) needs no division, and prod_k w_k is Phi*. Since |arg w_k| <= arcsin |alpha_k| < pi / 2,
factors whose bounds add up to less than pi share one arctangent: at least two factors, and more as alpha decreases.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_beta, check_numbers, check_rng, check_whole
from registry.ensembles.fluctuations import SPACING_RATIOS, mean_spacing_ratio, mixed_variance, number_variance
from registry.ensembles.haar import dense_phases, haar_unitary
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SPACING_RATIOS",
    "dense_phases",
    "haar_unitary",
    "mean_spacing_ratio",
    "mixed_variance",
    "number_variance",
    "sample_counts",
    "sample_phases",
]

TURN = 2 * pi
# Complex numbers per block, so that the three arrays of the recurrence stay in the second-level cache.
CACHED = 8192
# Verblunsky coefficients in memory at a time.
HELD = 1 << 20
# Bisection steps that reduce an interval of one turn to neighbouring floats.
HALVINGS = 54


def sample_counts(
    order: int, beta: float, edges: ArrayLike, rng: np.random.Generator, draws: int = 1
) -> NDArray[np.int64]:
    """Number of eigenphases per bin, for ``draws`` independent members of the circular beta ensemble.

    Parameters
    ----------
    order
        N >= 1, the number of distinct eigenphases. CSE (beta = 4) of order N stands for 2N x 2N matrices with their
        Kramers pairs collapsed.
    beta
        Dyson index, any positive number.
    edges
        (K + 1,) strictly increasing angles in radians within [0, 2 pi], K >= 1. Bin j is (edges[j], edges[j + 1]].
    rng
        Generator; each draw takes 2N - 1 uniform numbers, independent of the edges. One seed gives one sequence of
        matrices, and counts over different edges from equal generators are counts of the same matrices.
    draws
        Number of members, >= 1.

    Returns
    -------
    NDArray[np.int64]
        (draws, K). Rows sum to N over edges from 0 to 2 pi.

    Raises
    ------
    SpectrumError
        ``order`` or ``draws`` is below 1, ``beta`` is not positive, there are fewer than two edges, the edges are
        outside [0, 2 pi] or not increasing, or ``rng`` is not a generator.
    """
    order, beta, draws = check_whole(order, "order"), check_beta(beta), check_whole(draws, "draws")
    turns = _edge_turns(edges)
    check_rng(rng)
    counts = np.empty((draws, turns.size - 1), dtype=np.int64)
    for rows, alpha, eta in _verblunsky(order, beta, rng, draws, turns.size):
        counts[rows] = np.diff(_levels(alpha, eta, turns), axis=1)
    return counts


def sample_phases(order: int, beta: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Eigenphases of one member of the circular beta ensemble, by bisection of the Pruefer phase.

    Parameters
    ----------
    order, beta
        As in `sample_counts`, where a generator in the same state gives the same matrix.
    rng
        Generator; 2N - 1 uniform numbers are taken from it.

    Returns
    -------
    NDArray[np.float64]
        (order,), ascending, in (0, 2 pi]; O(N^2) operations, N numbers of memory.

    Raises
    ------
    SpectrumError
        ``order`` is below 1, ``beta`` is not positive, or ``rng`` is not a generator.
    """
    order, beta = check_whole(order, "order"), check_beta(beta)
    check_rng(rng)
    _, alpha, eta = next(_verblunsky(order, beta, rng, 1, order))
    return _bisect(alpha, eta, np.arange(order))


def _bisect(alpha: NDArray[np.complex128], eta: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Eigenphases with the indices ``ranks`` (from 0) of one matrix: where the count first exceeds the index."""
    first = _levels(alpha, eta, np.zeros(1))[0]
    low, high = np.zeros(ranks.size), np.ones(ranks.size)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = _levels(alpha, eta, middle)[0] - first > ranks
        np.copyto(high, middle, where=above)
        np.copyto(low, middle, where=~above)
    return np.sort(TURN * high)


def _edge_turns(edges: ArrayLike) -> NDArray[np.float64]:
    """Bin edges in turns, after checking them; 2 pi is exactly one turn."""
    angles = check_numbers(edges, "edges")
    if angles.ndim != 1 or angles.size < 2:
        raise SpectrumError(f"edges must be a list of at least two angles, not of shape {angles.shape}")
    outside = np.flatnonzero(~((angles >= 0) & (angles <= TURN)))
    if outside.size:
        raise SpectrumError(f"edges must lie within [0, 2 pi], not {angles[outside[0]]:g}")
    falls = np.flatnonzero(np.diff(angles) <= 0)
    if falls.size:
        i = int(falls[0])
        raise SpectrumError(f"edges must increase: {angles[i + 1]:g} follows {angles[i]:g}")
    return angles / TURN


def _verblunsky(
    order: int, beta: float, rng: np.random.Generator, draws: int, columns: int
) -> Iterator[tuple[slice, NDArray[np.complex128], NDArray[np.float64]]]:
    """Verblunsky coefficients (order - 1, D) and closing phases (D,) in turns, for blocks of D draws.

    |alpha_k|^2 ~ Beta(1, b), b = beta (k + 1) / 2, as 1 - (1 - U)^(1 / b): inverting the distribution takes one uniform
    number each, so that the draws do not depend on how they are blocked.
    """
    block = max(1, min(draws, CACHED // columns, HELD // order))
    power = 2 / np.arange(1, order) / beta
    for start in range(0, draws, block):
        rows = slice(start, min(start + block, draws))
        uniform = rng.random((rows.stop - start, 2 * order - 1))
        modulus = np.sqrt(-np.expm1(np.log1p(-uniform[:, : order - 1]) * power))
        alpha = modulus * np.exp(1j * TURN * uniform[:, order - 1 : -1])
        yield rows, np.ascontiguousarray(alpha.T), uniform[:, -1]


def _levels(alpha: NDArray[np.complex128], eta: NDArray[np.float64], turns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Floor of (psi(theta) - eta) / 2 pi, shape (D, K). Its differences count the eigenphases between locations."""
    whole, part = np.divmod((len(alpha) + 1) * turns, 1.0)
    # Whole turns are added separately from the fraction, so that the count around the circle is exactly N.
    return (whole + np.floor(part - _argument(alpha, turns % 1.0) / pi - eta[:, None])).astype(np.int64)


def _argument(alpha: NDArray[np.complex128], turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of arg w_k over k, continuous, in radians, (D, K): ``alpha`` is (N - 1, D), ``turns`` (K,) within [0, 1)."""
    back = np.exp(-1j * pi * turns)
    h = np.tile(back, (alpha.shape[1], 1))
    last, mirrored, total = h.copy(), np.empty_like(h), np.zeros(h.shape)
    for start, stop in _shared(alpha):
        for coefficient in alpha[start:stop, :, None]:
            np.conjugate(h, out=mirrored)
            np.multiply(mirrored, coefficient, out=mirrored)
            np.subtract(h, mirrored, out=h)
            np.multiply(h, back, out=h)
        turned = h * last.conj() * np.exp(1j * pi * (turns * (stop - start) % 2.0))
        total += np.arctan2(turned.imag, turned.real)
        np.divide(h, np.abs(h), out=last)
        h[...] = last
    return total


def _shared(alpha: NDArray[np.complex128]) -> Iterator[tuple[int, int]]:
    """Runs of k whose factors w_k turn by less than pi in total at any location. One arctangent serves each run."""
    if not len(alpha):
        return
    bounds = np.arcsin(np.minimum(np.abs(alpha).max(axis=1), 1.0))
    start, turned = 0, 0.0
    for k, bound in enumerate(bounds.tolist()):
        if turned + bound > 0.999 * pi and k - start > 0:
            yield start, k
            start, turned = k, 0.0
        turned += bound
    yield start, len(alpha)
