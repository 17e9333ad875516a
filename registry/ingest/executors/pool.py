"""Executor that runs tasks in worker processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait as wait_for
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError
from registry.ingest.executors.base import Outcome, confined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from registry.ingest.executors.base import Setting, Task, Work

__all__ = ["Pool", "start"]

# Read by the libraries when they are loaded. Workers provide the parallelism; more threads than cores are slower.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# This process has threads and is never forked. A fork server loads the modules once for all workers.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
# A worker gets a second task if both together are expected to take no longer than this, so that it does not wait for
# the next one. Longer tasks go to the first free worker, so that none is idle while another has two.
AHEAD = 0.5  # seconds
AHEAD_BYTES = (
    1 << 15
)  # bytes of such a task; a larger one would not fit the pipe and could deadlock with a worker that sends its result
# Expected seconds of tasks that wait here per worker: enough work while this process writes.
WAITING = 1.0  # seconds


class Pool:
    """Worker processes with one BLAS thread each. They end with this process, however it ends.

    A worker that dies, or is killed at the limit of a task, loses only the task that it was running.
    """

    apart = False

    def __init__(self, workers: int, modules: Sequence[str]) -> None:
        self._count = workers
        self._modules = tuple(modules)
        self._work: Work | None = None
        self._lock = threading.Lock()  # guards the tasks, here and of the workers
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._back: SimpleQueue[Outcome | _Worker] = SimpleQueue()  # a Worker in the queue means that it has ended
        self._found: list[Outcome] = []  # taken from the queue; kept here if an interruption comes
        if METHOD == "forkserver":
            CONTEXT.set_forkserver_preload(list(self._modules))
            with _clean_start():
                _start_server()

    def begin(self, work: Work) -> None:
        """Start the workers."""
        self._work = work
        for _ in range(self._count):
            self._start()

    def _start(self) -> None:
        with _clean_start():
            worker = _Worker(self._work, self._modules)
        self._workers.append(worker)
        worker.listen(self._hear)

    def room(self, task: Task) -> bool:
        """Whether a worker is free, or may be free before the next submission."""
        with self._lock:
            free = sum(not worker.tasks for worker in self._workers) > len(self._waiting)
            return free or sum(each.cost for each in self._waiting) + task.cost <= WAITING * self._count

    def submit(self, task: Task) -> None:
        """Give the task to the first free worker."""
        with self._lock:
            self._waiting.append(task)
            self._feed()

    def _feed(self) -> None:
        for worker in sorted(self._workers, key=lambda worker: worker.cost):
            while self._waiting:
                at = self._next(worker)
                if not worker.take(self._waiting[at]):
                    break
                del self._waiting[at]

    def _next(self, worker: _Worker) -> int:
        """The waiting task for a worker: one of its kin, else one of a kin that no worker has, else the oldest."""
        taken = {each.kin for each in self._workers}
        return min(range(len(self._waiting)), key=lambda at: (self._rank(worker, self._waiting[at], taken), at))

    def _rank(self, worker: _Worker, task: Task, taken: set[str | None]) -> int:
        return 0 if task.kin == worker.kin else 1 + (task.kin in taken)

    def _hear(self, worker: _Worker, told: Outcome | Exception | None) -> None:
        """Handle a message of a worker, in its listening thread; None means that it has ended."""
        if told is None:
            self._back.put(worker)
            return
        with self._lock:
            task = worker.tasks.popleft()
            self._feed()
        self._back.put(told if isinstance(told, Outcome) else Outcome(task, 0.0, error=told))

    def wait(self, seconds: float) -> list[Outcome]:
        """Return finished outcomes, including those of workers that died or were killed."""
        with suppress(Empty):
            told = self._back.get(timeout=seconds) if seconds > 0 else self._back.get_nowait()
            while True:
                self._found += [told] if isinstance(told, Outcome) else self._buried(told)
                told = self._back.get_nowait()
        found, self._found = self._found, []
        return found

    def _buried(self, worker: _Worker) -> list[Outcome]:
        """Outcomes of the tasks of a worker that ended; starts a worker in its place."""
        late = worker.end() == -getattr(signal, "SIGALRM", 0)
        with self._lock:
            self._workers.remove(worker)
            begun = [worker.tasks.popleft()] if worker.up and worker.tasks else []
            self._waiting.extendleft(reversed(worker.tasks))
        if worker.up:
            self._start()
        elif not self._workers:
            why = f": {worker.reason}" if worker.reason else ""
            raise RegistryError(f"no worker process could be started{why}", "run it in this process: --workers 1")
        with self._lock:
            self._feed()
        return [Outcome(task, task.limit if late else 0.0, died=not late, late=late) for task in begun]

    def close(self) -> None:
        """End the workers; they write nothing, so their tasks can be dropped."""
        with self._lock:
            self._waiting.clear()
            for worker in self._workers:
                worker.stop()
        for worker in self._workers:
            worker.end()
        self._workers.clear()


def start(setting: Setting, modules: Sequence[str]) -> Pool:
    """The processes of a setting, one where it names no number."""
    return Pool(setting.workers or 1, modules)


class _Worker:
    """A process, and the tasks given to it, oldest first.

    ``kin``: that of its last task. ``up``: it has started. ``reason``: why it could not start.
    """

    def __init__(self, work: Work | None, modules: Sequence[str]) -> None:
        self.tasks: deque[Task] = deque()
        self.kin: str | None = None
        self.up = False
        self.reason = ""
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, work, modules), daemon=True)
        self._process.start()
        theirs.close()
        self._thread: threading.Thread | None = None

    def listen(self, hear: Callable[[_Worker, Outcome | Exception | None], None]) -> None:
        """Receive its messages in a thread.

        An interruption of the main thread must not split a message, and a long write there must not block the worker.
        """
        self._thread = threading.Thread(target=self._receive, args=(hear,), daemon=True)
        self._thread.start()

    def _receive(self, hear: Callable[[_Worker, Outcome | Exception | None], None]) -> None:
        told: Outcome | Exception | str | None
        while True:
            try:
                told = self._pipe.recv()
            except (EOFError, OSError):
                break
            except Exception as error:  # noqa: BLE001 - whatever the value is that cannot be had again
                told = error
            if told is None:
                self.up = True
            elif isinstance(told, str):
                self.reason = told
            else:
                hear(self, told)
        hear(self, None)

    @property
    def cost(self) -> float:
        """Expected seconds of its tasks."""
        return sum(task.cost for task in self.tasks)

    def take(self, task: Task) -> bool:
        """Give it a task if it has none, or only a short one."""
        if len(self.tasks) > 1 or (self.tasks and self.cost + task.cost > AHEAD):
            return False
        message = ForkingPickler.dumps(task)
        if self.tasks and len(message) > AHEAD_BYTES:
            return False
        self.tasks.append(task)
        self.kin = task.kin
        with suppress(OSError):  # it has ended, which its listening thread reports
            self._pipe.send_bytes(message)
        return True

    def stop(self) -> None:
        """Let it end if it is idle, else kill it."""
        if self.up and not self.tasks:
            with suppress(OSError):
                self._pipe.send(None)
        else:
            self._process.terminate()

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        self._process.join()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()
        code: int = self._process.exitcode
        return code


def _start_server() -> None:
    """Start the fork server with SIGINT blocked: Ctrl-C would end it while it loads modules."""
    resource_tracker.ensure_running()  # done here first, because starting the server would do it and unblock the signal
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextmanager
def _clean_start() -> Iterator[None]:
    """Let new processes load libraries with one thread, and not run this program's main module.

    Workers need nothing from it. Running it again takes time, and a script without a main guard would start processes
    forever.
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


def _serve(pipe: Connection, work: Work, modules: Sequence[str]) -> None:
    """Main function of a worker: report that it is up, then run tasks until there are no more."""
    # Ctrl-C reaches every process of the terminal; the process that writes decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the parent process has ended
        # The parent process has reported the plug-ins that cannot be used.
        logging.getLogger("registry.extensions").setLevel(logging.ERROR)
        try:
            for module in modules:
                import_module(module)
        except Exception as error:  # noqa: BLE001 - told by the other process
            pipe.send(f"{type(error).__name__}: {error}")
            return
        pipe.send(None)
        while (task := pipe.recv()) is not None:
            outcome = confined(work, task)
            try:
                message = ForkingPickler.dumps(outcome)
            except Exception as error:  # noqa: BLE001 - what cannot be sent is that task's failure
                message = ForkingPickler.dumps(Outcome(task, outcome.seconds, error=RuntimeError(str(error))))
            pipe.send_bytes(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
