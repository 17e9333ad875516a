"""Statistics of a matrix, and their exact means and variances over all permutations of its entries.

A statistic here is a sum of products of two or four different entries, over all pairs of one group (a row, a column, a
kernel) or all rectangles. Under a random permutation the entries are a sample without replacement, so that the
expectation of a product of k different entries to powers l_1 .. l_k is the augmented monomial symmetric function of
these powers, divided by N (N - 1) .. (N - k + 1) (Kendall and Stuart, "The Advanced Theory of Statistics", volume 1,
chapter 12). It is a polynomial in the power sums of the entries. A second moment is a sum over pairs of products, which
are sorted by how many entries they share. `matrix_sums` gives in one pass what the statistics and moments are made of,
and what an audit counts.
"""

from __future__ import annotations

from functools import cache
from math import frexp, inf, isfinite, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = [
    "LARGEST_KERNEL",
    "KernelSums",
    "MatrixSums",
    "Moments",
    "alignment_moments",
    "group_moments",
    "matrix_sums",
    "normal_scale",
    "rectangle_moments",
]

_CHUNK = 1 << 15  # elements at a time: the chunk and its powers stay in a core's second cache
# Elements of a chunk of which the fifth to eighth powers and the kernels are summed, and the number of such chunks of a
# layer of more than 2^18. These powers are in the variances alone, where they are lost beside the lower ones.
_SAMPLED = 1 << 12
_SAMPLES = 4
LARGEST_KERNEL = 64
"""Positions of the largest kernel whose kernels are compared; beyond, the products cost more than they tell."""
_USUAL = 10  # binary exponents of weights whose eighth powers are in the range of float32
_LEAST, _MOST = 2.0 ** (-2 * _USUAL), 2.0 ** (2 * _USUAL - 2)  # mean squares well within
_ONES: dict[type, NDArray[Any]] = {dtype: np.ones(_CHUNK, dtype) for dtype in (np.float32, np.float64)}
_NONE = np.zeros((2, 0, 0))


class KernelSums(NamedTuple):
    """Sums over ``number`` kernels of a convolution as rows of ``size`` positions, of weights w divided by 2^exponent.

    Kernels of zero rows of W are left out. With K = W^T W, (size, size), and K2 that of squared weights: ``trace`` is
    tr(K K), ``total`` the sum of K, ``square_total`` that of K2, ``positions`` the sum of K_aa^2. ``powers``: of w^0 to
    w^8, which ``trace`` and its like are taken from.
    """

    number: int
    size: int
    trace: float
    total: float
    square_total: float
    positions: float
    powers: Array


class MatrixSums(NamedTuple):
    """Sums over the entries w of a matrix W (p, q), divided by 2^exponent before.

    ``powers``: (9,) of w^0 to w^8, of a large W those beyond w^4 from a part of its rows. ``rows``, ``columns``: how
    many have a weight other than zero. With u, a the sums and squared norms of rows, v, b those of columns: ``uu``,
    ``aa``, ``au``, ``vv``, ``bb``, ``bv`` are their products, and ``vw`` is v W^T u. ``kernels``: None where W is no
    convolution of more than one input, or has a column of zeros. ``zero_rows``; ``constant_rows`` of one other value;
    ``saturated``: elements as large as the stored dtype allows. ``extreme``: the largest w^2.
    """

    exponent: int
    powers: Array
    rows: int
    columns: int
    uu: float
    aa: float
    au: float
    vv: float
    bb: float
    bv: float
    vw: float
    kernels: KernelSums | None
    zero_rows: int
    constant_rows: int
    saturated: int
    extreme: float


