"""Eigenvalues of A = W W^T, layer by layer, on the `proper` scale."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import SpectrumError
from registry.types import Spectrum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from registry.types import LayerMatrix

__all__ = ["column_blocks", "layer_spectrum", "spectral_entropy", "spectrum"]

logger = logging.getLogger(__name__)

# Columns of the wide side multiplied at once: bounds the copy in float64 of embeddings and large heads.
COLUMNS = 8192


def layer_spectrum(W: ArrayLike, *, threads: int = 1) -> tuple[float, NDArray[np.float32]]:
    """Eigenvalues of W W^T that are not structural zeros, as their mean and as multiples of it.

    The Gram matrix of the smaller side, in float64, and its symmetric eigenvalues. W is scaled by a power of two first,
    so that no square leaves the range of float64 and scaling W by powers of two changes no bit of the values; it is
    copied with the smaller side as rows, so that neither memory layout nor transposition does, but for the last bit of
    a square one transposed.

    Parameters
    ----------
    W
        (p, q) real weights, p, q >= 1; float32 or float64 as sources give them.
    threads
        Blocks of columns multiplied side by side where there are several; the bits do not depend on it.

    Returns
    -------
    tuple of float and NDArray[np.float32]
        The mean of the min(p, q) eigenvalues, in units of the squared weights, and the eigenvalues divided by it,
        (min(p, q),), ascending, >= 0, of mean 1. Errors are some 1e-16 of the largest eigenvalue: exact zeros of rank
        deficient matrices come as values up to about that.

    Raises
    ------
    SpectrumError
        Not a matrix, empty, not real, holding NaN or infinity, all zeros, a mean outside the range of float64, or
        eigenvalues that no LAPACK driver finds.
    """
    weights = np.asarray(W)
    if weights.ndim != 2 or weights.size == 0:
        raise SpectrumError(f"a layer's weights must be a matrix with entries, not of shape {weights.shape}")
    if weights.dtype.kind not in "fiu":
        raise SpectrumError(f"a layer's weights must be real numbers, not {weights.dtype}")
    exponent = _exponent(weights)
    gram = _gram(weights.T if weights.shape[0] > weights.shape[1] else weights, exponent, threads)
    values = np.maximum(_eigenvalues(gram), 0.0)
    mean = float(values.mean())
    with np.errstate(over="ignore", under="ignore"):
        original = float(np.ldexp(mean, 2 * exponent))
    if not 0 < original < np.inf:
        raise SpectrumError(
            f"squared weights of about 2^{2 * exponent} leave the range of float64", "rescale the layer's weights"
        )
    return original, (values / mean).astype(np.float32)


def spectrum(layer: LayerMatrix, W: ArrayLike, *, threads: int = 1) -> Spectrum:
    """The spectrum of one layer matrix of a checkpoint.

    Parameters
    ----------
    layer
        Where the matrix is.
    W
        Its weights, (layer.p, layer.q) or of the layer's own shape (out, in, *kernel).
    threads
        As in `layer_spectrum`.

    Returns
    -------
    Spectrum

    Raises
    ------
    SpectrumError
        As `layer_spectrum`, naming the layer; weights of another shape.
    """
    weights = np.asarray(W)
    if weights.shape not in (layer.shape, (layer.p, layer.q)):
        raise SpectrumError(f"layer {layer.name} has shape {layer.shape}, its weights {weights.shape}")
    try:
        mean, values = layer_spectrum(weights.reshape(layer.p, layer.q), threads=threads)
    except SpectrumError as error:
        raise SpectrumError(f"layer {layer.name}: {error.message}", error.remedy) from error
    return Spectrum(layer=layer, mean=mean, values=values)


def spectral_entropy(values: ArrayLike) -> float:
    """Entropy of a layer's eigenvalues as shares of their sum, over the logarithm of their number.

    Parameters
    ----------
    values
        (n,) eigenvalues >= 0, on any scale, not all 0.

    Returns
    -------
    float
        Within [0, 1]: 0 for rank one and for a single eigenvalue, 1 where all are equal.

    Raises
    ------
    SpectrumError
        Empty, negative, not finite, or all 0.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not bool(np.all(np.isfinite(x) & (x >= 0))) or not x.any():
        raise SpectrumError("entropy needs finite eigenvalues of at least 0, not all of them 0")
    share = x[x > 0] / x.sum()
    return max(0.0, float(-(share @ np.log(share)))) / np.log(x.size) if x.size > 1 else 0.0


def column_blocks(p: int, q: int) -> range:
    """Where the blocks start in which a (p, q) matrix is multiplied along its longer side: a matter of shape alone."""
    small, large = sorted((p, q))
    return range(0, large, max(COLUMNS, 4 * small))


def _exponent(weights: NDArray[np.generic]) -> int:
    """Binary exponent e with |w| < 2^e of the largest weight; extremes propagate NaN, so that they check all."""
    largest = max(abs(float(weights.max())), abs(float(weights.min())))
    if not np.isfinite(largest):
        wrong = int(weights.size - np.count_nonzero(np.isfinite(weights)))
        raise SpectrumError(f"{wrong} of {weights.size} weights are NaN or infinite", "leave this checkpoint out")
    if largest == 0:
        raise SpectrumError("all weights are zero: the spectrum has no scale", "leave this layer out")
    # Of the smallest floats there are, the squares stay in range after 2^1000, and 2^-exponent is itself a float.
    return max(int(np.frexp(largest)[1]), -1000)


def _gram(wide: NDArray[np.generic], exponent: int, threads: int) -> NDArray[np.float64]:
    """W W^T 4^-exponent of the (n, m) weights, n <= m, in float64, summed over blocks of columns in their order."""
    starts = column_blocks(*wide.shape)
    step = starts.step

    def product(start: int) -> NDArray[np.float64]:
        block = np.array(wide[:, start : start + step], dtype=np.float64, order="C")
        block *= 2.0**-exponent
        # One operand and its transpose: NumPy calls BLAS's symmetric product, at half the work.
        return np.asarray(block @ block.T)

    if threads == 1 or len(starts) == 1:
        return _sum(map(product, starts))
    with ThreadPoolExecutor(threads) as pool:
        return _sum(pool.map(product, starts))


def _sum(terms: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = next(terms)
    for term in terms:
        total += term
    return total


def _eigenvalues(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ascending eigenvalues; where QR iteration does not converge, by relatively robust representations."""
    try:
        return np.asarray(np.linalg.eigvalsh(gram), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        logger.warning("eigvalsh failed on a matrix of order %d (%s): LAPACK's syevr takes over", len(gram), error)
    import scipy.linalg

    try:
        return np.asarray(scipy.linalg.eigh(gram, eigvals_only=True, driver="evr"))
    except np.linalg.LinAlgError as error:
        raise SpectrumError(f"no LAPACK driver finds the eigenvalues of order {len(gram)}: {error}") from error
