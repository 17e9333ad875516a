"""Tasks in worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError
from registry.ingest.executors.base import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import Queue

    from registry.ingest.executors.base import Task, Work

__all__ = ["Pool"]

# Read by the libraries when they are loaded. The workers are the parallelism: more threads than cores slow all of it.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Never a fork of this process, which has threads. A server to fork from loads the modules once for all workers.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT = multiprocessing.get_context(METHOD)
_given: Queue[Work] | None = None


class Pool:
    """Worker processes with one BLAS thread each, started at once; they end with this process, however it ends.

    A worker that dies takes the pool with it: it is made anew, and what was in flight comes back as died.
    """

    exact = False

    def __init__(self, workers: int, modules: Sequence[str]) -> None:
        self.slots = 2 * workers
        self._workers = workers
        self._modules = tuple(modules)
        self._work: Work | None = None
        self._given: Queue[Work] = CONTEXT.Queue()
        self._tasks: dict[Future[Outcome], Task] = {}
        self._started: list[Future[None]] = []
        self._processes: list[BaseProcess] = []
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        before = set(multiprocessing.active_children())
        self._given = CONTEXT.Queue()
        pool = ProcessPoolExecutor(self._workers, CONTEXT, _begin, (self._given,))
        if METHOD == "forkserver":
            CONTEXT.set_forkserver_preload(list(self._modules))
        with _clean_start():
            self._started = [pool.submit(_load, self._modules) for _ in range(self._workers)]
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        return pool

    def begin(self, work: Work) -> None:
        """Send the work to every worker; each takes it before its first task."""
        self._work = work
        for _ in range(self._workers):
            self._given.put(work)

    def submit(self, task: Task) -> None:
        """Give it to the next worker that is free."""
        try:
            future = self._pool.submit(_do, task)
        except BrokenProcessPool:
            self._renew()
            future = self._pool.submit(_do, task)
        self._tasks[future] = task

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what is done; a death is told with all that it took."""
        finished, _ = wait(self._tasks, timeout=seconds, return_when=FIRST_COMPLETED)
        outcomes = [self._outcome(future, self._tasks.pop(future)) for future in finished]
        if any(outcome.died for outcome in outcomes):
            rest, _ = wait(self._tasks)  # all of them are broken, too
            outcomes += [self._outcome(future, self._tasks.pop(future)) for future in rest]
            self._renew()
        return outcomes

    def _outcome(self, future: Future[Outcome], task: Task) -> Outcome:
        try:
            return future.result()
        except BrokenProcessPool:
            return Outcome(task, 0.0, died=True)
        except Exception as error:  # noqa: BLE001 - what could not be sent back
            return Outcome(task, 0.0, error=error)

    def _renew(self) -> None:
        if not any(future.done() and future.exception() is None for future in self._started):
            raise RegistryError("no worker process could be started", "run it in this process: --workers 1")
        self._let_go()
        self._pool = self._start()
        if self._work is not None:
            self.begin(self._work)

    def close(self) -> None:
        """End the workers, whatever they are at: they write nothing."""
        unfinished = bool(self._tasks) or not all(future.done() for future in self._started)
        self._tasks.clear()
        if unfinished:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in self._processes:
                process.terminate()
        self._let_go()

    def _let_go(self) -> None:
        self._pool.shutdown(wait=True)
        self._given.close()
        self._given.cancel_join_thread()  # what no worker took, nobody will


@contextmanager
def _clean_start() -> Iterator[None]:
    """Let new processes load libraries with one thread, and run nothing of this program's own main module.

    A worker needs nothing from there, and running it again costs time; in a script without a guard it would not end.
    """
    main: Any = sys.modules["__main__"]
    kept = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    threads = {name: os.environ.get(name) for name in THREADS}
    try:
        for name in kept:
            setattr(main, name, None)
        vars(main).pop("__file__", None)
        os.environ.update(dict.fromkeys(THREADS, "1"))
        yield
    finally:
        vars(main).update(kept)
        for name, value in threads.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(given: Queue[Work]) -> None:
    """In a worker, before its first task."""
    global _given
    _given = given
    # Ctrl-C reaches every process of the terminal: it is for the one that writes to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _load(modules: Sequence[str]) -> None:
    """Start a worker, before there is a task."""
    for module in modules:
        import_module(module)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _do(task: Task) -> Outcome:
    return attempt(_work(), task)


@cache
def _work() -> Work:
    if _given is None:
        raise RuntimeError("no worker of a pool")
    return _given.get()
