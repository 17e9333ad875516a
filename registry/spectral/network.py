"""Spectra of a whole network: its layers side by side on the cores, each on one BLAS thread, or on a CUDA device."""

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

# Eigenvalues in one call of NumPy's up to which it holds the interpreter's lock, and all other threads with it.
LOCKED = 500
# Weights of layers that go together, beyond which they go as they are.
TOGETHER = 2**20
# Mean cost of a layer, in multiplications, below which handing it to a thread takes longer than another core gains.
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

    One BLAS thread a layer, so that the bits do not depend on the number of cores, and so that small matrices, most of
    a network's, do not wait for threads. Costly layers go first, which balances the cores; small ones of one order go
    together. At most ``workers`` + 1 matrices, or as many such groups of some 2^20 weights, are in memory. Of layers
    that each outweigh a core's share, the product is shared out first, a block of columns a core; one term a core is in
    memory besides. Time: the sum over layers of n^2 m + n^3 (n <= m the smaller and larger extent), of approximate ones
    of 7,000 n m, divided by the cores while no layer's n^3 outweighs a core's share.

    Parameters
    ----------
    layers
        At least one.
    read
        Gives a layer's weights (p, q); called in this thread alone.
    workers
        Threads, or 1 for this one alone; by default the cores this process may use, where layers are large enough for
        that to pay. On a CUDA device it is one.
    precision
        As in `layer_spectrum`.
    device
        ``cpu``, ``cuda``, or ``auto``: ``cuda`` where a device is at hand, else ``cpu``; see `device_at_hand`.
    approximate
        As in `layer_spectrum`; on the processor whatever the device.

    Raises
    ------
    SpectrumError
        No layers, ``workers`` below 1; as `spectrum`; whatever ``read`` raises.
    RegistryError
        ``cuda`` is asked for, and no device is at hand.
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
    # In the order they were given out, so that of several broken layers the same one is named every time.
    return {one.layer: one for future in work.futures for one in future.result()}


def _tasks(layers: Sequence[LayerMatrix], costs: Sequence[int]) -> Iterator[list[LayerMatrix]]:
    """The layers, costliest first; small ones of one order together, once they are enough or too much to hold."""
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
    """Layers given out to a pool of threads, ``share`` being what costs a thread as much as any other."""

    def __init__(self, threads: int, solver: Solver, share: float) -> None:
        self.futures: list[Future[tuple[Spectrum, ...]]] = []
        self.threads, self._solver, self._share = threads, solver, share
        self._free, self._broken = Semaphore(threads + 1), Event()

    def give(
        self, task: Sequence[LayerMatrix], read: Callable[[LayerMatrix], NDArray[np.floating]], pool: ThreadPoolExecutor
    ) -> bool:
        """Give out layers once there is room; False where one before them is broken."""
        # Whichever task ends first makes room: waiting for the costliest would leave the other cores idle.
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
    """``map`` on the pool's threads, no further ahead than they are many: what is not taken yet is held in memory."""
    left = iter(items)
    while some := [pool.submit(work, item) for item in islice(left, threads)]:
        for future in some:
            yield future.result()


def extents(layer: LayerMatrix) -> tuple[int, int]:
    """The smaller extent of a layer's matrix, and the larger."""
    return min(layer.p, layer.q), max(layer.p, layer.q)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds; NumPy's is there once this module is.
    return ThreadpoolController()
