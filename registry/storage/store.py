"""`Store`: an open database, its transactions and its cache.

A read or write is a function of this package over a connection, run by `Store.read` or `Store.write`:
``store.read(find_model, "resnet20")``, ``store.write(set_card, "resnet20", {"family": "resnet"})``. The other methods
need several transactions or the cache.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar

from sqlalchemy.exc import DBAPIError

from registry.errors import ReadOnlyError, RegistryError, StorageError, UsageError
from registry.storage.engine.address import Address
from registry.storage.engine.connections import guarded, make_engine, reading, writing
from registry.storage.engine.failures import is_conflict, is_passing
from registry.storage.engine.schema_version import current_version, require_head, require_own, require_writable
from registry.storage.index import pgvector_index
from registry.storage.models.sketch_cache import SketchCache
from registry.storage.models.spec_state import all_states, spec_facts, state_of
from registry.storage.models.vector_cache import VectorCache
from registry.storage.models.vectors import count_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine

    from registry.storage.index.pgvector_index import OpenIndex
    from registry.storage.journal.run_journal import Entry
    from registry.storage.models.records import Added, NewModel, SpecState
    from registry.storage.portable.exporting import Selection
    from registry.storage.portable.model_assembly import Portable
    from registry.types import Calibration, Filter, FingerprintSpec
    from registry.types.outcomes import Ingested

__all__ = ["PATIENCE", "Mode", "Store"]

Mode = Literal["read", "write", "create"]
P = ParamSpec("P")
T = TypeVar("T")
ATTEMPTS = 8  # attempts of a transaction that conflicts with other writers
PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts while the database is unavailable during an ingest."""

log = logging.getLogger("registry")


class _UndoneError(Exception):
    """Rolls back the transaction of a dry run."""


