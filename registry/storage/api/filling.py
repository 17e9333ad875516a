"""What an ingest or an import stores, and what it asks first."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from registry.errors import RegistryError, StorageError
from registry.storage.api.base import Part
from registry.storage.engine.connections import reading
from registry.storage.engine.failures import guarded
from registry.storage.journal import run_journal
from registry.storage.models import adding, model_queries
from registry.storage.portable import calibration_merge, merging
from registry.storage.portable.exporting import Selection
from registry.types.outcomes import Ingested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from registry.storage.journal.run_journal import Entry
    from registry.storage.models.records import Added, Holding, NewModel
    from registry.storage.portable.model_assembly import Portable
    from registry.types import Filter

__all__ = ["Filling"]

T = TypeVar("T")


class _UndoneError(Exception):
    """Rolls a transaction back that has done what it was to show."""


class Filling(Part):
    """Models as they come in."""

    def add(self, new: NewModel, *, replace: bool = False) -> Added:
        """Store a model, or add the name and what else is new to known weights; see `adding.add`.

        Waits, as `add_all`, for a database that is gone for a while.
        """
        return self._patiently(lambda: self._write(lambda c: adding.add(c, [new], replace=replace)[0]))

    def add_all(
        self, given: Sequence[NewModel], entries: Sequence[Entry], *, replace: bool = False
    ) -> list[Added | RegistryError]:
        """Store models in one transaction, or where one of them is refused, in one each; return why, in its place.

        ``entries``: of the journal, one a model, written in the same transaction.
        """

        def put(connection: Connection) -> list[Added | RegistryError]:
            added = adding.add(connection, given, replace=replace)
            done = zip(entries, added, strict=True)
            rows = [(dataclasses.replace(entry, state=each.status), each.model_id) for entry, each in done]
            run_journal.record(connection, rows)
            return [*added]

        try:
            return self._patiently(lambda: self._write(put)) if given else []
        except StorageError:
            raise
        except RegistryError as error:
            if len(given) == 1:
                return [error]
            alone = zip(given, entries, strict=True)
            return [each for new, entry in alone for each in self.add_all([new], [entry], replace=replace)]

    @contextmanager
    def selection(self, wanted: Filter | None = None, names: Sequence[str] = ()) -> Iterator[Selection]:
        """Yield the models that have one of the names, if any are given, and pass the filter, to be carried off."""
        with guarded(self._address), reading(self._engine) as connection:
            yield Selection(connection, self._address, wanted, names)

    def merge(
        self, given: Sequence[Portable | Ingested], *, overrule: bool, rule: str, dry_run: bool = False
    ) -> list[Ingested]:
        """Bring in models in one transaction, or where one of them is not sound, in one each; see `merging.merge`.

        What is a failed item already stays one. ``dry_run``: say what would become of them.
        """
        sound = [each for each in given if not isinstance(each, Ingested)]

        def bring(some: Sequence[Portable]) -> list[Ingested]:
            return self._tried(lambda c: merging.merge(c, some, overrule=overrule, rule=rule), dry_run=dry_run)

        return [each for each in given if isinstance(each, Ingested)] + merging.one_by_one(bring, sound)

    def merge_calibrations(self, given: Sequence[dict[str, Any]], *, replace: bool, dry_run: bool = False) -> int:
        """Store calibrations where there are none of their spec and distance, or in place of them; return how many."""
        return self._tried(lambda c: calibration_merge.merge_calibrations(c, given, replace=replace), dry_run=dry_run)

    def _tried(self, work: Callable[[Connection], T], *, dry_run: bool) -> T:
        """Do a change; for a dry run, undo it."""
        if not dry_run:
            return self._write(work)
        done: list[T] = []

        def undone(connection: Connection) -> None:
            done[:] = [work(connection)]
            raise _UndoneError

        with suppress(_UndoneError):
            self._write(undone)
        return done[0]

    def holding(self, content_hash: str) -> Holding | None:
        """Return what is stored of the weights of that hash, None where they are not."""
        return self._patiently(lambda: self._read(lambda connection: model_queries.holding(connection, content_hash)))

    def whole_hashes(self, rule: str, specs: Iterable[str], *, spectra: bool, exact: bool) -> list[str]:
        """Return the content hashes of all models of a matrix rule with vectors under all those specs; O(n)."""
        wanted = tuple(specs)
        return self._patiently(
            lambda: self._read(
                lambda connection: model_queries.whole_hashes(connection, rule, wanted, spectra=spectra, exact=exact)
            )
        )
