"""Runs of an ingest and their items, as recorded in the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DONE", "Run", "RunItem"]

DONE: Final = ("added", "named", "known", "renewed")
"""States of an item whose model is stored; the other states are ``waiting`` and ``failed``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an ingest; times are UTC, ISO 8601.

    ``state``: ``running``, ``done``, ``interrupted``, ``stopped`` (by an error) or ``died`` (marked as running, but its
    process has ended). ``plan``: a hash of the plan. ``command``: how it was requested. ``worker``: host and process
    that ran it last. Of its ``items``, ``done`` are stored, ``failed`` failed, and the rest waits.
    """

    id: int
    state: str
    command: str
    plan: str
    worker: str
    tool_version: str
    started: str
    heartbeat: str
    finished: str | None
    items: int
    done: int
    failed: int

    @property
    def waiting(self) -> int:
        """Number of items without an outcome."""
        return self.items - self.done - self.failed


@dataclass(frozen=True, slots=True)
class RunItem:
    """One model of a run.

    ``state``: ``waiting``, ``added``, ``named``, ``known``, ``renewed``, or ``failed`` with its error and the remedy.
    """

    position: int
    reference: str
    name: str
    state: str
    attempts: int
    seconds: float | None
    message: str
    remedy: str
