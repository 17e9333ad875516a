"""Spectra of a whole network: its layers side by side on the cores, each on one BLAS thread, or on a CUDA device."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from threading import Event, Semaphore
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from registry.errors import SpectrumError
from registry.spectral.devices import CPU, solver_on
from registry.spectral.eigen import begin, spectrum
from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import column_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.spectral.devices import Device
    from registry.spectral.lapack import Precision, Solver
    from registry.types import LayerMatrix, Spectrum

__all__ = ["network_spectra"]


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

    One BLAS thread a layer, so that the bits do not depend on the number of cores, and so that small matrices, most of
    a network's, do not wait for threads. Costly layers go first, which balances the cores; at most ``workers`` + 1
    matrices are in memory. Of layers that each outweigh a core's share, the product is shared out first, a block of
    columns a core; one term a core is in memory besides. Time: the sum over layers of n^2 m + n^3 (n <= m the smaller
    and larger extent), divided by the cores while no layer's n^3 outweighs a core's share.

    Parameters
    ----------
    layers
        At least one.
    read
        Gives a layer's weights (p, q); called in this thread alone.
    workers
        Threads; the cores this process may use by default. On a CUDA device it is one.
    precision
        As in `layer_spectrum`.
    device
        ``cpu``, ``cuda``, or ``auto``: ``cuda`` where a device is at hand, else ``cpu``; see `device_at_hand`.
    approximate
        As in `layer_spectrum`; on the processor whatever the device.

    Raises
    ------
    SpectrumError
        No layers; as `spectrum`; whatever ``read`` raises.
    RegistryError
        ``cuda`` is asked for, and no device is at hand.
    """
    if not layers:
        raise SpectrumError("no layers: the spectrum of a network without any is undefined")
    solver, shared = solver_on(device, precision)
    if approximate:
        solver = Lanczos(solver, LARGE)
    threads = 1 if shared else workers or _cores()
    work = _Work(threads, solver, sum(map(_cost, layers)) / threads)
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for index in sorted(range(len(layers)), key=lambda i: -_cost(layers[i])):
            if not work.give(index, layers[index], read, pool):
                break
    # In the order they were given out, so that of several broken layers the same one is named every time.
    found = {index: future.result() for index, future in work.futures.items()}
    return tuple(found[index] for index in range(len(layers)))


class _Work:
    """Layers given out to a pool of threads, ``share`` being what costs a thread as much as any other."""

    def __init__(self, threads: int, solver: Solver, share: float) -> None:
        self.futures: dict[int, Future[Spectrum]] = {}
        self._threads, self._solver, self._share = threads, solver, share
        self._free, self._broken = Semaphore(threads + 1), Event()

    def give(
        self,
        index: int,
        layer: LayerMatrix,
        read: Callable[[LayerMatrix], NDArray[np.floating]],
        pool: ThreadPoolExecutor,
    ) -> bool:
        """Give out a layer once there is room; False where one before it is broken."""
        # Whichever layer ends first makes room: waiting for the costliest would leave the other cores idle.
        self._free.acquire()
        if self._broken.is_set():
            return False
        if _cost(layer) > self._share and len(column_blocks(layer.p, layer.q)) > 1:
            rest = begin(layer, read(layer), self._solver, partial(_side_by_side, pool, self._threads))
            future = pool.submit(rest)
        else:
            future = pool.submit(spectrum, layer, read(layer), self._solver)
        self.futures[index] = future
        future.add_done_callback(self._ended)
        return True

    def _ended(self, future: Future[Spectrum]) -> None:
        if future.exception() is not None:
            self._broken.set()
        self._free.release()


def _side_by_side(
    pool: ThreadPoolExecutor,
    threads: int,
    work: Callable[[int], NDArray[np.floating]],
    items: Iterable[int],
) -> Iterator[NDArray[np.floating]]:
    """``map`` on the pool's threads, no further ahead than they are many: what is not taken yet is held in memory."""
    left = iter(items)
    while some := [pool.submit(work, item) for item in islice(left, threads)]:
        for future in some:
            yield future.result()


def _cost(layer: LayerMatrix) -> int:
    small, large = sorted((layer.p, layer.q))
    return small * small * (small + large)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds; NumPy's is there once this module is.
    return ThreadpoolController()
