"""Spectra of a whole network: layers in parallel on the cores, one BLAS thread each, or on a CUDA device."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from threading import Event, Semaphore
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from registry.ensembles.checks import check_whole
from registry.errors import SpectrumError
from registry.spectral.devices import CPU, solver_on
from registry.spectral.eigenvalues import begin, end, spectra
from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import Lapack, column_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.spectral.devices import Device
    from registry.spectral.lapack import Precision, Solver
    from registry.types import LayerMatrix, Spectrum

__all__ = ["extents", "network_spectra"]

# Up to this many eigenvalues per call, NumPy holds the interpreter lock and blocks all other threads.
LOCKED = 500
# Largest number of weights in a group of layers that are computed together.
TOGETHER = 2**20
# Mean cost of a layer, in multiplications, below which threads cost more than they gain.
WORTH_THREADS = 1_000_000


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
    with _blas().limit(limits=1, user_api="blas"):
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


@cache
def _blas() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds; NumPy's is loaded before this module.
    return ThreadpoolController()
