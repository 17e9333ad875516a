"""The journal of ingests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from registry.catalog.api.base import Part
from registry.catalog.arguments import number, several, whole
from registry.errors import UsageError
from registry.types import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.catalog.ingesting import Watcher
    from registry.types import Ingested, Run, RunItem

__all__ = ["Running"]

CENTURY: Final = 36_500  # days
STATES: Final = ("waiting", *DONE, "failed")


class Running(Part):
    """Runs of ``ingest_all``, what became of their models, and running them again."""

    def runs(self, run: int | None = None, *, limit: int | None = None) -> list[Run]:
        """The runs, the newest first, ``limit`` at most, or the one of that id.

        Raises ``UsageError`` where there is none of it.
        """
        from registry.storage.journal.run_history import list_runs, read_run

        store = self._database.readable()
        if run is None:
            return store.read(list_runs, limit=None if limit is None else whole(limit, "limit", 1))
        return [store.read(read_run, whole(run, "run"))]

    def forget_runs(self, run: int | None = None, *, older_than: float | None = None) -> int:
        """Take one run out of the journal, or all that were last at work ``older_than`` days ago; returns how many.

        Models stay. What a run had left is done by the same references again, which finds what is stored by its
        weights. Runs at work stay: ``UsageError`` if one is named, or where there is no such run.
        """
        from registry.storage.journal.run_journal import forget_runs

        if (run is None) == (older_than is None):
            raise UsageError("forget_runs() takes a run or older_than", "give one of them")
        if older_than is None:
            return self._database.writable().write(forget_runs, run_id=whole(run, "run"))
        days = number(older_than, "older_than")
        if not 0 <= days <= CENTURY:
            raise UsageError(f"older_than is {days:g} days", f"give a number of days from 0 to {CENTURY:,}")
        return self._database.writable().write(forget_runs, before=datetime.now(UTC) - timedelta(days=days))

    def run_items(self, run: int, *, states: Iterable[str] = ()) -> list[RunItem]:
        """The models of a run in its order, all or those ``waiting``, ``added``, ``named``, ``known``, ``failed``.

        Raises ``UsageError`` where there is no such run, or no such state.
        """
        from registry.storage.journal.run_history import list_items, read_run

        states = several(states, "states")
        if unknown := [state for state in states if state not in STATES]:
            raise UsageError(f"no model of a run is {unknown[0]!r}", f"known: {', '.join(STATES)}")
        store, run = self._database.readable(), whole(run, "run")
        store.read(read_run, run)
        return store.read(list_items, run, states)

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
        from registry.catalog.ingesting import retry
        from registry.ingest import Setting

        return retry(self._database, whole(run, "run"), Setting(executor or "", workers, address, time_limit), progress)
