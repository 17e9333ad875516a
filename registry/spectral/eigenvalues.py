"""Eigenvalues of A = W W^T on the `proper` scale: of a layer, and of all layers of a network.

The layers of a network are computed in parallel on the cores, with one BLAS thread each, or on a CUDA device.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from math import log
from threading import Event, Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from registry.ensembles.checks import check_whole
from registry.errors import SpectrumError
from registry.spectral.devices import CPU, solver_on
from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import Lapack, column_blocks
from registry.types import Spectrum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from registry.spectral.devices import Device
    from registry.spectral.lapack import Each, Precision, Solver
    from registry.types import LayerMatrix

__all__ = ["layer_spectrum", "network_spectra", "one_blas_thread", "spectra", "spectral_entropy", "spectrum"]

DOUBLE = Lapack("float64")

# Up to this many eigenvalues per call, NumPy holds the interpreter lock and blocks all other threads.
LOCKED = 500
# Largest number of weights in a group of layers that are computed together.
TOGETHER = 2**20
# Mean cost of a layer, in multiplications, below which threads cost more than they gain.
WORTH_THREADS = 1_000_000


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


def network_spectra(
    layers: Sequence[LayerMatrix],
    read: Callable[[LayerMatrix], NDArray[np.floating]],
    *,
    workers: int | None = None,
    precision: Precision = "float64",
    device: Device = CPU,
    approximate: bool = False,
) -> tuple[Spectrum, ...]:
    """Spectra of the layers, in their order.

    Each layer uses one BLAS thread, so that the bits do not depend on the number of cores and small matrices, which are
    most of a network, do not wait for threads. Costly layers go first, which balances the cores; small layers of one
    order are grouped. At most ``workers`` + 1 matrices, or as many groups of about 2^20 weights, are in memory. The
    product of a layer that outweighs a core's share is distributed by blocks of columns, with one more term per core in
    memory.

    Time: the sum over layers of n^2 m + n^3 (n <= m the smaller and larger extent), for approximate layers 7,000 n m,
    divided by the number of cores as long as no layer's n^3 exceeds a core's share.

    Parameters
    ----------
    layers
        At least one layer.
    read
        Returns a layer's weights (p, q); called only in the calling thread.
    workers
        Number of threads; 1 for the calling thread only. Default: the cores this process may use, if layers are large
        enough to benefit. On a CUDA device it is 1.
    precision
        As in `layer_spectrum`.
    device
        ``cpu``, ``cuda``, or ``auto``: ``cuda`` if available, else ``cpu``; see `device_at_hand`.
    approximate
        As in `layer_spectrum`; always on the processor.

    Raises
    ------
    SpectrumError
        There are no layers, or ``workers`` is below 1; also as in `spectrum`. Errors of ``read`` are passed on.
    RegistryError
        ``cuda`` is requested and not available.
    """
    if not layers:
        raise SpectrumError("no layers: the spectrum of a network without any is undefined")
    solver, shared = (Lapack(precision), False) if device == CPU else solver_on(device, precision)
    if approximate:
        solver = Lanczos(solver, LARGE)
    costs = [solver.cost(*extents(layer)) for layer in layers]
    worth = _cores() if sum(costs) > WORTH_THREADS * len(costs) else 1
    count = worth if workers is None else check_whole(workers, "number of workers")
    with one_blas_thread():
        if count == 1 and not shared:  # a device computes while this thread reads
            parts = (spectra(task, [read(layer) for layer in task], solver) for task in _tasks(layers, costs))
            found = {one.layer: one for part in parts for one in part}
        else:
            threads = 1 if shared else count
            found = _of_threads(layers, costs, read, _Work(threads, solver, sum(costs) / threads))
    return tuple(found[layer] for layer in layers)


def _of_threads(
    layers: Sequence[LayerMatrix],
    costs: Sequence[int],
    read: Callable[[LayerMatrix], NDArray[np.floating]],
    work: _Work,
) -> dict[LayerMatrix, Spectrum]:
    with ThreadPoolExecutor(work.threads) as pool:
        for task in _tasks(layers, costs):
            if not work.give(task, read, pool):
                break
    # In submission order, so that of several invalid layers the same one is always reported.
    return {one.layer: one for future in work.futures for one in future.result()}


def _tasks(layers: Sequence[LayerMatrix], costs: Sequence[int]) -> Iterator[list[LayerMatrix]]:
    """Groups of layers, costliest first; small layers of one order are grouped up to a limit of number and memory."""
    waiting: dict[int, list[LayerMatrix]] = {}
    for at in sorted(range(len(layers)), key=costs.__getitem__, reverse=True):
        layer = layers[at]
        order = min(layer.p, layer.q)
        task = waiting.setdefault(order, [])
        task.append(layer)
        if len(task) * order > LOCKED or sum(one.p * one.q for one in task) > TOGETHER:
            yield waiting.pop(order)
    yield from waiting.values()


class _Work:
    """Layers submitted to a pool of threads; ``share`` is the cost that each thread gets."""

    def __init__(self, threads: int, solver: Solver, share: float) -> None:
        self.futures: list[Future[tuple[Spectrum, ...]]] = []
        self.threads, self._solver, self._share = threads, solver, share
        self._free, self._broken = Semaphore(threads + 1), Event()

    def give(
        self, task: Sequence[LayerMatrix], read: Callable[[LayerMatrix], NDArray[np.floating]], pool: ThreadPoolExecutor
    ) -> bool:
        """Submit layers once there is room; False if an earlier one failed."""
        # The first task to end makes room; waiting for the costliest would leave the other cores idle.
        self._free.acquire()
        if self._broken.is_set():
            return False
        if (
            len(task) == 1
            and self._solver.cost(*extents(task[0])) > self._share
            and len(column_blocks(task[0].p, task[0].q)) > 1
        ):
            begun = begin(task[0], read(task[0]), self._solver, partial(_side_by_side, pool, self.threads))
            future = pool.submit(lambda: tuple(end([begun], self._solver)))
        else:
            future = pool.submit(spectra, task, [read(layer) for layer in task], self._solver)
        self.futures.append(future)
        future.add_done_callback(self._ended)
        return True

    def _ended(self, future: Future[tuple[Spectrum, ...]]) -> None:
        if future.exception() is not None:
            self._broken.set()
        self._free.release()


def _side_by_side(
    pool: ThreadPoolExecutor,
    threads: int,
    work: Callable[[int], NDArray[np.floating]],
    items: Iterable[int],
) -> Iterator[NDArray[np.floating]]:
    """``map`` on the pool's threads, at most as many results ahead as there are threads, which limits memory."""
    left = iter(items)
    while some := [pool.submit(work, item) for item in islice(left, threads)]:
        for future in some:
            yield future.result()


def extents(layer: LayerMatrix) -> tuple[int, int]:
    """The smaller and the larger extent of a layer's matrix."""
    return min(layer.p, layer.q), max(layer.p, layer.q)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS uses one thread: the bits depend on no number of cores, and small products wait for none.

    It holds for all threads of the process.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds; NumPy's is loaded before this module.
    return ThreadpoolController()
