"""Work for executors, and one who keeps what comes back; importable in other processes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError, StorageError, WeightsError
from registry.ingest import Outcome, Task
from registry.types import Ingested, ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence


def tasks(*names: str, limit: float = 0.0) -> list[Task]:
    return [Task(at, ModelRef("file", f"/{name}", name, bytes=1000), limit=limit) for at, name in enumerate(names)]


def work(task: Task) -> Any:
    """What the name says: ``kill`` (also ``kill-once:PATH``), ``raise``, ``bug``, ``memory``, ``slow``, ``threads``...

    ``hang``: in one call of a C function, which no handler of Python's interrupts; ``odd``: cannot be sent back.
    """
    kind, _, argument = task.ref.name.partition(":")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kill-once":
        try:
            os.close(os.open(argument, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return task.ref.name
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise WeightsError("no tensors", "save it again")
    if kind == "bug":
        raise ZeroDivisionError("by zero")
    if kind == "memory":
        raise MemoryError
    if kind == "hang":
        hash(nested(60))
    if kind == "pid":
        time.sleep(0.02)
        return os.getpid()
    if kind == "odd":
        return lambda: None
    if kind == "slow":
        time.sleep(float(argument or 0.2))
    if kind == "threads":
        import numpy as np
        from threadpoolctl import threadpool_info

        np.zeros((2, 2)) @ np.zeros((2, 2))
        return [pool["num_threads"] for pool in threadpool_info()]
    return task.ref.name


def nested(depth: int) -> object:
    """Tuples within tuples, each twice in the one around it: hashing them takes 2^depth steps."""
    found: object = ()
    for _ in range(depth):
        found = (found, found)
    return found


class Keeper:
    """Remembers what it is given; refuses the model ``b`` by ``error``, and wants ``again`` done again, once each."""

    def __init__(
        self, error: BaseException | None = None, again: Sequence[str] = (), others: Sequence[int] = ()
    ) -> None:
        self.error = error
        self.again = set(again)
        self.others = others
        self.stored: list[str] = []
        self.writes: list[int] = []
        self.failed: list[str] = []

    def store(self, outcomes: Sequence[Outcome]) -> list[Ingested | RegistryError | None]:
        self.writes.append(len(outcomes))
        return [self.one(outcome) for outcome in outcomes]

    def one(self, outcome: Outcome) -> Ingested | RegistryError | None:
        ref = outcome.task.ref
        if ref.name == "b" and self.error is not None:
            if isinstance(self.error, RegistryError) and not isinstance(self.error, StorageError):
                return self.error
            raise self.error
        if ref.name in self.again and not outcome.task.force:
            return None
        self.stored.append(ref.name)
        return Ingested(ref.target, ref.name, "added", outcome.seconds)

    def fail(self, outcome: Outcome, result: Ingested) -> None:  # noqa: ARG002
        self.failed.append(result.name)

    def elsewhere(self) -> Sequence[int]:
        return self.others
