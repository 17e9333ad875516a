"""Executors: the table of them, and which one suits a job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from registry.errors import UsageError
from registry.ingest.cost import cores
from registry.ingest.executors.base import Executor, Outcome, Task, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["EXECUTORS", "Executor", "Outcome", "Setting", "Task", "Work", "chosen"]

# Two workers are at work after 0.6 s, in which one process measures a dozen small models: benchmarks/ingest.py.
WORTH_WORKERS: Final = 2.0  # seconds of work


@dataclass(frozen=True, slots=True)
class Setting:
    """Where tasks are done: an executor by its name, how many workers (None: as it has cores), a cluster's address.

    ``limit``: seconds that a task may take where it can be stopped; None: by its cost, 0: none.
    """

    name: str
    workers: int | None = None
    address: str | None = None
    limit: float | None = None


def _inprocess(_setting: Setting, _modules: Sequence[str]) -> Executor:
    from registry.ingest.executors.inprocess import InProcess

    return InProcess()


def _pool(setting: Setting, modules: Sequence[str]) -> Executor:
    from registry.ingest.executors.pool import Pool

    return Pool(setting.workers or 1, modules)


def _ray(setting: Setting, _modules: Sequence[str]) -> Executor:
    from registry.ingest.executors.ray import Ray

    return Ray(setting.workers, setting.address)


EXECUTORS: Final[Mapping[str, Callable[[Setting, Sequence[str]], Executor]]] = MappingProxyType({
    "inprocess": _inprocess,
    "pool": _pool,
    "ray": _ray,
})  # fmt: skip
"""By name, what makes one of a setting and of the modules that its workers can load before they know their work."""


def chosen(setting: Setting | None, tasks: int, seconds: float) -> Setting:
    """The setting for so many tasks, expected to take so long on one core, with what is not given filled in.

    Workers, where none are asked for, are as many as cores, and only where the work outweighs their start, or where a
    limit is set, which takes a process that can be killed.

    Raises
    ------
    UsageError
        There is no such executor, less than one worker, an address for an executor that takes none, or a limit that is
        negative or for one that knows none.
    """
    setting = setting or Setting("")
    name, workers, address, limit = setting.name, setting.workers, setting.address, setting.limit
    if name and name not in EXECUTORS:
        raise UsageError(f"there is no executor {name!r}", f"known: {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers cannot do anything", "give 1 or more")
    if address is not None and name != "ray":
        raise UsageError("an address goes with the executor ray alone", "archreg ingest --executor ray --address ...")
    if limit is not None and not 0 <= limit < math.inf:
        raise UsageError(f"a limit of {limit:g} s is none", "give seconds, or 0 for no limit")
    if limit and name == "inprocess":
        raise UsageError("a model that is read in this process cannot be stopped", "leave --executor inprocess out")
    if name == "ray":
        return setting
    if not name:
        many = workers is None or workers > 1
        worth = many and tasks > 1 and (workers is not None or seconds > WORTH_WORKERS)
        name = "pool" if worth or limit else "inprocess"
    if name == "inprocess":
        return Setting(name, 1)
    return Setting(name, max(1, min(workers or cores(), tasks)), limit=limit)
