"""``Registry.runs``: list, retry and forget the runs of ``ingest_all`` in the journal."""

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
    """The runs of ``ingest_all`` in the journal of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int | None = None) -> tuple[Run, ...]:
        """Return the runs, the newest first, at most ``limit``."""
        from registry.storage.journal.run_history import list_runs

        most = None if limit is None else whole(limit, "limit", 1)
        with self._database.lock:
            return tuple(self._database.readable().read(list_runs, limit=most))

    def get(self, run: int) -> Run:
        """Return the run with that id. Raises ``UsageError`` if there is none."""
        from registry.storage.journal.run_history import read_run

        with self._database.lock:
            return self._database.readable().read(read_run, whole(run, "run"))

    def items(self, run: int, *, states: Iterable[str] = ()) -> tuple[RunItem, ...]:
        """Return the items of a run in its order.

        ``states``: only items in these states: ``waiting``, ``added``, ``named``, ``known``, ``renewed``, ``failed``.
        Raises ``UsageError`` for an unknown run or state.
        """
        from registry.storage.journal.run_history import list_items, read_run

        states = several(states, "states")
        if unknown := [state for state in states if state not in STATES]:
            raise UsageError(f"unknown state {unknown[0]!r}", f"known: {', '.join(STATES)}")
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
        """Retry the failed and unfinished models of a run with its options; other arguments as in ``ingest_all``.

        Returns the outcomes of all its models. Raises ``UsageError`` for an unknown run.
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
        """Delete one run from the journal, or all whose last heartbeat is older than ``older_than`` days.

        Returns the number of deleted runs. Models stay. Ingesting the same references again continues an unfinished
        run, because stored models are recognised by their weights. Active runs stay: naming one, or an unknown run,
        raises ``UsageError``.
        """
        from registry.storage.journal.run_journal import forget_runs

        if (run is None) == (older_than is None):
            raise UsageError("runs.forget() needs either a run or older_than", "give one of them")
        if older_than is None:
            with self._database.lock:
                return self._database.writable().write(forget_runs, run_id=whole(run, "run"))
        days = number(older_than, "older_than")
        if not 0 <= days <= CENTURY:
            raise UsageError(f"older_than cannot be {days:g} days", f"give a number of days from 0 to {CENTURY:,}")
        with self._database.lock:
            return self._database.writable().write(forget_runs, before=datetime.now(UTC) - timedelta(days=days))
