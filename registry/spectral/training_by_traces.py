"""Training class without spectra: what it takes of them follows from tr(A) and tr(A^2), A = W W^T, for most layers.

A sum over the squares of A takes a product of matrices and no eigenvalues. Of n eigenvalues with mean m and variance
v m^2, all lie within m (1 +- sqrt((n - 1) v)) (Samuelson, "How deviant can you be?", Journal of the American
Statistical Association 63, 1968), and v is at most a quarter of the squared range over m^2 (Popoviciu 1935). These
bounds tell whether a layer is flat, and tr(A^2) / tr(A)^2 whether one eigenvalue is all of it. A layer that they leave
open is decomposed. Where an outcome is near a threshold, spectra of all layers decide, or nothing is said.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf, ldexp, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from registry.errors import SpectrumError
from registry.spectral.eigenvalues import layer_spectrum, network_spectra, one_blas_thread
from registry.spectral.training import CLIP, FLAT, SINGLE, TRAINED_BEYOND, Traces, WeightReading, training

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from registry.spectral.permutation_moments import MatrixSums
    from registry.types import LayerMatrix, Training, VectorCounts, WeightFigures

    Read = Callable[[LayerMatrix], NDArray[np.floating]]
    Also = Callable[[LayerMatrix, NDArray[np.floating]], None]

__all__ = ["ByTraces", "LayerTrace", "judged_by_traces", "layer_trace"]

QUICK = 5 * 10**10
"""Multiply-adds of products that are always computed, of the cheapest layers: half a second of a core."""
MOST = 10**12
"""Multiply-adds of products of all layers, up to which they are computed where nothing else decides: some 10 s."""
MOST_CUBES = 10**10
"""Sum of the cubes of the orders of the layers, up to which spectra decide what is near a threshold: some seconds."""
NEAR = 0.05
"""Distance of a z to its threshold within which rounding could decide; products in float32 move it by a hundredth."""
_EVEN = 0.25 * (FLAT - 1) ** 2 * 1.02
"""Variance of the eigenvalues over their squared mean beyond which a layer is not flat, by Popoviciu's bound."""
_SPREAD = 0.98 * (FLAT - 1) / (FLAT + 1)
"""Largest departure from the mean, over it, at which a layer is flat for sure."""
_ROUNDED = 1e-5
_ROWS = 256


class LayerTrace(NamedTuple):
    """Of a layer: tr(A^2) of weights divided by the 2^exponent of its sums, and whether it is flat, or of rank one."""

    squared: float
    flat: bool
    single: bool


_UNKNOWN = LayerTrace(nan, False, False)


def layer_trace(W: NDArray[np.floating], sums: MatrixSums) -> LayerTrace:
    """What a training class takes of the eigenvalues of W W^T; n^2 m multiply-adds for extents n <= m.

    Parameters
    ----------
    W
        (p, q) finite weights, not all zero.
    sums
        Their sums.

    Returns
    -------
    LayerTrace
        From a product in float32; in float64 where W is, where the mean of the weights is most of them, or where the
        layer may be flat. Rarely from eigenvalues.
    """
    number, first, second = sums.powers[:3].tolist()
    if not second > 0:
        return _UNKNOWN
    some = max(1, min(sums.rows, sums.columns))
    scaled = W if sums.exponent == 0 else (W * ldexp(1.0, -sums.exponent)).astype(W.dtype)
    double = W.dtype == np.float64 or first * first > 0.5 * number * second
    squared = _squares(scaled, np.float64 if double else np.float32)
    if not double and (not squared < inf or squared * some < (1 + 2 * _EVEN) * second * second):
        squared = _squares(scaled, np.float64)
    variance = max(0.0, squared * some / second**2 - 1)
    share = squared / second**2  # the largest eigenvalue over their sum is between this and its root
    flat = sqrt((some - 1) * variance) < _SPREAD
    single = some > 1 and share > SINGLE + _ROUNDED
    if (flat or variance > _EVEN) and (single or some == 1 or sqrt(share) < SINGLE - _ROUNDED):
        return LayerTrace(squared, flat, single)
    _, values = layer_spectrum(W)
    largest = float(values[-1])
    return LayerTrace(squared, largest < FLAT * float(values[-some]), some > 1 and largest > SINGLE * values.size)


