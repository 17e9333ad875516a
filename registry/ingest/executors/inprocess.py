"""Executor that runs tasks in this process, one after the other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from registry.ingest.executors.base import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.ingest.executors.base import Setting, Task, Work

__all__ = ["InProcess", "start"]


class InProcess:
    """Runs a task when it is waited for. It cannot stop a task, so it has no time limits."""

    apart = True

    def __init__(self) -> None:
        self._work: Work | None = None
        self._tasks: deque[Task] = deque()

    def begin(self, work: Work) -> None:
        """Store the work."""
        self._work = work

    def room(self, task: Task) -> bool:  # noqa: ARG002
        """One task at a time."""
        return not self._tasks

    def submit(self, task: Task) -> None:
        """Keep the task for `wait`."""
        self._tasks.append(task)

    def wait(self, seconds: float) -> list[Outcome]:
        """Run the oldest task to its end; does nothing if the time to wait is 0."""
        if self._work is None or not seconds or not self._tasks:
            return []
        return [attempt(self._work, self._tasks.popleft())]

    def close(self) -> None:
        """Drop the tasks."""
        self._tasks.clear()


def start(setting: Setting, modules: Sequence[str]) -> InProcess:  # noqa: ARG001
    """The executor of this process, whatever the setting."""
    return InProcess()
