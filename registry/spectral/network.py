"""Spectra of a whole network: its layers side by side on the cores, each on one BLAS thread."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from threading import Event, Semaphore
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from registry.spectral.eigen import column_blocks, spectrum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

__all__ = ["network_spectra"]


def network_spectra(
    layers: Sequence[LayerMatrix], read: Callable[[LayerMatrix], NDArray[np.floating]], *, workers: int | None = None
) -> tuple[Spectrum, ...]:
    """Spectra of the layers, in their order.

    One BLAS thread a layer, so that the bits do not depend on the number of cores, and so that small matrices, most of
    a network's, do not wait for threads. Costly layers go first, which balances the cores; at most ``workers`` + 1
    matrices are in memory. Time: the sum over layers of n^2 m + n^3 (n <= m the smaller and larger extent), divided by
    the cores while no layer outweighs a core's share; of one that does, only the product is divided, over blocks of
    columns.

    Parameters
    ----------
    layers
        At least one.
    read
        Gives a layer's weights (p, q); called in this thread alone.
    workers
        Threads; the cores this process may use by default.

    Raises
    ------
    SpectrumError
        As `spectrum`; whatever ``read`` raises.
    """
    threads = workers or _cores()
    free, broken = Semaphore(threads + 1), Event()

    def ended(future: Future[Spectrum]) -> None:
        if future.exception() is not None:
            broken.set()
        free.release()

    futures: dict[int, Future[Spectrum]] = {}
    share = sum(map(_cost, layers)) / threads
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for index in sorted(range(len(layers)), key=lambda i: -_cost(layers[i])):
            # Whichever layer ends first makes room: waiting for the costliest would leave the other cores idle.
            free.acquire()
            if broken.is_set():
                break
            layer = layers[index]
            divided = _cost(layer) > share and len(column_blocks(layer.p, layer.q)) > 1
            work = partial(spectrum, threads=threads) if divided else spectrum
            futures[index] = pool.submit(work, layer, read(layer))
            futures[index].add_done_callback(ended)
    # In the order they were given out, so that of several broken layers the same one is named every time.
    found = {index: future.result() for index, future in futures.items()}
    return tuple(found[index] for index in range(len(layers)))


def _cost(layer: LayerMatrix) -> int:
    small, large = sorted((layer.p, layer.q))
    return small * small * (small + large)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds; NumPy's is there once this module is.
    return ThreadpoolController()
