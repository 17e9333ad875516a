"""What an executor is: it does tasks somewhere, several at a time, and hands back what became of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelRef

__all__ = ["Executor", "Outcome", "Task", "Work", "attempt", "confined"]


@dataclass(frozen=True, slots=True)
class Task:
    """A model to be measured.

    ``force``: even if it seems to be stored already; ``memory``: bytes it may need; ``cost``: seconds it is expected to
    take; ``limit``: seconds after which a process of its own is killed, 0 for never; ``kin``: the same for models that
    are likely to be of the same shapes, which a process computes the ensembles of once.
    """

    position: int
    ref: ModelRef
    force: bool = False
    memory: int = 0
    cost: float = 0.0
    limit: float = 0.0
    kin: str = ""

    def forced(self) -> Task:
        """The same, by force."""
        return replace(self, force=True)


Work = Callable[[Task], Any]
"""What is done with a task. It writes nothing, and where other processes do it, it can be pickled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: the ``value`` of the work or the ``error`` it raised.

    ``died``: its process went away; ``late``: it was made to, as the task took longer than its limit.
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
    """Where tasks are done. Nothing is written there: whoever runs them stores what comes back.

    Making one starts what its workers start from, so that they are up when it is known what to do. ``apart``: whether
    tasks have memory of their own, so that none can be the death of another.
    """

    apart: bool

    def begin(self, work: Work) -> None:
        """Say what is done with every task; before the first."""

    def room(self, task: Task) -> bool:
        """Whether to give it this task now: it keeps workers busy, and as little waiting for them as does that."""

    def submit(self, task: Task) -> None:
        """Take a task; it may begin at once."""

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """Return what has been finished, after waiting for something to be, or for so long."""

    def close(self) -> None:
        """Drop what is unfinished and let go of all processes."""


def attempt(work: Work, task: Task) -> Outcome:
    """Do a task and catch what it raises, interruptions excepted."""
    begun = time.perf_counter()
    try:
        value = work(task)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one model is that model's failure
        return Outcome(task, time.perf_counter() - begun, error=error)
    return Outcome(task, time.perf_counter() - begun, value)


def confined(work: Work, task: Task) -> Outcome:
    """`attempt`, for a process of its own: it is killed by SIGALRM once the task takes longer than its limit.

    By the system, and not from within Python: what hangs may do so in a C function that never comes back. Where there
    are no such timers there is no limit.
    """
    if not task.limit or not hasattr(signal, "setitimer"):
        return attempt(work, task)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, task.limit)
    try:
        return attempt(work, task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
