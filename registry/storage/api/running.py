"""The journal of ingests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.api.base import Part
from registry.storage.journal import run_history, run_journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from registry.storage.journal.run_journal import Begun, Entry, NewRun
    from registry.types import Run, RunItem

__all__ = ["Running"]


class Running(Part):
    """Runs and their items. What an ingest writes waits for a database that is gone for a while."""

    def begin_run(self, new: NewRun) -> Begun:
        """Start a run in the journal, or go on with the one of the same plan; see `run_journal`."""
        return self._patiently(lambda: self._write(lambda connection: run_journal.begin(connection, new)))

    def record(self, entries: Sequence[Entry]) -> None:
        """Write what became of items that led to no model."""
        rows = [(entry, None) for entry in entries]
        if rows:
            self._patiently(lambda: self._write(lambda connection: run_journal.record(connection, rows)))

    def adopt(self, run_id: int) -> list[int]:
        """Take over what other runs of the same plan have finished; return its positions. Writes only if need be."""

        def take() -> list[int]:
            found = self._read(lambda connection: run_journal.elsewhere(connection, run_id))
            if found:
                self._write(lambda connection: run_journal.adopt(connection, run_id, found))
            return sorted(found)

        return self._patiently(take)

    def beat(self, run_id: int) -> None:
        """Say that a run is at work."""
        self._write(lambda connection: run_journal.beat(connection, run_id))

    def end_run(self, run_id: int, state: str) -> None:
        """Say that a run is ``done``, ``interrupted`` or ``stopped``."""
        self._write(lambda connection: run_journal.end(connection, run_id, state))

    def forget_runs(self, run_id: int | None = None, *, before: datetime | None = None) -> int:
        """Take a run, or those last at work before, out of the journal; return how many. Models stay."""
        return self._write(lambda connection: run_journal.forget(connection, run_id=run_id, before=before))

    def runs(self, limit: int | None = None) -> list[Run]:
        """Return the runs of the journal, the newest first, ``limit`` at most."""
        return self._read(lambda connection: run_history.list_runs(connection, limit=limit))

    def run(self, run_id: int) -> Run:
        """Return one run. Raises `UsageError` where there is none of that id."""
        return self._read(lambda connection: run_history.list_runs(connection, run_id)[0])

    def run_items(self, run_id: int, states: Sequence[str] = ()) -> list[RunItem]:
        """Return the items of a run in order, all or those in one of the states."""
        return self._read(lambda connection: run_history.run_items(connection, run_id, states))

    def run_plan(self, run_id: int) -> tuple[str, str, list[str]]:
        """Return a run's command, its options and the references of its items, as `begin_run` was given them."""
        return self._read(lambda connection: run_history.run_plan(connection, run_id))
