"""``Registry.runs``: the journal of ingests. Runs of ``ingest_all``, what became of their models, and retries."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from registry.catalog.arguments import number, several, whole
from registry.errors import UsageError
from registry.types import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.catalog.database import Database
    from registry.catalog.ingesting import Watcher
    from registry.types import Ingested, Run, RunItem

__all__ = ["IngestRuns"]

CENTURY: Final = 36_500  # days
STATES: Final = ("waiting", *DONE, "failed")


class IngestRuns:
    """The runs of ``ingest_all`` that the database has a journal of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int | None = None) -> tuple[Run, ...]:
        """The runs, the newest first, ``limit`` at most."""
        from registry.storage.journal.run_history import list_runs

        most = None if limit is None else whole(limit, "limit", 1)
        with self._database.lock:
            return tuple(self._database.readable().read(list_runs, limit=most))

    def get(self, run: int) -> Run:
        """The run of that id. Raises ``UsageError`` where there is none of it."""
        from registry.storage.journal.run_history import read_run

        with self._database.lock:
            return self._database.readable().read(read_run, whole(run, "run"))

    def items(self, run: int, *, states: Iterable[str] = ()) -> tuple[RunItem, ...]:
        """The models of a run in its order, all or those ``waiting``, ``added``, ``named``, ``known``, ``failed``.

        Raises ``UsageError`` where there is no such run, or no such state.
        """
        from registry.storage.journal.run_history import list_items, read_run

        states = several(states, "states")
        if unknown := [state for state in states if state not in STATES]:
            raise UsageError(f"no model of a run is {unknown[0]!r}", f"known: {', '.join(STATES)}")
        with self._database.lock:
            store, run = self._database.readable(), whole(run, "run")
            store.read(read_run, run)
            return tuple(store.read(list_items, run, states))

    def retry(
        self,
        run: int,
        *,
        workers: int | None = None,
        executor: str | None = None,
        address: str | None = None,
        time_limit: float | None = None,
        progress: Watcher | None = None,
    ) -> tuple[Ingested, ...]:
        """Do again what failed or was left of a run, by its own options; the rest as in ``ingest_all``.

        Returns what became of all its models. Raises ``UsageError`` where there is no such run.
        """
        from registry.catalog.ingest_journal import from_record
        from registry.catalog.ingesting import ingest_refs
        from registry.catalog.storing import Options
        from registry.ingest import Setting
        from registry.storage.journal.run_history import read_plan

        setting = Setting(executor or "", workers, address, time_limit)
        with self._database.lock:
            command, options, records = self._database.writable().read(read_plan, whole(run, "run"))
            refs = [from_record(record) for record in records]
            return ingest_refs(self._database, refs, Options(**json.loads(options)), setting, command, progress)

    def forget(self, run: int | None = None, *, older_than: float | None = None) -> int:
        """Take one run out of the journal, or all that were last at work ``older_than`` days ago; returns how many.

        Models stay. What a run had left is done by the same references again, which finds what is stored by its
        weights. Runs at work stay: ``UsageError`` if one is named, or where there is no such run.
        """
        from registry.storage.journal.run_journal import forget_runs

        if (run is None) == (older_than is None):
            raise UsageError("runs.forget() takes a run or older_than", "give one of them")
        if older_than is None:
            with self._database.lock:
                return self._database.writable().write(forget_runs, run_id=whole(run, "run"))
        days = number(older_than, "older_than")
        if not 0 <= days <= CENTURY:
            raise UsageError(f"older_than is {days:g} days", f"give a number of days from 0 to {CENTURY:,}")
        with self._database.lock:
            return self._database.writable().write(forget_runs, before=datetime.now(UTC) - timedelta(days=days))