class Store:
    """An open SQLite file or Postgres schema; a context manager. Created by `Store.open`.

    The functions that it runs accept names and ``sha256:PREFIX``, the beginning of a content hash. Every method raises
    `StorageError` for errors of the database; writing methods raise `ReadOnlyError` if it is read-only.
    """

    def __init__(
        self,
        address: Address,
        engine: Engine,
        mode: Mode,
        memory: dict[str, VectorCache] | None = None,
        drawn: dict[int, SketchCache] | None = None,
    ) -> None:
        self.address = address
        self.memory = {} if memory is None else memory
        self.drawn = {} if drawn is None else drawn
        self._engine = engine
        self._mode = mode
        self._snapshot: Connection | None = None
        self._seen: dict[Hashable, Any] = {}
        self._counted: dict[str, tuple[SpecState | None, int]] = {}

    @classmethod
    def open(cls, url: str, *, mode: Mode, after: Store | None = None) -> Store:
        """Open the registry at a path, ``sqlite:///PATH``, ``postgresql://USER@HOST/DATABASE`` or ``published:``.

        Parameters
        ----------
        url : str
            Address of the database.
        mode : {"read", "write", "create"}
            ``read`` needs no right to write; ``write`` needs an existing registry; ``create`` creates an empty one if
            there is none: a SQLite file in an existing folder, or the tables in the current schema of Postgres.
        after : Store, optional
            Closed store of the same address, whose cached vectors are used again.

        Raises
        ------
        UsageError
            The URL is invalid, or its database is not supported.
        DatabaseMissingError
            There is no database, and ``mode`` is not ``create``.
        SchemaVersionError
            The schema is older, with the upgrade command as the remedy; or newer.
        ReadOnlyError
            ``mode`` is not ``read``, and this user may not write the file, or it ships with the package.
        StorageError
            The database cannot be reached, or is not a registry; then it is not changed.
        """
        if mode not in ("read", "write", "create"):
            raise UsageError(f"unknown mode {mode!r}", "use read, write or create")
        address = Address.parse(url)
        if mode != "read":
            require_own(address)
        engine = make_engine(address, "read" if mode == "read" else "write")
        try:
            version = current_version(address, engine)
            if version is None and mode == "create":
                from registry.storage.engine import migrate

                migrate.create(address)
                version = current_version(address, engine)
            require_head(address, version)
            if mode != "read":
                require_writable(address)
        except BaseException:
            engine.dispose()
            raise
        kept = (None, None) if after is None else (after.memory, after.drawn)
        return cls(address, engine, mode, *kept)

    @property
    def url(self) -> str:
        """The URL without its password."""
        return self.address.label

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on Postgres."""
        return self.address.path

    def close(self) -> None:
        """Release connections and files."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Transactions

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Run all reads within in one transaction with one snapshot of the database; not for writes."""
        if self._snapshot is not None:
            yield
            return
        with guarded(self.address), reading(self._engine) as connection:
            self._snapshot = connection
            try:
                yield
            finally:
                self._snapshot = None
                self._seen.clear()

    def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``work(connection, *args, **kwargs)``, run in the `snapshot` or in its own transaction."""
        if self._snapshot is not None:
            return work(self._snapshot, *args, **kwargs)
        with guarded(self.address), reading(self._engine) as connection:
            return work(connection, *args, **kwargs)

    def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``work(connection, *args, **kwargs)``, run in one transaction.

        A transaction that conflicts with another writer is run up to eight times.
        """
        if self._mode == "read":
            raise ReadOnlyError(f"{self.url} was opened for reading only", "open it for writing")
        with guarded(self.address, writing=True):
            for _ in range(ATTEMPTS - 1):
                try:
                    with writing(self._engine) as connection:
                        return work(connection, *args, **kwargs)
                except DBAPIError as error:
                    if not is_conflict(error):
                        raise
            with writing(self._engine) as connection:
                return work(connection, *args, **kwargs)

    def patiently(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``work(*args, **kwargs)``, with further attempts while the database is unavailable.

        Used by ingest: ``store.patiently(store.write, begin_run, new)``.
        """
        for delay in PATIENCE:
            try:
                return work(*args, **kwargs)
            except StorageError as error:
                if not (isinstance(error.__cause__, DBAPIError) and is_passing(error.__cause__)):
                    raise
                log.warning("%s; trying again in %g s", error.message, delay)
            time.sleep(delay)
        return work(*args, **kwargs)

    def rehearse(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``work(connection, *args, **kwargs)`` and roll back its changes."""
        done: list[T] = []

        def undone(connection: Connection) -> None:
            done[:] = [work(connection, *args, **kwargs)]
            raise _UndoneError

        with suppress(_UndoneError):
            self.write(undone)
        return done[0]

    def _once(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, but within a snapshot each read is made once and its result is kept."""
        if self._snapshot is None:
            return self.read(work, *args, **kwargs)
        key = (work, args, tuple(sorted(kwargs.items())))
        if key not in self._seen:
            self._seen[key] = work(self._snapshot, *args, **kwargs)
        found: T = self._seen[key]
        return found

    # What an ingest or an import stores

    def add(self, new: NewModel, *, replace: bool = False) -> Added:
        """Store a model, or add the name and new values to known weights; see `adding.add_models`."""
        from registry.storage.models.adding import add_models

        [added] = self.patiently(self.write, add_models, [new], replace=replace)
        return added

    def add_all(
        self, given: Sequence[NewModel], entries: Sequence[Entry], *, replace: bool = False
    ) -> list[Added | RegistryError]:
        """Store models in one transaction or, if one is refused, in one each; return the outcome or error of each.

        ``entries``: journal entries, one per model, written in the same transaction.
        """
        from registry.storage.journal.run_journal import record_entries
        from registry.storage.models.adding import add_models

        def put(connection: Connection) -> list[Added | RegistryError]:
            added = add_models(connection, given, replace=replace)
            done = zip(entries, added, strict=True)
            rows = [(dataclasses.replace(entry, state=each.status), each.model_id) for entry, each in done]
            record_entries(connection, rows)
            return [*added]

        try:
            return self.patiently(self.write, put) if given else []
        except StorageError:
            raise
        except RegistryError as error:
            if len(given) == 1:
                return [error]
            alone = zip(given, entries, strict=True)
            return [each for new, entry in alone for each in self.add_all([new], [entry], replace=replace)]

    def adopt(self, run_id: int) -> list[int]:
        """Mark items that other runs of the plan have finished; return their positions. Writes only if needed."""
        from registry.storage.journal.run_journal import adopt_items, finished_elsewhere

        found = self.patiently(self.read, finished_elsewhere, run_id)
        if found:
            self.patiently(self.write, adopt_items, run_id, found)
        return sorted(found)

    @contextmanager
    def selection(self, wanted: Filter | None = None, names: Sequence[str] = ()) -> Iterator[Selection]:
        """Yield the models with one of the names, if given, that match the filter, for an export."""
        from registry.storage.portable.exporting import Selection

        with guarded(self.address), reading(self._engine) as connection:
            yield Selection(connection, wanted, names)

    def merge(
        self, given: Sequence[Portable | Ingested], *, overrule: bool, rule: str, dry_run: bool = False
    ) -> list[Ingested]:
        """Merge models in one transaction or, if one is damaged, in one each; see `merging.merge`.

        Failed items are returned unchanged. ``dry_run``: return the outcomes and change nothing.
        """
        from registry.storage.portable import merging
        from registry.types.outcomes import Ingested

        run = self.rehearse if dry_run else self.write

        def bring(some: Sequence[Portable]) -> list[Ingested]:
            return run(merging.merge, some, overrule=overrule, rule=rule)

        sound = [each for each in given if not isinstance(each, Ingested)]
        return [each for each in given if isinstance(each, Ingested)] + merging.one_by_one(bring, sound)

    # What is known of a spec

    def calibration(self, spec_hash: str, distance: str) -> Calibration | None:
        """Return the calibration of the registry for a spec and distance, or None."""
        return self._once(spec_facts, spec_hash, distance).calibration

    def vectors(self, spec_hash: str) -> VectorCache:
        """Return the current cache of all vectors of a spec: read at first, then updated with changes.

        Without a change, one row is read. The arrays are valid until the next call.
        """
        memory = self.memory.setdefault(spec_hash, VectorCache())
        with self.snapshot():
            state = self._once(state_of, spec_hash)
            self.read(memory.refresh, state)
        return memory

    def of_training(self, spec_hash: str, training: str) -> NDArray[np.bool_]:
        """Mask of the rows of `vectors` with that training class."""
        return self.read(self.memory[spec_hash].of_training, training)

    def sketches(self, version: int) -> SketchCache:
        """Return the current cache of topologies and of sketches of a version; valid until the next call.

        The stamps of the specs tell of changes. Without one, these few rows are read.
        """
        drawn = self.drawn.setdefault(version, SketchCache(version))
        with self.snapshot():
            self.read(drawn.refresh, self._once(all_states))
        return drawn

    def index(self, spec: FingerprintSpec, distance: str) -> OpenIndex | None:
        """Return the pgvector index of a spec and distance for a search; None without one."""
        if self._engine.dialect.name != "postgresql":
            return None
        with self.snapshot():
            state, _, facts = self._once(spec_facts, spec.hash, distance)
            if state is None or facts is None:
                return None
            found = self.read(pgvector_index.opened, state, facts, distance, spec.label)
            if found is None or found.problem:
                return None if found is None else pgvector_index.OpenIndex(found, state, distance, 0)
            # Counting takes O(n), so it is done once per change.
            if self._counted.get(spec.hash, (None, 0))[0] != state:
                self._counted[spec.hash] = (state, self.read(count_vectors, state.id))
            return pgvector_index.OpenIndex(found, state, distance, self._counted[spec.hash][1])

    def build_index(self, spec: FingerprintSpec, distance: str) -> int | None:
        """Build the pgvector index of a spec and distance; return its number of vectors, None on SQLite."""
        from registry.storage.index.index_building import build_index, check_distance

        check_distance(distance)
        return self.write(build_index, spec, distance) if self._engine.dialect.name == "postgresql" else None