def _squares(W: NDArray[np.floating], dtype: type[np.float32 | np.float64]) -> float:
    """The sum of the squares of W W^T, by the smaller side; sums of more than some rows in float64."""
    V: NDArray[Any] = np.asarray(W if W.shape[0] <= W.shape[1] else W.T, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        A = V @ V.T
        total = 0.0
        for start in range(0, len(A), _ROWS):
            rows = A[start : start + _ROWS].astype(np.float64).reshape(-1)
            total += float(rows @ rows)
    return total


@dataclass(frozen=True, slots=True)
class ByTraces:
    """A training class without spectra, and the figures that it rests on.

    ``training``: None where ``reason`` says why it cannot be told without spectra. ``figures``: where traces were not
    needed, ``rectangles`` of costly layers are NaN. ``means``: mean eigenvalue of each layer, tr(A) / min(p, q).
    """

    training: Training | None
    figures: WeightFigures
    means: tuple[float, ...]
    reason: str = ""


def judged_by_traces(
    layers: Sequence[LayerMatrix],
    read: Read,
    dtypes: Sequence[str],
    vectors: VectorCounts,
    *,
    also: Also | None = None,
    threads: int | None = None,
) -> ByTraces:
    """The training class that `training` gives with spectra, or none; every layer is read once, costly ones twice.

    Parameters
    ----------
    layers, read, dtypes
        As `WeightReading` takes them; ``read`` is called in this thread alone.
    vectors
        Counts of the vectors.
    also
        Called with each layer and its weights, by one of several threads.
    threads
        Number of threads; by default two where the process may use as many cores.

    Returns
    -------
    ByTraces
        Traces of the cheapest layers are always taken, up to 5 10^10 multiply-adds. Those of the others are taken where
        vectors and the cheap layers leave the class open, up to 10^12 in all.
    """
    reading = WeightReading(layers, read, dtypes)
    quick, costly = _by_cost(layers)
    traces: dict[int, LayerTrace] = {}

    def first(layer: LayerMatrix, weights: NDArray[np.floating]) -> None:
        sums = reading.take(layer, weights)
        if layer.position in quick:
            traces[layer.position] = layer_trace(weights, sums)
        if also is not None:
            also(layer, weights)

    _each(layers, read, first, threads)
    if not costly:
        return _judged(layers, read, dtypes, reading, traces, vectors)
    figures = reading.figures_by(_joined(layers, traces), vectors)
    means = _means(layers, reading)
    if _decided_by_vectors(vectors) or any(each.rectangles > CLIP + NEAR for each in figures.layers if not each.silent):
        return ByTraces(training(figures, layers), figures, means)
    if sum(map(_cost, layers)) > MOST:
        return ByTraces(None, figures, means, "its layers are too large to judge without spectra")
    of_sums = dict(zip((layer.position for layer in layers), reading.sums, strict=True))

    def second(layer: LayerMatrix, weights: NDArray[np.floating]) -> None:
        traces[layer.position] = layer_trace(weights, of_sums[layer.position])

    _each(costly, read, second, threads)
    return _judged(layers, read, dtypes, reading, traces, vectors)


def _judged(
    layers: Sequence[LayerMatrix],
    read: Read,
    dtypes: Sequence[str],
    reading: WeightReading,
    traces: dict[int, LayerTrace],
    vectors: VectorCounts,
) -> ByTraces:
    """The class by all traces; by spectra where it is near a threshold."""
    figures, means = reading.figures_by(_joined(layers, traces), vectors), _means(layers, reading)
    found = training(figures, layers)
    sure = found.layer_z is not None and found.layer_z > CLIP + NEAR
    near = (found.z is not None and abs(found.z - TRAINED_BEYOND) < NEAR) or (
        found.layer_z is not None and abs(found.layer_z - CLIP) < NEAR
    )
    if sure or not near or _decided_by_vectors(vectors):
        return ByTraces(found, figures, means)
    if sum(min(layer.p, layer.q) ** 3 for layer in layers) > MOST_CUBES:
        return ByTraces(None, figures, means, "it is too near the threshold to be told without spectra")
    exact = WeightReading(layers, read, dtypes)
    try:
        figures = exact.figures(network_spectra(layers, exact), vectors)
    except SpectrumError as error:
        return ByTraces(None, figures, means, error.message)
    return ByTraces(training(figures, layers), figures, means)


def _means(layers: Sequence[LayerMatrix], reading: WeightReading) -> tuple[float, ...]:
    sums = zip(layers, reading.sums, strict=True)
    return tuple(ldexp(float(each.powers[2]), 2 * each.exponent) / min(layer.p, layer.q) for layer, each in sums)


def _decided_by_vectors(vectors: VectorCounts) -> bool:
    """Whether vectors tell that a network is trained, whatever its matrices say."""
    if vectors.statistics and not vectors.statistics_moved:
        return False
    return bool(vectors.gains_moved or (vectors.statistics_moved and not vectors.gains))


def _joined(layers: Sequence[LayerMatrix], traces: dict[int, LayerTrace]) -> Traces:
    found = [traces.get(layer.position, _UNKNOWN) for layer in layers]
    return Traces(
        np.array([each.squared for each in found]), [each.flat for each in found], [each.single for each in found]
    )


def _cost(layer: LayerMatrix) -> int:
    return min(layer.p, layer.q) * layer.p * layer.q


def _by_cost(layers: Sequence[LayerMatrix]) -> tuple[set[int], list[LayerMatrix]]:
    """Positions of the cheapest layers, whose products take `QUICK` multiply-adds at most, and the other layers."""
    quick, spent, costly = set(), 0, []
    for layer in sorted(layers, key=_cost):
        spent += _cost(layer)
        if spent <= QUICK:
            quick.add(layer.position)
        else:
            costly.append(layer)
    return quick, costly


def _each(layers: Iterable[LayerMatrix], read: Read, work: Also, threads: int | None) -> None:
    """Do work on each layer, the costliest first; at most one matrix more than there are threads is in memory."""
    count = threads or (2 if len(_cores()) > 1 else 1)
    ordered = sorted(layers, key=_cost, reverse=True)
    with one_blas_thread():
        if count == 1:
            for layer in ordered:
                work(layer, read(layer))
            return
        with ThreadPoolExecutor(count) as pool:
            waiting: deque[Future[None]] = deque()
            for layer in ordered:
                if len(waiting) > count:
                    waiting.popleft().result()
                waiting.append(pool.submit(work, layer, read(layer)))
            for future in waiting:
                future.result()


def _cores() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
