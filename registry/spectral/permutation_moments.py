"""Exact means and variances of statistics of a matrix over all permutations of its entries.

A statistic here is a sum of products of two or four different entries, over all pairs of one group (a row, a column, a
kernel) or all rectangles. Under a random permutation the entries are a sample without replacement, so that the
expectation of a product of k different entries to powers l_1 .. l_k is the augmented monomial symmetric function of
these powers, divided by N (N - 1) .. (N - k + 1) (Kendall and Stuart, "The Advanced Theory of Statistics", volume 1,
chapter 12). It is a polynomial in the power sums of the entries. A second moment is a sum over pairs of products, which
are sorted by how many entries they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Moments", "alignment_moments", "group_moments", "normal_scale", "rectangle_moments"]


class Moments(NamedTuple):
    """Mean and variance over all permutations, arrays of one shape."""

    mean: Array
    variance: Array

    def z(self, statistic: Array, scale: Array) -> Array:
        """Standard deviations from the mean; NaN where the variance is rounding beside ``scale``, a mean square."""
        with np.errstate(all="ignore"):
            known = self.variance > 1e-10 * scale
            return np.where(known, (statistic - self.mean) / np.sqrt(np.where(known, self.variance, 1.0)), np.nan)


def _expectations(sums: Array) -> Callable[[tuple[int, ...]], Array]:
    """Expected products of different entries, by their powers; ``sums[k]``: power sums, ``sums[0]`` the numbers."""
    found: dict[tuple[int, ...], Array] = {(): np.ones(sums.shape[1:])}

    def monomial(powers: tuple[int, ...]) -> Array:
        if powers not in found:
            first, rest = powers[0], powers[1:]
            value = sums[first] * monomial(rest)
            for at, power in enumerate(rest):
                value = value - monomial(tuple(sorted((*rest[:at], power + first, *rest[at + 1 :]))))
            found[powers] = value
        return found[powers]

    def expected(powers: tuple[int, ...]) -> Array:
        ways = np.ones(sums.shape[1:])
        for taken in range(len(powers)):
            ways = ways * (sums[0] - taken)
        return np.where(ways > 0, monomial(powers) / np.where(ways > 0, ways, 1.0), 0.0)

    return expected


def group_moments(sums: Array, groups: Array, size: Array) -> Moments:
    """Of the sum over ordered pairs of different entries in one group: sum_g (sum of g)^2 - sum of squares.

    Parameters
    ----------
    sums
        (5, ...) power sums of the entries, of order 0 (their number) to 4.
    groups, size
        Number of groups, and of the entries of each; their product is ``sums[0]``.

    Returns
    -------
    Moments
    """
    expected = _expectations(sums)
    pairs = groups * size * (size - 1)
    one = pairs * 4 * (size - 2)  # ordered pairs of pairs with one entry in common
    mean = pairs * expected((1, 1))
    square = 2 * pairs * expected((2, 2)) + one * expected((1, 1, 2))
    square = square + (pairs * pairs - 2 * pairs - one) * expected((1, 1, 1, 1))
    return Moments(mean, square - mean * mean)


def rectangle_moments(sums: Array, p: Array, q: Array) -> Moments:
    """Of the sum over i < j, k < l of w_ik w_il w_jk w_jl.

    Parameters
    ----------
    sums
        (9, ...) power sums of the entries, of order 0 to 8.
    p, q
        Extents of the matrices; p q is ``sums[0]``.

    Returns
    -------
    Moments
        Two rectangles share 4, 2, 1 or no entries: as many as common rows times common columns.
    """
    expected = _expectations(sums)

    def sharing(n: Array) -> tuple[Array, Array, Array]:
        return (n - 2) * (n - 3) / 2, 2 * (n - 2), np.ones_like(n)  # pairs that share none, one, both with a given one

    rows, columns = sharing(p), sharing(q)
    counts = {0: np.zeros_like(p), 1: np.zeros_like(p), 2: np.zeros_like(p), 4: np.zeros_like(p)}
    for common_rows, some in enumerate(rows):
        for common_columns, others in enumerate(columns):
            counts[common_rows * common_columns] = counts[common_rows * common_columns] + some * others
    powers = {0: (1,) * 8, 1: (*(1,) * 6, 2), 2: (1, 1, 1, 1, 2, 2), 4: (2, 2, 2, 2)}
    number = p * (p - 1) * q * (q - 1) / 4
    mean = number * expected((1, 1, 1, 1))
    square = number * sum(count * expected(powers[shared]) for shared, count in counts.items())
    return Moments(mean, square - mean * mean)


def alignment_moments(a: Array, b: Array) -> tuple[float, float, float]:
    """The sum over i != j of a_ij b_ij, and its mean and variance when rows and columns of b are permuted together.

    Mantel, "The detection of disease clustering and a generalized regression approach", Cancer Research 27 (1967).

    Parameters
    ----------
    a, b
        (n, n) symmetric, n >= 4; their diagonals do not count.

    Returns
    -------
    tuple of float
    """
    n = len(a)

    def totals(matrix: Array) -> tuple[float, float, float]:
        diagonal = np.diagonal(matrix)
        rows = matrix.sum(axis=1) - diagonal
        total, pairs = float(rows.sum()), float(np.vdot(matrix, matrix) - diagonal @ diagonal)
        chains = float(rows @ rows) - pairs  # of two pairs with one index in common
        return total, 2 * pairs, 4 * chains

    (total_a, same_a, one_a), (total_b, same_b, one_b) = totals(a), totals(b)
    mean = total_a * total_b / (n * (n - 1))
    square = same_a * same_b / (2 * n * (n - 1)) + one_a * one_b / (4 * n * (n - 1) * (n - 2))
    none_a, none_b = total_a**2 - same_a - one_a, total_b**2 - same_b - one_b
    square += none_a * none_b / (n * (n - 1) * (n - 2) * (n - 3))
    statistic = float(np.vdot(a, b) - np.diagonal(a) @ np.diagonal(b))
    return statistic, mean, square - mean**2


def normal_scale(z: Array, skewness: Array) -> Array:
    """Z of a gamma distribution of this skewness as that of a normal one (Wilson and Hilferty 1931).

    Sums of squares of few numbers are skewed to the right: 5 standard deviations are reached as often as 3.5 of a
    normal one. Where there is no such value on the left the smallest possible is taken.
    """
    with np.errstate(all="ignore"):
        third = skewness / 6
        bent = (np.cbrt(np.maximum(1 + 3 * third * z, 0.0)) - 1) / third + third
        return np.where(skewness > 1e-6, bent, z)
