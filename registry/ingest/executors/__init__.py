"""Executors: the table of them, and the choice of one for a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from registry.errors import UsageError
from registry.extensions import EXECUTORS as ROWS
from registry.extensions import Table
from registry.ingest.cost import cores
from registry.ingest.executors.base import Executor, Outcome, Setting, Task, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["EXECUTORS", "Executor", "Outcome", "Setting", "Task", "Work", "chosen"]

# Two workers are ready after 0.6 s, in which one process measures a dozen small models: benchmarks/ingest.py.
WORTH_WORKERS: Final = 2.0  # seconds of work


EXECUTORS: Final[Table[Callable[[Setting, Sequence[str]], Executor]]] = Table(ROWS)
"""Factories by name; each takes a setting and the modules that workers can load before they receive work."""


def chosen(setting: Setting | None, tasks: int, seconds: float) -> Setting:
    """The setting for a number of tasks and their expected time on one core, with missing values filled in.

    The default number of workers is the number of cores. Workers are used by default only if the work outweighs their
    start, or if a time limit is set, which requires a process that can be killed.

    Raises
    ------
    UsageError
        The executor is unknown, there is less than one worker, the executor takes no address, the limit is negative, or
        the executor has no limit.
    """
    setting = setting or Setting("")
    name, workers, address, limit = setting.name, setting.workers, setting.address, setting.limit
    if name and name not in EXECUTORS:
        raise UsageError(f"unknown executor {name!r}", f"known: {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}", "give 1 or more")
    if address is not None and name != "ray":
        raise UsageError("only the executor ray takes an address", "archreg ingest --executor ray --address ...")
    if limit is not None and not 0 <= limit < math.inf:
        raise UsageError(
            f"the time limit must be finite and not negative, not {limit:g} s", "give seconds, or 0 for no limit"
        )
    if limit and name == "inprocess":
        raise UsageError("the executor inprocess cannot stop a model at a time limit", "omit --executor inprocess")
    if name == "ray":
        return setting
    if not name:
        many = workers is None or workers > 1
        worth = many and tasks > 1 and (workers is not None or seconds > WORTH_WORKERS)
        name = "pool" if worth or limit else "inprocess"
    if name == "inprocess":
        return Setting(name, 1)
    return Setting(name, max(1, min(workers or cores(), tasks)), limit=limit)