def matrix_sums(W: NDArray[np.floating], positions: int = 1, largest: float = inf) -> MatrixSums:
    """The sums of a layer matrix; O(p q) time, memory of a few rows.

    Sums within a chunk of rows are in float32, those over chunks in float64: their error, some 1e-7, is far below the
    scatter that they are compared with. Where single weights are so large that float32 does not hold their eighth
    powers, or their mean is most of them, which leaves nothing but rounding of what is about it, all is in float64.

    Parameters
    ----------
    W
        (p, q) finite weights, C-contiguous.
    positions
        Positions of the kernel, which divide q; 1 of a linear layer.
    largest
        The largest finite value of the stored dtype, where elements that reach it are to be counted.

    Returns
    -------
    MatrixSums
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = _sums(W, positions, largest, np.float32)
        number, first, second = found.powers[:3].tolist()
        exact = isfinite(found.powers[8]) and first * first <= 0.5 * number * second
        return found if exact else _sums(W, positions, largest, np.float64)


def _sums(W: NDArray[np.floating], positions: int, largest: float, dtype: type[np.float32 | np.float64]) -> MatrixSums:
    p, q = W.shape
    step = min(p, max(1, _CHUNK // q))
    exponent = _exponent(W)
    ones = _ONES[dtype] if max(p, q) <= _CHUNK else np.ones(max(p, q), dtype)
    of_rows = ones[:q]
    rows, columns = np.ones((3, p)), np.zeros((3, q))
    of_kernels = 1 < positions <= LARGEST_KERNEL and positions < q
    products = np.zeros((2, positions, positions)) if of_kernels else _NONE
    third = fourth = some_first = some_second = some_third = some_fourth = fifth = sixth = seventh = eighth = 0.0
    number = saturated = sampled = 0
    extreme = 0.0
    # Buffers are used again: new memory from the system costs more than the arithmetic.
    take = step if p <= step and W.size <= 2 * _SAMPLED else min(step, max(1, _SAMPLED // q))
    held, higher = np.empty((2, step * q), dtype), np.empty((2, take * q), dtype)
    stride = step * max(1, -(-p // step) // _SAMPLES) if W.size > 1 << 18 else p
    plain = exponent == 0 and W.dtype == dtype
    for start in range(0, p, step):
        part = W[start : start + step]
        stop, size = start + len(part), part.size
        x2 = held[1, :size].reshape(part.shape)
        if plain:
            x = part
        else:
            x = held[0, :size].reshape(part.shape)
            np.multiply(part, 2.0**-exponent, out=x, dtype=np.float64, casting="same_kind")
        np.multiply(x, x, out=x2)
        # For small layers `dot` takes half the time of `@`.
        u, a = x.dot(of_rows), x2.dot(of_rows)
        rows[0, start:stop], rows[1, start:stop] = u, a
        of_columns = ones[: len(part)]
        columns += (of_columns.dot(x), of_columns.dot(x2), u.dot(x))
        flat, flat2 = x.reshape(-1), x2.reshape(-1)
        extreme = max(extreme, float(flat2.max()))
        in_third, in_fourth = float(flat.dot(flat2)), float(flat2.dot(flat2))
        third, fourth = third + in_third, fourth + in_fourth
        if start % stride == 0:
            some, some2 = flat[: take * q], flat2[: take * q]
            some3, some4 = np.multiply(some, some2, out=higher[0]), np.multiply(some2, some2, out=higher[1])
            if some.size < size:
                in_third, in_fourth = float(some.dot(some2)), float(some2.dot(some2))
            some_third, some_fourth = some_third + in_third, some_fourth + in_fourth
            fifth, sixth = fifth + float(some2.dot(some3)), sixth + float(some3.dot(some3))
            seventh, eighth = seventh + float(some3.dot(some4)), eighth + float(some4.dot(some4))
            number += some.size
            if of_kernels:
                some_first += float(u[:take].dot(of_columns[:take]))
                some_second += float(a[:take].dot(of_columns[:take]))
                sampled += int(np.count_nonzero(a[:take]))
                by_kernel, by_kernel2 = some.reshape(-1, positions), some2.reshape(-1, positions)
                products[0] += by_kernel.T.dot(by_kernel)
                products[1] += by_kernel2.T.dot(by_kernel2)
        if largest < inf:
            saturated += int(np.count_nonzero(np.abs(part) >= largest))
    (uu, au, first), (_, aa, second), _ = rows.dot(rows.T).tolist()
    (vv, bv, vw), (_, bb, _), _ = columns.dot(columns.T).tolist()
    high_powers = (fifth, sixth, seventh, eighth)
    used, filled = int(np.count_nonzero(rows[1])), int(np.count_nonzero(columns[1]))
    kernels = None
    if of_kernels and filled == q and sampled:
        sums = (sampled * q, some_first, some_second, some_third, some_fourth, *high_powers)
        kernels = _kernel_sums(products, sums)
    more = W.size / number
    return MatrixSums(
        exponent=exponent,
        powers=np.array((W.size, first, second, third, fourth, *(more * power for power in high_powers))),
        rows=used,
        columns=filled,
        uu=uu,
        aa=aa,
        au=au,
        vv=vv,
        bb=bb,
        bv=bv,
        vw=vw,
        kernels=kernels,
        # Squares may underflow.
        zero_rows=0 if used == p else sum(not W[row].any() for row in np.flatnonzero(rows[1] == 0)),
        constant_rows=_constant_rows(W, rows[0], rows[1]),
        saturated=saturated,
        extreme=extreme,
    )


def _kernel_sums(products: Array, powers: Sequence[float]) -> KernelSums:
    size = products.shape[1]
    flattened = products.reshape(2, -1)
    total, square_total = flattened.dot(np.ones(size * size)).tolist()
    flat = flattened[0]
    diagonal = flat[:: size + 1]
    return KernelSums(
        number=int(powers[0]) // size,
        size=size,
        trace=float(flat @ flat),
        total=total,
        square_total=square_total,
        positions=float(diagonal @ diagonal),
        powers=np.array(powers),
    )


def _constant_rows(W: NDArray[np.floating], sums: Array, squares: Array) -> int:
    alike = (sums * sums >= (1 - 1e-4) * W.shape[1] * squares).nonzero()[0].tolist()  # by rounding; then exactly
    return sum(bool(W[row, 0] != 0 and (W[row] == W[row, 0]).all()) for row in alike)


def _exponent(W: NDArray[np.floating]) -> int:
    """Binary exponent of a usual weight where its eighth power is out of range, else 0."""
    some = W[0]
    if _LEAST < float(some @ some) / some.size < _MOST:
        return 0
    if not some.any():
        some = W.reshape(-1)
    some = some.astype(np.float64)
    size = float(some @ some) / some.size
    exponent = frexp(sqrt(size))[1] if 0 < size < inf else 0
    return max(-1000, exponent) if abs(exponent) > _USUAL else 0


class Moments(NamedTuple):
    """Mean and variance over all permutations, arrays of one shape."""

    mean: Array
    variance: Array

    def z(self, statistic: Array, scale: Array) -> Array:
        """Standard deviations from the mean; NaN where the variance is rounding beside ``scale``, a mean square."""
        with np.errstate(all="ignore"):
            known = self.variance > 1e-10 * scale
            return np.where(known, (statistic - self.mean) / np.sqrt(np.where(known, self.variance, 1.0)), np.nan)


def _partitions(number: int, largest: int) -> Iterator[tuple[int, ...]]:
    """The ways to write a number as a sum of numbers up to ``largest``, descending."""
    if number == 0:
        yield ()
    for first in range(min(number, largest), 0, -1):
        yield from ((first, *rest) for rest in _partitions(number - first, first))


@cache
def _augmented(powers: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """The augmented monomial function of these powers as a sum of products of power sums: orders and coefficients.

    A product of one power sum and a monomial function is the sum of those in which the power is that of a further
    entry, and of those in which it is added to one of the powers.
    """
    if not powers:
        return {(): 1}
    first, rest = powers[0], powers[1:]
    found: dict[tuple[int, ...], int] = {}
    for orders, times in _augmented(rest).items():
        product = tuple(sorted((first, *orders), reverse=True))
        found[product] = found.get(product, 0) + times
    for at, power in enumerate(rest):
        for orders, times in _augmented(tuple(sorted((*rest[:at], power + first, *rest[at + 1 :])))).items():
            found[orders] = found.get(orders, 0) - times
    return found


class _Expectations:
    """Expected products of different entries, one row for each of some sets of powers with one sum."""

    def __init__(self, *powers: tuple[int, ...]) -> None:
        self._most = degree = sum(powers[0])
        products = list(_partitions(degree, degree))
        # Padded by power sums of order 0, in whose place ones are put.
        self._orders = np.array([(*orders, *(0,) * (degree - len(orders))) for orders in products]).T
        augmented = [_augmented(each) for each in powers]
        self._times = np.array([[each.get(orders, 0) for orders in products] for each in augmented], float)
        self._taken = [len(each) for each in powers]

    def __call__(self, sums: Array) -> Array:
        """Of power sums (orders, L), rows of (L,); ``sums[0]``: the numbers of entries."""
        ones = np.ones((1, *sums.shape[1:]))
        terms = np.concatenate((ones, sums[1 : self._most + 1]))[self._orders].prod(axis=0)
        ways = np.cumprod(sums[0] - np.arange(self._most).reshape(-1, *[1] * (sums.ndim - 1)), axis=0)
        ways = ways[[taken - 1 for taken in self._taken]]
        found = (self._times @ terms.reshape(len(terms), -1)).reshape(ways.shape)
        return np.where(ways > 0, found / np.where(ways > 0, ways, 1.0), 0.0)


_TWO = _Expectations((1, 1))
_FOUR = _Expectations((1, 1, 1, 1), (1, 1, 2), (2, 2))
_EIGHT = _Expectations((1,) * 8, (*(1,) * 6, 2), (1, 1, 1, 1, 2, 2), (2, 2, 2, 2))  # of 0, 1, 2, 4 entries in common


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
    pairs = groups * size * (size - 1)
    one = pairs * 4 * (size - 2)  # ordered pairs of pairs with one entry in common
    mean = pairs * _TWO(sums)[0]
    of_none, of_one, of_two = _FOUR(sums)
    square = 2 * pairs * of_two + one * of_one + (pairs * pairs - 2 * pairs - one) * of_none
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
    none, one = (p - 2) * (p - 3) / 2, 2 * (p - 2)  # pairs of rows that share none, one, both (1) with a given one
    others, other = (q - 2) * (q - 3) / 2, 2 * (q - 2)
    counts = (none * (others + other + 1) + others * (one + 1), one * other, one + other, 1.0)
    number = p * (p - 1) * q * (q - 1) / 4
    mean = number * _FOUR(sums)[0]
    square = number * sum(count * expected for count, expected in zip(counts, _EIGHT(sums), strict=True))
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
