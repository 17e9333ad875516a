"""`Transactions`: an open database and how its transactions are run, again where others came between."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from sqlalchemy.exc import DBAPIError

from registry.errors import ReadOnlyError, StorageError
from registry.storage.engine.connections import reading, writing
from registry.storage.engine.failures import guarded, is_conflict, is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Connection, Engine

    from registry.storage.engine.address import Address

__all__ = ["PATIENCE", "Mode", "Transactions"]

Mode = Literal["read", "write", "create"]
T = TypeVar("T")
ATTEMPTS = 8  # of a transaction that other writers came between
PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait, time after time, for a database that is gone while models are being stored."""

log = logging.getLogger("registry")


class Transactions:
    """An open database; a context manager."""

    def __init__(self, address: Address, engine: Engine, mode: Mode) -> None:
        self._address = address
        self._engine = engine
        self._mode = mode
        self._snapshot: Connection | None = None
        self._seen: dict[Hashable, Any] = {}

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._address.label

    @property
    def path(self) -> Path | None:
        """The SQLite file, None on Postgres."""
        return self._address.path

    def close(self) -> None:
        """Release connections and files."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read within see one state of the database, in one transaction; not for writes."""
        if self._snapshot is not None:
            yield
            return
        with guarded(self._address), reading(self._engine) as connection:
            self._snapshot = connection
            try:
                yield
            finally:
                self._snapshot = None
                self._seen.clear()

    def _read(self, work: Callable[[Connection], T]) -> T:
        if self._snapshot is not None:
            return work(self._snapshot)
        with guarded(self._address), reading(self._engine) as connection:
            return work(connection)

    def _once(self, key: Hashable, work: Callable[[Connection], T]) -> T:
        """Read, but within a snapshot the first time only: what was read there does not change."""
        if self._snapshot is None:
            return self._read(work)
        if key not in self._seen:
            self._seen[key] = work(self._snapshot)
        found: T = self._seen[key]
        return found

    def _write(self, work: Callable[[Connection], T]) -> T:
        if self._mode == "read":
            raise ReadOnlyError(f"{self.url} was opened to be read only", "open it to be written")
        with guarded(self._address, writing=True):
            for _ in range(ATTEMPTS - 1):
                try:
                    with writing(self._engine) as connection:
                        return work(connection)
                except DBAPIError as error:
                    if not is_conflict(error):
                        raise
            with writing(self._engine) as connection:
                return work(connection)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do what may be done again, and again where the database is gone for a while."""
        for delay in PATIENCE:
            try:
                return work()
            except StorageError as error:
                if not (isinstance(error.__cause__, DBAPIError) and is_passing(error.__cause__)):
                    raise
                log.warning("%s; trying again in %g s", error.message, delay)
            time.sleep(delay)
        return work()
