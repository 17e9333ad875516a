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
from multiprocessing import forkserver
from multiprocessing.connection import wait as wait_for
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError
from registry.ingest.executors.base import Outcome, confined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from registry.ingest.executors.base import Task, Work

__all__ = ["Pool"]

# Read by the libraries when they are loaded. The workers are the parallelism: more threads than cores slow all of it.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Never a fork of this process, which has threads. A server to fork from loads the modules once for all workers.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
# A worker gets tasks before it is through with what it has where all of it takes no longer than this: enough that it
# never waits for this process to finish a write, too little for another worker to stand idle in the end.
AHEAD = 0.5  # seconds


class Pool:
    """Worker processes with one BLAS thread each; they end with this process, however it ends.

    A worker that dies, or is killed at a task's limit, takes along the task that it was at, and no other.
    """

    apart = False

    def __init__(self, workers: int, modules: Sequence[str]) -> None:
        self._count = workers
        self._modules = tuple(modules)
        self._work: Work | None = None
        self._workers: list[_Worker] = []
        self._back: SimpleQueue[tuple[_Worker, Outcome | Exception | None]] = SimpleQueue()
        self._left: deque[Task] = deque()  # by workers that died before they came to them
        if METHOD == "forkserver":
            CONTEXT.set_forkserver_preload(list(self._modules))
            with _clean_start():
                forkserver.ensure_running()

    def begin(self, work: Work) -> None:
        """Start the workers."""
        self._work = work
        for _ in range(self._count):
            self._start()

    def _start(self) -> None:
        with _clean_start():
            self._workers.append(_Worker((self._work, self._modules), self._back))

    def room(self, task: Task) -> bool:
        """Whether a worker is free, or soon."""
        return not self._left and any(worker.room(task) for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give it to the worker that is expected to be free first."""
        min(self._workers, key=lambda worker: worker.cost).give(task)

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what is done, and what died or was killed."""
        found: list[Outcome] = []
        try:
            self._take(found, *(self._back.get(timeout=seconds) if seconds > 0 else self._back.get_nowait()))
            while True:
                self._take(found, *self._back.get_nowait())
        except Empty:
            return found

    def _take(self, found: list[Outcome], worker: _Worker, told: Outcome | Exception | None) -> None:
        if isinstance(told, Outcome):
            worker.tasks.popleft()
            found.append(told)
        elif worker.up and told is not None:  # what could not be sent back
            found.append(Outcome(worker.tasks.popleft(), 0.0, error=told))
        elif worker in self._workers:
            found += self._buried(worker, told)
        while self._left and any(each.room(self._left[0]) for each in self._workers):
            self.submit(self._left.popleft())

    def _buried(self, worker: _Worker, reason: Exception | None) -> list[Outcome]:
        """What a worker that has gone took along; another starts in its place."""
        self._workers.remove(worker)
        late = worker.end() == -getattr(signal, "SIGALRM", 0)
        begun = [worker.tasks.popleft()] if worker.up and worker.tasks else []
        self._left += worker.tasks
        if worker.up:
            self._start()
        elif not self._workers:
            why = f": {reason}" if reason else ""
            raise RegistryError(f"no worker process could be started{why}", "run it in this process: --workers 1")
        return [Outcome(task, task.limit if late else 0.0, died=not late, late=late) for task in begun]

    def close(self) -> None:
        """End the workers, whatever they are at: they write nothing."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Worker:
    """A process, the tasks it has been given, oldest first, and the thread that takes in what it has to say."""

    def __init__(self, given: tuple[Any, ...], back: SimpleQueue[Any]) -> None:
        self.tasks: deque[Task] = deque()
        self.up = False
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, *given), daemon=True)
        self._process.start()
        theirs.close()
        # In a thread: an interruption of the main one must not cut a message in two, nor a long write there keep
        # the worker from going on.
        self._thread = threading.Thread(target=self._receive, args=(back,), daemon=True)
        self._thread.start()

    @property
    def cost(self) -> float:
        """Seconds that its tasks are expected to take."""
        return sum(task.cost for task in self.tasks)

    def room(self, task: Task) -> bool:
        """Whether it has nothing to do, or so little that it should not have to wait for more."""
        return not self.tasks or self.cost + task.cost <= AHEAD

    def give(self, task: Task) -> None:
        """Send a task; should the process have gone, the thread tells so."""
        self.tasks.append(task)
        with suppress(OSError):
            self._pipe.send(task)

    def _receive(self, back: SimpleQueue[Any]) -> None:
        told: Outcome | Exception | None
        while True:
            try:
                told = self._pipe.recv()
            except (EOFError, OSError):
                break
            except Exception as error:  # noqa: BLE001 - whatever the value is that cannot be had again
                told = error
            if told is None:
                self.up = True
            else:
                back.put((self, told))
        back.put((self, None))

    def stop(self) -> None:
        """Let it go once it has nothing to do, else end it."""
        if self.up and not self.tasks:
            with suppress(OSError):
                self._pipe.send(None)
        else:
            self._process.terminate()

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        self._process.join()
        self._thread.join()
        self._pipe.close()
        code: int = self._process.exitcode
        return code


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
    try:
        for module in modules:
            import_module(module)
    except Exception as error:  # noqa: BLE001 - told by the other process
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
        return
    pipe.send(None)
    with suppress(EOFError, BrokenPipeError):
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
