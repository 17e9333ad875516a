"""One pass over a layer's weights: power sums, norms of rows, columns and kernels, and what an audit counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["KernelSums", "MatrixSums", "matrix_sums"]

_CHUNK = 1 << 14  # elements at a time: the chunk and its powers stay in a core's second cache
# Elements of which the fifth to eighth powers and the kernels are summed, in every few chunks of a larger layer.
# They are in the variances alone, where those of so many elements are lost beside the lower powers.
_SAMPLED = 1 << 14
LARGEST_KERNEL = 64
"""Positions of the largest kernel whose kernels are compared; beyond, the products cost more than they tell."""


@dataclass(frozen=True, slots=True)
class KernelSums:
    """Sums over ``number`` kernels of a convolution as rows of k positions, those of zero rows of W left out.

    ``products``, ``square_products``: (k, k) W^T W, and the same of squared weights. ``powers``: (9,) of their weights.
    """

    number: int
    products: Array
    square_products: Array
    powers: Array


@dataclass(frozen=True, slots=True)
class MatrixSums:
    """Sums over the entries w of a matrix W (p, q), divided by 2^exponent before.

    ``powers``: (9,) of w^0 to w^8, of a large W those beyond w^4 from a part of its rows. ``row_sums``, ``row_squares``
    (p,) and ``column_sums``, ``column_squares`` (q,): of w and w^2. ``weighted``: (q,) W^T W 1. ``kernels``: None where
    W is no convolution of more than one input. ``constant_rows``: rows of one value other than zero. ``saturated``:
    elements as large as the stored dtype allows.
    """

    exponent: int
    powers: Array
    row_sums: Array
    row_squares: Array
    column_sums: Array
    column_squares: Array
    weighted: Array
    kernels: KernelSums | None
    constant_rows: int
    saturated: int

    @property
    def zero_rows(self) -> int:
        """Rows of zeros."""
        return int(np.count_nonzero(self.row_squares == 0))


def matrix_sums(W: NDArray[np.floating], positions: int = 1, largest: float = np.inf) -> MatrixSums:
    """The sums of a layer matrix, in float64; O(p q) time, memory of a few rows.

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
    p, q = W.shape
    step = max(1, _CHUNK // q)
    exponent = _exponent(W)
    scale = 2.0**-exponent
    powers, some_powers = np.zeros(9), np.zeros(9)
    rows, row_squares = np.empty(p), np.empty(p)
    columns, column_squares = np.zeros((2, q)), np.zeros(q)
    ones, both = np.ones(q), np.ones((2, min(step, p)))
    of_kernels = 1 < positions <= LARGEST_KERNEL and positions < q
    products, square_products = np.zeros((2, positions, positions)) if of_kernels else (np.empty(0), np.empty(0))
    saturated = sampled = 0
    # Buffers are used again: new memory from the system costs more than the arithmetic.
    held = np.empty((4, min(step, p), q))
    stride = step * max(1, W.size // _SAMPLED)
    for start in range(0, p, step):
        part = W[start : start + step]
        x, x2, x3, x4 = held[:, : len(part)]
        here = slice(start, start + len(part))
        np.multiply(part, scale, out=x, dtype=np.float64)
        np.multiply(x, x, out=x2)
        np.matmul(x, ones, out=rows[here])
        np.matmul(x2, ones, out=row_squares[here])
        both[1, : len(part)] = rows[here]
        columns += both[:, : len(part)] @ x
        column_squares += both[0, : len(part)] @ x2
        flat, flat2, flat3, flat4 = (each.reshape(-1) for each in (x, x2, x3, x4))
        lower = flat @ flat2, flat2 @ flat2
        powers[3:5] += lower
        if start % stride == 0:
            np.multiply(x2, x, out=x3)
            np.multiply(x2, x2, out=x4)
            higher = flat2 @ flat3, flat3 @ flat3, flat3 @ flat4, flat4 @ flat4
            some_powers += x.size, rows[here].sum(), row_squares[here].sum(), *lower, *higher
            sampled += int(np.count_nonzero(row_squares[here]))
            if of_kernels:
                for total, each in ((products, x), (square_products, x2)):
                    by_kernel = each.reshape(-1, positions)
                    total += by_kernel.T @ by_kernel
        if np.isfinite(largest):
            saturated += int(np.count_nonzero(np.abs(part) >= largest))
    powers[:3] = W.size, rows.sum(), row_squares.sum()
    powers[5:] = some_powers[5:] * (W.size / some_powers[0])
    kernels = None
    if of_kernels:
        some_powers[0] = sampled * q
        kernels = KernelSums(sampled * q // positions, products, square_products, some_powers)
    alike = np.flatnonzero(q * row_squares - rows * rows <= 1e-9 * q * row_squares)
    constant = sum(bool(W[row, 0] != 0 and (W[row] == W[row, 0]).all()) for row in alike)
    return MatrixSums(
        exponent, powers, rows, row_squares, columns[0], column_squares, columns[1], kernels, constant, saturated
    )


def _exponent(W: NDArray[np.floating]) -> int:
    """Binary exponent of a weight of about usual size, so that eighth powers stay in the range of float64."""
    some = W[:: max(1, len(W) // 8)].astype(np.float64)
    size = float(np.sqrt(np.mean(some * some)))
    return max(-1000, int(np.frexp(size)[1])) if np.isfinite(size) and size > 0 else 0
