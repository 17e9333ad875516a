"""Eigenvalues of A = W W^T, layer by layer, on the `proper` scale."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import SpectrumError
from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import Lapack
from registry.types import Spectrum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from registry.spectral.lapack import Each, Precision, Solver
    from registry.types import LayerMatrix

__all__ = ["Begun", "begin", "end", "layer_spectrum", "spectra", "spectral_entropy", "spectrum"]

DOUBLE = Lapack("float64")


def layer_spectrum(
    W: ArrayLike, *, precision: Precision = "float64", approximate: bool = False
) -> tuple[float, NDArray[np.float32]]:
    """Eigenvalues of W W^T that are not structural zeros, as their mean and as multiples of it.

    The Gram matrix of the smaller side, and its symmetric eigenvalues. W is scaled by a power of two first,
    so that no square leaves the range of float64 and scaling W by powers of two changes no bit of the values; it is
    copied with the smaller side as rows, so that neither memory layout nor transposition does, but for the last bit of
    a square one transposed.

    Parameters
    ----------
    W
        (p, q) real weights, p, q >= 1: an array, or a tensor of torch, also one that is being trained, on a device, or
        of half precision.
    precision
        Of the Gram matrix; NumPy finds its eigenvalues in float64. ``float32`` is the faster product and errs by up to
        1e-6 of the largest eigenvalue, which small ones are lost in; what that does to cumulatives is in
        docs/method.md. What a registry stores is of ``float64``.
    approximate
        Where min(p, q) is beyond 8,192, by stochastic Lanczos quadrature instead, without a Gram matrix and in float64;
        how far its cumulative is from the exact one is in docs/method.md. Smaller layers are exact all the same.

    Returns
    -------
    tuple of float and NDArray[np.float32]
        The mean of the min(p, q) eigenvalues, in units of the squared weights, and the eigenvalues divided by it,
        (min(p, q),), ascending, >= 0, of mean 1. In float64, errors are some 1e-16 of the largest eigenvalue: exact
        zeros of rank deficient matrices come as values up to about that.

    Raises
    ------
    SpectrumError
        Not a matrix, empty, not real, holding NaN or infinity, all zeros, a mean outside the range of float64, or
        eigenvalues that no LAPACK driver finds; an unknown precision.
    """
    exact = Lapack(precision)
    solver = Lanczos(exact, LARGE) if approximate else exact
    begun, exponent = _begin(_array(W), solver, map)
    return _relative(next(solver.solve([begun])), exponent)


def spectrum(layer: LayerMatrix, W: ArrayLike, solver: Solver = DOUBLE) -> Spectrum:
    """The spectrum of one layer matrix of a checkpoint.

    Parameters
    ----------
    layer
        Where the matrix is.
    W
        Its weights, (layer.p, layer.q) or of the layer's own shape (out, in, *kernel).
    solver
        What finds the eigenvalues, LAPACK in float64 by default.

    Returns
    -------
    Spectrum

    Raises
    ------
    SpectrumError
        As `layer_spectrum`, naming the layer; weights of another shape.
    """
    return spectra([layer], [W], solver)[0]


def spectra(layers: Sequence[LayerMatrix], weights: Sequence[ArrayLike], solver: Solver) -> tuple[Spectrum, ...]:
    """`spectrum` of each layer; the eigenvalues of all are found together."""
    return tuple(end([begin(layer, W, solver) for layer, W in zip(layers, weights, strict=True)], solver))


@dataclass(frozen=True, slots=True)
class Begun:
    """A layer whose spectrum a solver has begun, of weights divided by 2^exponent."""

    layer: LayerMatrix
    begun: Any
    exponent: int


def begin(layer: LayerMatrix, W: ArrayLike, solver: Solver, each: Each = map) -> Begun:
    """The first step of `spectrum`: the Gram matrix, its terms by ``each``."""
    weights = _array(W)
    if weights.shape not in (layer.shape, (layer.p, layer.q)):
        raise SpectrumError(f"layer {layer.name} has shape {layer.shape}, its weights {weights.shape}")
    with _naming(layer):
        return Begun(layer, *_begin(weights.reshape(layer.p, layer.q), solver, each))


def end(begun: Sequence[Begun], solver: Solver) -> Iterator[Spectrum]:
    """The second step of `spectrum`, of several layers at once."""
    values = solver.solve([one.begun for one in begun])
    for one in begun:
        with _naming(one.layer):
            mean, relative = _relative(next(values), one.exponent)
        yield Spectrum(layer=one.layer, mean=mean, values=relative, method=solver.method(relative.size))


@contextmanager
def _naming(layer: LayerMatrix) -> Iterator[None]:
    """SpectrumErrors name the layer."""
    try:
        yield
    except SpectrumError as error:
        raise SpectrumError(f"layer {layer.name}: {error.message}", error.remedy) from error


def _array(W: Any) -> NDArray[np.generic]:
    """Weights as an array; NumPy takes no tensor of torch that is being trained, on a device, or of bfloat16."""
    try:
        if hasattr(W, "detach"):
            W = W.detach().cpu()
            W = W.float() if W.is_floating_point() and W.element_size() < 4 else W
        return np.asarray(W)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpectrumError("a layer's weights must be a matrix of numbers") from error


def _begin(weights: NDArray[np.generic], solver: Solver, each: Each) -> tuple[Any, int]:
    """What the solver has begun, and the exponent of 2 by which it has divided the weights."""
    if weights.ndim != 2 or weights.size == 0:
        raise SpectrumError(
            f"a layer's weights must be a matrix with entries, not of shape {weights.shape}",
            "reshape a kernel to its outputs and the rest: W.reshape(len(W), -1)" if weights.ndim > 2 else None,
        )
    if weights.dtype.kind not in "fiu":
        raise SpectrumError(f"a layer's weights must be real numbers, not {weights.dtype}")
    exponent = _exponent(weights)
    return solver.begin(weights.T if weights.shape[0] > weights.shape[1] else weights, exponent, each), exponent


def _relative(found: NDArray[np.float64], exponent: int) -> tuple[float, NDArray[np.float32]]:
    """The mean of eigenvalues in units of the squared weights, and they as multiples of it."""
    values = np.maximum(found, 0.0)
    mean = float(values.mean())
    with np.errstate(over="ignore", under="ignore"):
        original = float(np.ldexp(mean, 2 * exponent))
    if not 0 < original < np.inf:
        raise SpectrumError(
            f"squared weights of about 2^{2 * exponent} leave the range of float64", "rescale the layer's weights"
        )
    return original, (values / mean).astype(np.float32)


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
    entropy = -float(share @ np.log(share)) / log(x.size) if x.size > 1 else 0.0
    return min(max(entropy, 0.0), 1.0)  # whatever rounding says


def _exponent(weights: NDArray[np.generic]) -> int:
    """Binary exponent e with |w| < 2^e of the largest weight; extremes propagate NaN, so that they check all."""
    largest = max(abs(float(weights.max())), abs(float(weights.min())))
    if not np.isfinite(largest):
        wrong = int(weights.size - np.count_nonzero(np.isfinite(weights)))
        raise SpectrumError(
            f"{wrong} of {weights.size} weights {'is' if wrong == 1 else 'are'} NaN or infinite",
            "leave this checkpoint out",
        )
    if largest == 0:
        raise SpectrumError("all weights are zero: the spectrum has no scale", "leave this layer out")
    # Of the smallest floats there are, the squares stay in range after 2^1000, and 2^-exponent is itself a float.
    return max(int(np.frexp(largest)[1]), -1000)
