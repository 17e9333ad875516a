"""What an executor is: it does tasks somewhere, several at a time, and hands back what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelRef

__all__ = ["Executor", "Outcome", "Task", "Work", "attempt"]


@dataclass(frozen=True, slots=True)
class Task:
    """A model to be measured. ``force``: even if it seems to be stored already; ``memory``: bytes it may need."""

    position: int
    ref: ModelRef
    force: bool = False
    memory: int = 0

    def forced(self) -> Task:
        """The same, by force."""
        return replace(self, force=True)


Work = Callable[[Task], Any]
"""What is done with a task. It writes nothing, and where other processes do it, it can be pickled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: the ``value`` of the work or the ``error`` it raised; ``died``: its process went away."""

    task: Task
    seconds: float
    value: Any = None
    error: Exception | None = None
    died: bool = False


class Executor(Protocol):
    """Where tasks are done. Nothing is written there: whoever runs them stores what comes back.

    Making one starts its workers, so that they are up when it is known what to do. ``slots``: tasks in flight at most,
    which keeps all workers busy and bounds what waits in memory; ``exact``: whether a death is the task's own: where it
    is not, whatever was in flight has died with it.
    """

    slots: int
    exact: bool

    def begin(self, work: Work) -> None:
        """Say what is done with every task; before the first."""

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
