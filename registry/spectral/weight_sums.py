"""One pass over a layer's weights: power sums, norms of rows, columns and kernels, and what an audit counts."""

from __future__ import annotations

from math import frexp, inf, isfinite, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["LARGEST_KERNEL", "KernelSums", "MatrixSums", "matrix_sums"]

_CHUNK = 1 << 15  # elements at a time: the chunk and its powers stay in a core's second cache
# Elements of a chunk of which the fifth to eighth powers and the kernels are summed, and the number of such chunks of a
# layer of more than 2^18. These powers are in the variances alone, where they are lost beside the lower ones.
_SAMPLED = 1 << 12
_SAMPLES = 4
LARGEST_KERNEL = 64
"""Positions of the largest kernel whose kernels are compared; beyond, the products cost more than they tell."""
_USUAL = 10  # binary exponents of weights whose eighth powers are in the range of float32


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
    powers, all is in float64.

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
        return found if isfinite(found.powers[8]) else _sums(W, positions, largest, np.float64)


def _sums(W: NDArray[np.floating], positions: int, largest: float, dtype: type[np.float32 | np.float64]) -> MatrixSums:
    p, q = W.shape
    step = min(p, max(1, _CHUNK // q))
    exponent = _exponent(W)
    scale = 2.0**-exponent
    powers, some_powers = np.zeros(9), np.zeros(9)
    rows = np.empty((2, p), dtype)
    columns, column_squares = np.zeros((2, q)), np.zeros(q)
    ones, both = np.ones(q, dtype), np.ones((2, step), dtype)
    of_kernels = 1 < positions <= LARGEST_KERNEL and positions < q
    products, square_products = np.zeros((2, positions, positions)) if of_kernels else (np.empty(0), np.empty(0))
    saturated = sampled = 0
    extreme = 0.0
    # Buffers are used again: new memory from the system costs more than the arithmetic.
    held = np.empty((2, step, q), dtype)
    take = step if p <= step and W.size <= 2 * _SAMPLED else min(step, max(1, _SAMPLED // q))
    stride = step * max(1, -(-p // step) // _SAMPLES) if W.size > 1 << 18 else p
    plain = exponent == 0 and W.dtype == dtype
    for start in range(0, p, step):
        part = W[start : start + step]
        buffer, x2 = held[:, : len(part)]
        here = slice(start, start + len(part))
        x = part if plain else np.multiply(part, scale, out=buffer, dtype=np.float64, casting="same_kind")
        np.multiply(x, x, out=x2)
        np.matmul(x, ones, out=rows[0, here])
        np.matmul(x2, ones, out=rows[1, here])
        both[1, : len(part)] = rows[0, here]
        columns += both[:, : len(part)] @ x
        column_squares += both[0, : len(part)] @ x2
        extreme = max(extreme, float(x2.max()))
        flat, flat2 = x.reshape(-1), x2.reshape(-1)
        powers[3:5] += flat @ flat2, flat2 @ flat2
        if start % stride == 0:
            chosen = slice(start, start + take)
            some, some2 = x[:take].reshape(-1), x2[:take].reshape(-1)
            some3, some4 = some * some2, some2 * some2
            of_rows = rows[:, chosen].sum(axis=1, dtype=np.float64) if of_kernels else (0.0, 0.0)
            some_powers += (
                some.size, *of_rows, some @ some2, some2 @ some2,
                some2 @ some3, some3 @ some3, some3 @ some4, some4 @ some4,
            )  # fmt: skip
            sampled += int(np.count_nonzero(rows[1, chosen]))
            if of_kernels:
                for total, each in ((products, some), (square_products, some2)):
                    by_kernel = each.reshape(-1, positions)
                    total += by_kernel.T @ by_kernel
        if largest < inf:
            saturated += int(np.count_nonzero(np.abs(part) >= largest))
    u, a = rows.astype(np.float64)
    v, weighted = columns
    powers[:3] = W.size, u.sum(), a.sum()
    powers[5:] = some_powers[5:] * (W.size / some_powers[0])
    used, filled = int(np.count_nonzero(a)), int(np.count_nonzero(column_squares))
    kernels = None
    if of_kernels and filled == q and sampled:
        some_powers[0] = sampled * q
        kernels = _kernel_sums(products, square_products, some_powers)
    return MatrixSums(
        exponent=exponent,
        powers=powers,
        rows=used,
        columns=filled,
        uu=float(u @ u),
        aa=float(a @ a),
        au=float(a @ u),
        vv=float(v @ v),
        bb=float(column_squares @ column_squares),
        bv=float(column_squares @ v),
        vw=float(v @ weighted),
        kernels=kernels,
        zero_rows=sum(not W[row].any() for row in np.flatnonzero(a == 0)),  # squares may underflow
        constant_rows=_constant_rows(W, u, a),
        saturated=saturated,
        extreme=extreme,
    )


def _kernel_sums(products: Array, square_products: Array, powers: Array) -> KernelSums:
    size = len(products)
    diagonal = np.diagonal(products)
    return KernelSums(
        number=int(powers[0]) // size,
        size=size,
        trace=float(np.vdot(products, products)),
        total=float(products.sum()),
        square_total=float(square_products.sum()),
        positions=float(diagonal @ diagonal),
        powers=powers,
    )


def _constant_rows(W: NDArray[np.floating], sums: Array, squares: Array) -> int:
    q = W.shape[1]
    alike = np.flatnonzero(q * squares - sums * sums <= 1e-4 * q * squares)  # by rounding; then exactly
    return sum(bool(W[row, 0] != 0 and (W[row] == W[row, 0]).all()) for row in alike)


def _exponent(W: NDArray[np.floating]) -> int:
    """Binary exponent of a usual weight where its eighth power is out of range, else 0."""
    some = W[0]
    if not some.any():
        some = W.reshape(-1)
    some = some.astype(np.float64)
    size = float(some @ some) / some.size
    exponent = frexp(sqrt(size))[1] if 0 < size < inf else 0
    return max(-1000, exponent) if abs(exponent) > _USUAL else 0
