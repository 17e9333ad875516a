"""The run over the models of an ingest. A failure of one model is one failed item and does not end the run."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from registry.errors import RegistryError, StorageError
from registry.types import Ingested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.ingest.executors import Executor, Outcome, Task
    from registry.ingest.progress import Progress

__all__ = ["Keeper", "run"]

GLANCE = 2.0  # seconds between checks for models that other runs have stored
# Outcomes wait this long, and up to this number, to be written in one transaction.
HOLD = 0.5  # seconds
TOGETHER = 64
LIVES = 3  # attempts for a task whose process died, if another task may have been the cause


class Keeper(Protocol):
    """Stores outcomes and the journal, as the only writer, in one thread."""

    def store(self, outcomes: Sequence[Outcome]) -> Sequence[Ingested | RegistryError | None]:
        """Store values together. Returns for each its outcome, the error, or None if it must be measured by force."""

    def fail(self, outcome: Outcome, result: Ingested) -> None:
        """Record a failure."""

    def elsewhere(self) -> Sequence[int]:
        """Positions that other runs have finished in the meantime."""


def run(
    tasks: Sequence[Task], executor: Executor, keeper: Keeper, watcher: Progress, results: dict[int, Ingested]
) -> None:
    """Run every task and put its outcome into ``results``, by position; O(n) calls of each kind.

    A ``RegistryError`` of one model, or the death of its process, becomes a failed item; so does any other error,
    unless it is the only model. A ``StorageError`` ends the run, because every later write would fail too; what was
    written before remains. An interruption stores what has been measured and is then passed on.
    """
    going = _Run(tasks, executor, keeper, watcher, results)
    try:
        going.go()
    except KeyboardInterrupt:
        going.rest()
        raise


class _Run:
    """Tasks that wait, run, have finished, or are suspected of killing processes."""

    def __init__(
        self,
        tasks: Sequence[Task],
        executor: Executor,
        keeper: Keeper,
        watcher: Progress,
        results: dict[int, Ingested],
    ) -> None:
        self._results = results
        self._alone = len(tasks) == 1
        self._waiting = deque(tasks)
        self._suspects: deque[Task] = deque()
        self._flying: dict[int, Task] = {}
        self._back: deque[Outcome] = deque()
        self._deaths: dict[int, int] = {}
        self._started: set[int] = set()
        self._looked = self._held = time.monotonic()
        self._executor, self._keeper, self._watcher = executor, keeper, watcher

    def go(self) -> None:
        """Keep the executor busy and store outcomes until all tasks are done."""
        while (undone := bool(self._waiting or self._suspects or self._flying)) or self._back:
            self._look()
            self._fill()
            self._collect()
            if not undone or len(self._back) >= TOGETHER or self._left() <= 0:
                self._settle()

    def rest(self) -> None:
        """Store the outcomes received so far, without waiting for more."""
        self._back.extend(self._executor.wait(0))
        self._settle()

    def _left(self) -> float:
        """Seconds that may be waited."""
        return HOLD - (time.monotonic() - self._held) if self._back else GLANCE

    def _collect(self) -> None:
        if not self._flying:
            return
        outcomes = self._executor.wait(max(0.0, self._left()))
        if outcomes and not self._back:
            self._held = time.monotonic()
        self._back.extend(
            outcomes
        )  # before they are removed from the tasks in flight, because an interruption may come in between
        for outcome in outcomes:
            self._flying.pop(outcome.task.position, None)

    def _look(self) -> None:
        if time.monotonic() - self._looked < GLANCE:
            return
        self._looked = time.monotonic()
        others = set(self._keeper.elsewhere())
        for task in [task for task in self._waiting if task.position in others]:
            self._waiting.remove(task)
            ref = task.ref
            self._start(task)
            self._done(task, Ingested(ref.target, ref.name, "known", 0.0, "stored by another run of the same plan"))

    def _fill(self) -> None:
        """Submit tasks while there is room; a suspect runs alone, so that it cannot end others."""
        while self._waiting and self._executor.room(self._waiting[0]):
            self._submit(self._waiting.popleft())
        if self._suspects and not self._flying:
            self._submit(self._suspects.popleft())

    def _submit(self, task: Task) -> None:
        self._start(task)
        self._flying[task.position] = task
        self._executor.submit(task)

    def _start(self, task: Task) -> None:
        if task.position not in self._started:
            self._started.add(task.position)
            self._watcher.start(task.ref)

    def _settle(self) -> None:
        """Take over outcomes; what an interruption cuts short remains for `rest`."""
        sound = [outcome for outcome in self._back if outcome.sound]
        stored = iter(self._keeper.store(sound) if sound else ())
        while self._back:
            outcome = self._back[0]
            self._take(outcome, next(stored) if outcome.sound else None)
            self._back.popleft()

    def _take(self, outcome: Outcome, stored: Ingested | RegistryError | None) -> None:
        task = outcome.task
        if outcome.died and self._may_live(task):
            return
        if not outcome.sound:
            self._done(task, self._failure(outcome))
        elif stored is None:
            self._waiting.appendleft(task.forced())
        elif isinstance(stored, RegistryError):
            self._done(task, self._fail(outcome, stored.message, stored.remedy or ""))
        else:
            self._done(task, stored)

    def _may_live(self, task: Task) -> bool:
        """Whether a task whose process died is tried again: alone, if other tasks may have been the cause."""
        self._deaths[task.position] = deaths = self._deaths.get(task.position, 0) + 1
        if self._executor.apart and deaths < LIVES:
            self._waiting.append(task)
        elif not self._executor.apart and deaths == 1:
            self._suspects.append(task)
        else:
            return False
        return True

    def _failure(self, outcome: Outcome) -> Ingested:
        error, target = outcome.error, outcome.task.ref.target
        if outcome.died:
            return self._fail(
                outcome,
                f"{target} killed the worker process (out of memory or a crash)",
                "ingest it alone, on a machine with more memory: --workers 1",
            )
        if outcome.late:
            return self._fail(
                outcome,
                f"{target} took longer than its limit of {outcome.task.limit:g} s and was stopped",
                "if the file is valid, set a longer limit: --time-limit SECONDS, 0 for no limit",
            )
        if isinstance(error, StorageError):
            raise error
        if isinstance(error, RegistryError):
            return self._fail(outcome, error.message, error.remedy or "")
        if isinstance(error, MemoryError):
            return self._fail(outcome, f"{target} does not fit in memory", "ingest it on a machine with more memory")
        if error is not None and self._alone:
            raise error
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return self._fail(
            outcome,
            f"{target}: unexpected error: {what}",
            "ingest it alone with ARCHREG_DEBUG=1 and report the traceback",
        )

    def _fail(self, outcome: Outcome, message: str, remedy: str) -> Ingested:
        ref = outcome.task.ref
        result = Ingested(ref.target, ref.name, "failed", outcome.seconds, message, remedy)
        self._keeper.fail(outcome, result)
        return result

    def _done(self, task: Task, result: Ingested) -> None:
        self._results[task.position] = result
        self._watcher.done(task.ref, result)
