"""Executor that runs tasks on a Ray cluster. The only module that imports Ray."""

from __future__ import annotations

import importlib
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError, UsageError
from registry.ingest.executors.base import Outcome, confined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.ingest.executors.base import Setting, Task, Work

__all__ = ["Ray", "start"]

REACH_SECONDS = 5.0
HEARD = 1.0  # seconds until this process learns that a task has started


class Ray:
    """Runs tasks on all nodes of a cluster, each with one core and the memory it may need.

    The nodes must have this package installed and see the files under the same paths. If a node disappears, its tasks
    count as died.

    Raises
    ------
    UsageError
        Ray is not installed.
    RegistryError
        No cluster answers at ``address``. None starts a cluster on this machine.
    """

    apart = True

    def __init__(self, workers: int | None, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise UsageError("Ray is not installed", "pip install 'architecture-registry[ray]'") from error
        self._owned = not self._ray.is_initialized()
        if self._owned:
            self._connect(address, workers)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._most = int(max((node.get("memory", 0) for node in nodes), default=0))
        cores = int(sum(node.get("CPU", 0) for node in nodes))
        self._slots = 2 * max(1, min(cores, workers or cores))
        # Ray must not retry: the run decides about tasks that died, for every executor alike.
        self._do = self._ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(_told)
        self._work: Any = None
        self._tasks: dict[Any, _Given] = {}

    def _connect(self, address: str | None, workers: int | None) -> None:
        if address is not None:
            _reach(address)
        own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
        environment = {"env_vars": dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
        try:
            self._ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env=environment,
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = "on this machine" if address is None else f"at {address}"
            raise RegistryError(
                f"no Ray cluster {where}: {str(error).splitlines()[0]}", "start one: ray start --head"
            ) from error

    def begin(self, work: Work) -> None:
        """Put the work into the object store, from which every node fetches it once."""
        self._work = self._ray.put(work)

    def room(self, task: Task) -> bool:  # noqa: ARG002
        """One running and one waiting task per core."""
        return len(self._tasks) < self._slots

    def submit(self, task: Task) -> None:
        """Request one core and the task's memory, at most the memory of the largest node."""
        resources = {"memory": min(task.memory, self._most)} if task.memory and self._most else {}
        self._tasks[self._do.options(**resources).remote(self._work, task)] = _Given(task)

    def wait(self, seconds: float) -> list[Outcome]:
        """Return finished outcomes."""
        end = time.monotonic() + seconds
        while self._tasks:
            left = max(0.0, end - time.monotonic())
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=left, fetch_local=False)
            outcomes = [outcome for told in ready if (outcome := self._heard(told)) is not None]
            if outcomes or not ready:
                return outcomes
        return []

    def _heard(self, told: Any) -> Outcome | None:
        """Outcome in a message of a task; None if the message only says that the task has started."""
        given = self._tasks[told]
        seconds = 0.0 if given.begun is None else time.monotonic() - given.begun
        try:
            outcome: Outcome | None = self._ray.get(next(told))
        except self._ray.exceptions.RayTaskError as error:  # a result that could not be pickled
            outcome = Outcome(given.task, seconds, error=error)
        except self._ray.exceptions.RayError:  # its worker or its node
            late = given.begun is not None and 0.0 < given.task.limit <= seconds + HEARD
            outcome = Outcome(given.task, seconds, died=not late, late=late)
        if outcome is None:
            given.begun = time.monotonic()
        else:
            del self._tasks[told]
        return outcome

    def close(self) -> None:
        """Cancel unfinished tasks. A joined cluster continues; a cluster started here ends."""
        for told in self._tasks:
            self._ray.cancel(told, force=True)
        self._tasks.clear()
        if self._owned:
            self._ray.shutdown()


def start(setting: Setting, modules: Sequence[str]) -> Ray:  # noqa: ARG001
    """The cluster of a setting."""
    return Ray(setting.workers, setting.address)


@dataclass(slots=True)
class _Given:
    """A task and the time at which it started; before that it waits for a core."""

    task: Task
    begun: float | None = None


def _told(work: Work, task: Task) -> Iterator[Outcome | None]:
    """Yield a message that the task has started, then its outcome."""
    yield None
    yield confined(work, task)


def _reach(address: str) -> None:
    """Check that something listens at the address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # Ray resolves "auto" and similar addresses
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise RegistryError(
            f"no Ray cluster at {address}: {error.strerror or error}",
            "start one: ray start --head, or check the address",
        ) from error
