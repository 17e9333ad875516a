"""Interface of executors, which run tasks, several at a time, and return their outcomes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelRef

__all__ = ["Executor", "Outcome", "Setting", "Task", "Work", "attempt", "confined"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where tasks run: name of the executor, number of workers (None: one per core), address of a cluster.

    ``limit``: time limit of a task in seconds, if the executor can stop it; None: from the task's cost; 0: none.
    """

    name: str
    workers: int | None = None
    address: str | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A model to measure.

    ``force``: measure it even if it seems to be stored. ``memory``: expected bytes. ``cost``: expected seconds.
    ``limit``: seconds after which its process is killed, 0 for never. ``kin``: a key shared by models of probably the
    same shapes, whose ensembles one process computes only once.
    """

    position: int
    ref: ModelRef
    force: bool = False
    memory: int = 0
    cost: float = 0.0
    limit: float = 0.0
    kin: str = ""

    def forced(self) -> Task:
        """The same task with ``force``."""
        return replace(self, force=True)


Work = Callable[[Task], Any]
"""The function applied to a task. It writes nothing; for other processes it must be picklable."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a task: the ``value`` of the work, or the ``error`` it raised.

    ``died``: the process of the task ended. ``late``: it was killed because the task exceeded its limit.
    """

    task: Task
    seconds: float
    value: Any = None
    error: Exception | None = None
    died: bool = False
    late: bool = False

    @property
    def sound(self) -> bool:
        """Whether there is a value."""
        return self.error is None and not (self.died or self.late)


class Executor(Protocol):
    """Runs tasks. It stores nothing; the caller stores the outcomes.

    The constructor starts what workers need, so that they are ready when the tasks are known. ``apart``: whether tasks
    run in separate processes, so that one cannot end another.
    """

    apart: bool

    def begin(self, work: Work) -> None:
        """Set the work for every task; called before the first task."""

    def room(self, task: Task) -> bool:
        """Whether to submit this task now; true as long as it keeps workers busy with few tasks waiting."""

    def submit(self, task: Task) -> None:
        """Accept a task; it may start at once."""

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """Return finished outcomes, after waiting for one for at most the given time."""

    def close(self) -> None:
        """Drop unfinished tasks and end all processes."""


def attempt(work: Work, task: Task) -> Outcome:
    """Run a task and catch its exceptions, except interruptions."""
    begun = time.perf_counter()
    try:
        value = work(task)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one model is that model's failure
        return Outcome(task, time.perf_counter() - begun, error=error)
    return Outcome(task, time.perf_counter() - begun, value)


def confined(work: Work, task: Task) -> Outcome:
    """`attempt` for a worker process, which SIGALRM kills if the task exceeds its limit.

    The signal's default action is used, not a Python handler, because a task that hangs may do so in a C function. On
    systems without such timers there is no limit.
    """
    if not task.limit or not hasattr(signal, "setitimer"):
        return attempt(work, task)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, task.limit)
    try:
        return attempt(work, task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
