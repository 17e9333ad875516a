"""Tasks in worker processes of this machine."""

from __future__ import annotations

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

    from registry.ingest.executors.base import Task, Work

__all__ = ["Pool"]

# Read by the libraries when they are loaded. The workers are the parallelism: more threads than cores slow all of it.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Never a fork of this process, which has threads. A server to fork from loads the modules once for all workers.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
# A worker has one task more than it is at where both together are expected to take no longer than this, so that it need
# not wait for the next. Otherwise whoever is free first takes it, and none stands idle while another has two.
AHEAD = 0.5  # seconds
AHEAD_BYTES = 1 << 15  # of such a task: one that does not fit the pipe would wait for who waits to send its result
# Tasks wait here, a worker, that are expected to take so long: enough to go on with while this process writes.
WAITING = 1.0  # seconds


class Pool:
    """Worker processes with one BLAS thread each; they end with this process, however it ends.

    A worker that dies, or is killed at a task's limit, takes along the task that it was at, and no other.
    """

    apart = False

    def __init__(self, workers: int, modules: Sequence[str]) -> None:
        self._count = workers
        self._modules = tuple(modules)
        self._work: Work | None = None
        self._lock = threading.Lock()  # over the tasks, here and of the workers
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._back: SimpleQueue[Outcome | _Worker] = SimpleQueue()  # a worker: it has ended
        self._found: list[Outcome] = []  # taken from there; what an interruption cuts short is still here
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
        """Whether a worker is free, or may be before this process gives out the next."""
        with self._lock:
            free = sum(not worker.tasks for worker in self._workers) > len(self._waiting)
            return free or sum(each.cost for each in self._waiting) + task.cost <= WAITING * self._count

    def submit(self, task: Task) -> None:
        """Give it to the worker that is free first."""
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
        """Which of those that wait is for a worker: the first of its kin, else of nobody's, else of all."""
        taken = {each.kin for each in self._workers}
        return min(range(len(self._waiting)), key=lambda at: (self._rank(worker, self._waiting[at], taken), at))

    def _rank(self, worker: _Worker, task: Task, taken: set[str | None]) -> int:
        return 0 if task.kin == worker.kin else 1 + (task.kin in taken)

    def _hear(self, worker: _Worker, told: Outcome | Exception | None) -> None:
        """What a worker says, in the thread that listens to it; None is its end."""
        if told is None:
            self._back.put(worker)
            return
        with self._lock:
            task = worker.tasks.popleft()
            self._feed()
        self._back.put(told if isinstance(told, Outcome) else Outcome(task, 0.0, error=told))

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what is done, and what died or was killed."""
        with suppress(Empty):
            told = self._back.get(timeout=seconds) if seconds > 0 else self._back.get_nowait()
            while True:
                self._found += [told] if isinstance(told, Outcome) else self._buried(told)
                told = self._back.get_nowait()
        found, self._found = self._found, []
        return found

    def _buried(self, worker: _Worker) -> list[Outcome]:
        """What a worker that has gone took along; another starts in its place."""
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
        """End the workers, whatever they are at: they write nothing."""
        with self._lock:
            self._waiting.clear()
            for worker in self._workers:
                worker.stop()
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Worker:
    """A process, and the tasks it has been given, oldest first.

    ``kin``: of the last of them; ``up``: it has started; ``reason``: why it could not.
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
        """Take in what it says in a thread.

        An interruption of the main one must not cut a message in two, nor a long write there keep the worker waiting.
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
        """Seconds that its tasks are expected to take."""
        return sum(task.cost for task in self.tasks)

    def take(self, task: Task) -> bool:
        """Give it a task if it has nothing to do, or so little that it should not have to wait for more."""
        if len(self.tasks) > 1 or (self.tasks and self.cost + task.cost > AHEAD):
            return False
        message = ForkingPickler.dumps(task)
        if self.tasks and len(message) > AHEAD_BYTES:
            return False
        self.tasks.append(task)
        self.kin = task.kin
        with suppress(OSError):  # it has gone, and will be told to have
            self._pipe.send_bytes(message)
        return True

    def stop(self) -> None:
        """Let it go where it has nothing to do, else end it."""
        if self.up and not self.tasks:
            with suppress(OSError):
                self._pipe.send(None)
        else:
            self._process.terminate()

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        self._process.join()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()
        code: int = self._process.exitcode
        return code


def _start_server() -> None:
    """Start what workers are forked from, with the mask of this thread: Ctrl-C would end it while it loads modules."""
    resource_tracker.ensure_running()  # which the server's start does otherwise, and takes the mask off
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


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


def _serve(pipe: Connection, work: Work, modules: Sequence[str]) -> None:
    """What a worker does: say that it is up, then tasks until there are no more."""
    # Ctrl-C reaches every process of the terminal: it is for the one that writes to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # whoever started it has gone
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
