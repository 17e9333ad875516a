"""Eigenvalues of A = W W^T on the `proper` scale, layer by layer."""

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
    """Eigenvalues of W W^T that are not structural zeros, as their mean and as multiples of the mean.

    Computed from the Gram matrix of the smaller side. W is first scaled by a power of two, so that no square leaves the
    range of float64, and scaling W by powers of two changes no bit of the values. W is copied with the smaller side as
    rows, so that memory layout and transposition change nothing either, except the last bit for a transposed square W.

    Parameters
    ----------
    W
        (p, q) real weights, p, q >= 1: an array or a torch tensor, which may require gradients, be on a device, or have
        half precision.
    precision
        Precision of the Gram matrix; its eigenvalues are computed in float64. ``float32`` is faster, with errors of up
        to 1e-6 of the largest eigenvalue, which can exceed small eigenvalues; docs/method.md has the effect on
        cumulatives. A registry stores ``float64`` results.
    approximate
        If min(p, q) > 8,192, use stochastic Lanczos quadrature in float64, without a Gram matrix; docs/method.md has
        its error. Smaller layers are computed exactly in any case.

    Returns
    -------
    tuple of float and NDArray[np.float32]
        The mean of the min(p, q) eigenvalues, in units of the squared weights, and the eigenvalues divided by it,
        (min(p, q),), ascending, >= 0, with mean 1. In float64, errors are about 1e-16 of the largest eigenvalue; exact
        zeros of rank-deficient matrices appear as values of up to about that size.

    Raises
    ------
    SpectrumError
        W is not a matrix, empty, not real, contains NaN or infinity, or is all zeros; the mean is outside the range of
        float64; no LAPACK driver finds the eigenvalues; or the precision is unknown.
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
        The layer that the matrix belongs to.
    W
        Weights, of shape (layer.p, layer.q) or (out, in, *kernel).
    solver
        Eigenvalue solver; LAPACK in float64 by default.

    Returns
    -------
    Spectrum

    Raises
    ------
    SpectrumError
        As in `layer_spectrum`, with the layer's name; also for weights of another shape.
    """
    return spectra([layer], [W], solver)[0]


def spectra(layers: Sequence[LayerMatrix], weights: Sequence[ArrayLike], solver: Solver) -> tuple[Spectrum, ...]:
    """`spectrum` of each layer, with the eigenvalues of all layers computed together."""
    return tuple(end([begin(layer, W, solver) for layer, W in zip(layers, weights, strict=True)], solver))


@dataclass(frozen=True, slots=True)
class Begun:
    """A layer with the intermediate result of a solver, for weights divided by 2^exponent."""

    layer: LayerMatrix
    begun: Any
    exponent: int


def begin(layer: LayerMatrix, W: ArrayLike, solver: Solver, each: Each = map) -> Begun:
    """First step of `spectrum`: the Gram matrix, with its terms computed by ``each``."""
    weights = _array(W)
    if weights.shape not in (layer.shape, (layer.p, layer.q)):
        raise SpectrumError(f"layer {layer.name} has shape {layer.shape}, but its weights {weights.shape}")
    with _naming(layer):
        return Begun(layer, *_begin(weights.reshape(layer.p, layer.q), solver, each))


def end(begun: Sequence[Begun], solver: Solver) -> Iterator[Spectrum]:
    """Second step of `spectrum`, for several layers at once."""
    values = solver.solve([one.begun for one in begun])
    for one in begun:
        with _naming(one.layer):
            mean, relative = _relative(next(values), one.exponent)
        yield Spectrum(layer=one.layer, mean=mean, values=relative, method=solver.method(relative.size))


@contextmanager
def _naming(layer: LayerMatrix) -> Iterator[None]:
    """Add the layer's name to SpectrumErrors."""
    try:
        yield
    except SpectrumError as error:
        raise SpectrumError(f"layer {layer.name}: {error.message}", error.remedy) from error


def _array(W: Any) -> NDArray[np.generic]:
    """Weights as an array; NumPy cannot convert torch tensors with gradients, on a device, or of bfloat16."""
    try:
        if hasattr(W, "detach"):
            W = W.detach().cpu()
            W = W.float() if W.is_floating_point() and W.element_size() < 4 else W
        return np.asarray(W)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpectrumError("a layer's weights must be a matrix of numbers") from error


def _begin(weights: NDArray[np.generic], solver: Solver, each: Each) -> tuple[Any, int]:
    """Intermediate result of the solver, and the exponent of the power of 2 by which the weights were divided."""
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
    """Mean of eigenvalues in units of the squared weights, and the eigenvalues as multiples of it."""
    values = np.maximum(found, 0.0)
    mean = float(values.mean())
    with np.errstate(over="ignore", under="ignore"):
        original = float(np.ldexp(mean, 2 * exponent))
    if not 0 < original < np.inf:
        raise SpectrumError(
            f"squared weights of about 2^{2 * exponent} are outside the range of float64", "rescale the layer's weights"
        )
    return original, (values / mean).astype(np.float32)


def spectral_entropy(values: ArrayLike) -> float:
    """Entropy of a layer's eigenvalues as fractions of their sum, divided by the logarithm of their number.

    Parameters
    ----------
    values
        (n,) eigenvalues >= 0 on any scale, not all 0.

    Returns
    -------
    float
        Within [0, 1]: 0 for rank one and for a single eigenvalue, 1 if all are equal.

    Raises
    ------
    SpectrumError
        The values are empty, negative, not finite, or all 0.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not bool(np.all(np.isfinite(x) & (x >= 0))) or not x.any():
        raise SpectrumError("entropy needs finite eigenvalues >= 0 that are not all 0")
    share = x[x > 0] / x.sum()
    entropy = -float(share @ np.log(share)) / log(x.size) if x.size > 1 else 0.0
    return min(max(entropy, 0.0), 1.0)  # rounding may exceed 1


def _exponent(weights: NDArray[np.generic]) -> int:
    """Binary exponent e with |w| < 2^e for the largest weight.

    Minimum and maximum propagate NaN, so all weights are checked.
    """
    largest = max(abs(float(weights.max())), abs(float(weights.min())))
    if not np.isfinite(largest):
        wrong = int(weights.size - np.count_nonzero(np.isfinite(weights)))
        raise SpectrumError(
            f"{wrong} of {weights.size} weights {'is' if wrong == 1 else 'are'} NaN or infinite",
            "use another checkpoint",
        )
    if largest == 0:
        raise SpectrumError("all weights are zero: the spectrum has no scale", "omit this layer")
    # Limited so that 2^-exponent is a float; squares of the smallest floats stay in range when scaled by 2^1000.
    return max(int(np.frexp(largest)[1]), -1000)
