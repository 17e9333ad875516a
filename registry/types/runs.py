"""Runs of an ingest and their items, as the journal has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DONE", "Run", "RunItem"]

DONE: Final = ("added", "named", "known")
"""States of an item whose model is stored; the others are ``waiting`` and ``failed``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an ingest; times in UTC, ISO 8601.

    ``state``: ``running``, ``done``, ``interrupted``, ``stopped`` (by an error) or ``died`` (marked as running, but
    nobody is at it); ``plan``: a hash over what was to be done; ``command``: how it was asked for; ``worker``: host
    and process that had it last; of its ``items`` ``done`` are stored, ``failed`` failed, and the rest waits.
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
        """Items that nothing has become of yet."""
        return self.items - self.done - self.failed


@dataclass(frozen=True, slots=True)
class RunItem:
    """One model of a run: ``waiting``, ``added``, ``named``, ``known`` or ``failed`` with its error and the remedy."""

    position: int
    reference: str
    name: str
    state: str
    attempts: int
    seconds: float | None
    message: str
    remedy: str
