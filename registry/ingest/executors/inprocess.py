"""Tasks in this process, one after the other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from registry.ingest.executors.base import Outcome, attempt

if TYPE_CHECKING:
    from registry.ingest.executors.base import Task, Work

__all__ = ["InProcess"]


class InProcess:
    """Does a task when it is waited for. Nothing can stop it: limits are for processes that can be killed."""

    apart = True

    def __init__(self) -> None:
        self._work: Work | None = None
        self._tasks: deque[Task] = deque()

    def begin(self, work: Work) -> None:
        """Remember the work."""
        self._work = work

    def room(self, task: Task) -> bool:  # noqa: ARG002
        """One at a time."""
        return not self._tasks

    def submit(self, task: Task) -> None:
        """Keep it for `wait`."""
        self._tasks.append(task)

    def wait(self, seconds: float) -> list[Outcome]:
        """Do the oldest task, however long it takes; with no time to wait, nothing."""
        if self._work is None or not seconds or not self._tasks:
            return []
        return [attempt(self._work, self._tasks.popleft())]

    def close(self) -> None:
        """Forget the tasks."""
        self._tasks.clear()
