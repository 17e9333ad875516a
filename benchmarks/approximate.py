"""Time, memory and error of approximate spectra against exact ones, of one layer, on one BLAS thread.

``python -m benchmarks.approximate ORDER...``: for every order a trained layer's likeness, Gaussian rows of log-normal
scales, whose largest eigenvalues make a long tail. Time of the approximation grows with the square of the order, that
of LAPACK with its cube.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from registry.spectral.conjugacy import DELTAS, conjugate_from
from registry.spectral.eigen import DOUBLE, spectrum
from registry.spectral.lanczos import Lanczos, scatter_of
from registry.types import LayerMatrix, Spectrum

if TYPE_CHECKING:
    from registry.spectral.lapack import Solver


def measured(order: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(order)
    W = rng.standard_normal((order, order + 256), dtype=np.float32)
    W *= np.exp(0.7 * rng.standard_normal((order, 1))).astype(np.float32)

    def timed(solver: Solver) -> tuple[Spectrum, float]:
        begun = time.perf_counter()
        found = spectrum(LayerMatrix(0, "layer", "layer", W.shape, "linear"), W, solver)
        return found, time.perf_counter() - begun

    (near, fast), (exact, slow) = timed(Lanczos(above=1)), timed(DOUBLE)
    x = np.sort(np.concatenate([near.values, exact.values]))
    error = np.abs(np.subtract(*(np.searchsorted(each.values, x, side="right") for each in (near, exact)))).max()
    right = int(np.argmax(np.abs(near.values[::-1] / exact.values[::-1] - 1) > 1e-3))
    places = zip(DELTAS, conjugate_from([near], DELTAS), conjugate_from([exact], DELTAS), strict=True)
    tail = ", ".join(f"x*({delta:g}) {ours:.3f} for {theirs:.3f}" for delta, ours, theirs in places)
    return (
        f"order {order}: {fast:.1f} s for {slow:.1f} s, {slow / fast:.1f} times; sup |F - F'| {error / order:.4f} of "
        f"{scatter_of([near]):.4f}; the {right} largest within 1e-3; {tail}"
    )


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        for argument in sys.argv[1:] or ("2048", "4096"):
            print(measured(int(argument)), flush=True)
