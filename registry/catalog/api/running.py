"""The journal of ingests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.api.base import Part
from registry.catalog.arguments import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.ingest import Progress
    from registry.types import Ingested, Run, RunItem

__all__ = ["Running"]


class Running(Part):
    """Runs of ``ingest_all``, what became of their models, and running them again."""

    def runs(self, run: int | None = None) -> list[Run]:
        """All runs, the newest first, or the one of that id. Raises ``UsageError`` where there is none of it."""
        store = self._database.readable()
        return store.runs() if run is None else [store.run(whole(run, "run"))]

    def run_items(self, run: int, *, states: Sequence[str] = ()) -> list[RunItem]:
        """The models of a run in its order, all or those ``waiting``, ``added``, ``named``, ``known``, ``failed``.

        Raises ``UsageError`` where there is no such run.
        """
        store = self._database.readable()
        store.run(whole(run, "run"))
        return store.run_items(run, states)

    def retry(
        self,
        run: int,
        *,
        workers: int | None = None,
        executor: str | None = None,
        address: str | None = None,
        time_limit: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[Ingested, ...]:
        """Do again what failed or was left of a run, by its own options; the rest as in ``ingest_all``.

        Returns what became of all its models. Raises ``UsageError`` where there is no such run.
        """
        from registry.catalog.running import retry
        from registry.ingest import Setting

        return retry(self._database, whole(run, "run"), Setting(executor or "", workers, address, time_limit), progress)
