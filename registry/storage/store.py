"""`Store`: an open registry. Every method is one transaction; what it does is in the modules beside this one."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import func, select

from registry.errors import RegistryError, StorageError, UnknownModelError, UsageError
from registry.storage import (
    adding,
    calibration_rows,
    calibrations,
    changes,
    derived,
    figures,
    indexing,
    journal,
    measured,
    merging,
    partitions,
    queries,
    summaries,
    vectors,
)
from registry.storage.engine import make_engine, reading
from registry.storage.exporting import Selection
from registry.storage.failures import guarded
from registry.storage.records import CONJUGACY_RULE
from registry.storage.remembered import Remembered
from registry.storage.runs import Runs
from registry.storage.schema import models, names
from registry.storage.standing import SpecState, Standing, standing, state_of
from registry.storage.transactions import Mode
from registry.storage.url import Address
from registry.storage.version import HEAD, current_version, require_head
from registry.types.outcomes import Ingested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine

    from registry.storage.assembling import Portable
    from registry.storage.journal import Entry
    from registry.storage.records import (
        Added,
        DetailsRows,
        Holding,
        IndexReport,
        Label,
        NewModel,
        PartitionKey,
        PartitionRow,
        Size,
        StoredClass,
        StoredPartition,
        Subject,
    )
    from registry.types import (
        Calibration,
        Conjugacy,
        Filter,
        Fingerprint,
        FingerprintSpec,
        Metric,
        ModelSummary,
        Spectrum,
        Stats,
    )

__all__ = ["Mode", "Store"]


T = TypeVar("T")


class _UndoneError(Exception):
    """Rolls a transaction back that has done what it was to show."""


class Store(Runs):
    """A registry in a SQLite file or a Postgres schema, opened by `Store.open`; a context manager.

    Names given to its methods may also be ``sha256:PREFIX``, the beginning of a content hash. Every method raises
    `StorageError` where the database refuses; those that change something, `ReadOnlyError` where it may only be read;
    those that take a name, `UnknownModelError` and `EmptyRegistryError` where nothing has it.
    """

    def __init__(
        self, address: Address, engine: Engine, mode: Mode, remembered: dict[str, Remembered] | None = None
    ) -> None:
        super().__init__(address, engine, mode)
        self.memory = {} if remembered is None else remembered
        self._counted: dict[str, tuple[SpecState | None, int]] = {}

    @classmethod
    def open(cls, url: str, *, mode: Mode, after: Store | None = None) -> Store:
        """Open the registry at a path, ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.

        Parameters
        ----------
        url : str
            Where.
        mode : {"read", "write", "create"}
            ``read`` changes nothing and needs no right to; ``write`` needs a registry that is there; ``create`` makes
            an empty one if none is: the SQLite file, but no folder, or the tables in Postgres's schema in use.
        after : Store, optional
            One of the same place, opened before and closed: what it remembers of vectors is not read again.

        Raises
        ------
        UsageError
            The URL cannot be read, or its kind is not supported.
        DatabaseMissingError
            Nothing is there, and ``mode`` is not ``create``.
        SchemaVersionError
            Its schema is older, and the remedy is the command that upgrades it; or newer.
        StorageError
            It cannot be reached, or is something else, which is not touched.
        """
        if mode not in ("read", "write", "create"):
            raise UsageError(f"{mode!r} is no mode", "use read, write or create")
        address = Address.parse(url)
        engine = make_engine(address, "read" if mode == "read" else "write")
        try:
            version = current_version(address, engine)
            if version is None and mode == "create":
                from registry.storage import migrate

                migrate.create(address)
                version = current_version(address, engine)
            require_head(address, version)
        except BaseException:
            engine.dispose()
            raise
        return cls(address, engine, mode, None if after is None else after.memory)

    def _standing(self, spec_hash: str, metric: str) -> Standing:
        return self._once((spec_hash, metric), lambda connection: standing(connection, spec_hash, metric))

    def _state(self, spec_hash: str) -> SpecState | None:
        return self._once(spec_hash, lambda connection: state_of(connection, spec_hash))

    def _change(self, name: str, work: Callable[[Connection, int], object]) -> ModelSummary:
        def change(connection: Connection) -> ModelSummary:
            model_id = queries.resolve(connection, name, self._address)
            work(connection, model_id)
            return summaries.summaries(connection, ids=[model_id])[0]

        return self._write(change)

    def add(self, new: NewModel, *, replace: bool = False) -> Added:
        """Store a model, or add the name and what else is new to known weights; see `registry.storage.adding.add`.

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
            journal.record(connection, rows)
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
        """Store calibrations where there are none of their spec and metric, or in place of them; return how many."""
        return self._tried(lambda c: calibration_rows.merge_calibrations(c, given, replace=replace), dry_run=dry_run)

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
        return self._patiently(lambda: self._read(lambda connection: queries.holding(connection, content_hash)))

    def whole_hashes(self, rule: str, specs: Iterable[str], *, spectra: bool, exact: bool) -> list[str]:
        """Return the content hashes of all models of a matrix rule with vectors under all those specs; O(n)."""
        wanted = tuple(specs)
        return self._patiently(
            lambda: self._read(
                lambda connection: queries.whole_hashes(connection, rule, wanted, spectra=spectra, exact=exact)
            )
        )

    def known_as(self, content_hash: str) -> ModelSummary | None:
        """Return the model with exactly these weights, None where they are not stored."""

        def find(connection: Connection) -> ModelSummary | None:
            ids = connection.scalars(select(models.c.id).where(models.c.content_hash == content_hash)).all()
            return summaries.summaries(connection, ids=ids)[0] if ids else None

        return self._read(find)

    def count(self) -> int:
        """Return how many models are stored."""
        return self._read(lambda connection: connection.scalar(select(func.count()).select_from(models)) or 0)

    def has_name(self, name: str) -> bool:
        """Whether a model has exactly that name."""
        return self._read(lambda c: c.scalar(select(names.c.id).where(names.c.name == name)) is not None)

    def find(self, name: str) -> ModelSummary:
        """Return the model of that name or hash."""
        return self._read(
            lambda c: summaries.summaries(c, ids=[queries.resolve(c, name, self._address)])[0],
        )

    def summary(self, model_id: int) -> ModelSummary:
        """Return the model of that id; `UnknownModelError` where there is none any more."""
        found = self.summaries(ids=[model_id])
        if not found:
            raise UnknownModelError("the model was removed meanwhile")
        return found[0]

    def summaries(self, wanted: Filter | None = None, ids: Sequence[int] | None = None) -> list[ModelSummary]:
        """Return the models that a filter lets through, of ``ids`` if given, ordered by name."""
        return self._read(lambda connection: summaries.summaries(connection, wanted, ids))

    def candidate_ids(self, wanted: Filter | None = None) -> list[int]:
        """Return the ids of the models that a filter lets through, ascending."""
        return self._read(lambda connection: queries.candidate_ids(connection, wanted))

    def unknown_count(self, wanted: Filter, besides: int = 0) -> int:
        """Return how many models, but that one, a filter leaves out only for bounds on what is not known of them."""
        return self._read(lambda connection: queries.unknown_count(connection, wanted, besides))

    def subject(self, name: str, spec_hash: str) -> Subject | None:
        """Return the model of exactly that name as a question by a spec is about it, None where there is none."""
        return self._read(lambda connection: summaries.subject(connection, name, spec_hash))

    def sizes(self, wanted: Filter) -> list[Size]:
        """Return how large the models are that a filter lets through, by id."""
        return self._read(lambda connection: figures.sizes(connection, wanted))

    def metrics(self, wanted: Filter) -> list[tuple[int, Metric]]:
        """Return the metrics of the models that a filter lets through, with the model's id, ascending."""
        return self._read(lambda connection: figures.measured(connection, wanted))

    def texts(self, field: str) -> list[str]:
        """Return the known values of ``family``, ``architecture``, ``task``, ``dataset`` or ``licence``, ascending."""
        return self._read(lambda connection: figures.texts(connection, field))

    def details_rows(self, model_id: int) -> DetailsRows:
        """Return everything stored of a model but summary, spectra and vectors."""
        return self._read(lambda connection: queries.details_rows(connection, model_id))

    def spectra(self, model_id: int) -> tuple[Spectrum, ...] | None:
        """Return a model's spectra in depth order, float32 and read-only; None where they were not kept."""
        return self._read(lambda connection: vectors.read_spectra(connection, model_id))

    def conjugacy(self, ids: Sequence[int]) -> dict[int, Conjugacy]:
        """Return conjugacy figures by id, where known."""
        return self._read(lambda connection: vectors.conjugacy_of(connection, ids))

    def classes(self, ids: Sequence[int] | None = None) -> dict[int, tuple[str, str]]:
        """Return (tail class, training class) by id, of all models or of ``ids``, where known."""
        return self._read(lambda connection: vectors.classes(connection, ids))

    def put_conjugacy(self, model_id: int, given: Conjugacy, rule: int = CONJUGACY_RULE) -> None:
        """Store a model's conjugacy figures, judged by that version of the thresholds."""
        self._write(lambda connection: measured.put_measured(connection, {}, {model_id: (given, rule)}))

    def missing_conjugacy(self, rule: int = CONJUGACY_RULE) -> list[int]:
        """Return the ids of the models without figures by that version of the thresholds, ascending."""
        return self._read(lambda connection: vectors.missing_conjugacy(connection, rule))

    def fingerprints(
        self, spec_hash: str, ids: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids (n,), int64, ascending, and vectors (n, d), float32; d is 0 for an unknown spec."""
        return self._read(lambda connection: vectors.read_fingerprints(connection, spec_hash, ids))

    def remembers(self, spec_hash: str) -> bool:
        """Whether vectors of that spec are in memory already, if perhaps not the latest."""
        return spec_hash in self.memory

    def remembered(self, spec_hash: str) -> Remembered:
        """Return all vectors of a spec from memory, current: the first time they are read, then what changed since.

        Without a change it costs one row. Its arrays are good until the next call.
        """
        memory = self.memory.setdefault(spec_hash, Remembered())
        with self.snapshot():
            state = self._state(spec_hash)
            self._read(lambda connection: memory.refresh(connection, state))
        return memory

    def of_kind(self, spec_hash: str, kind: tuple[str, str]) -> NDArray[np.bool_]:
        """Which rows of `remembered` are of that tail class and training class."""
        memory = self.memory[spec_hash]
        return self._read(lambda connection: memory.of_kind(connection, kind))

    def vector(self, spec_hash: str, model_id: int) -> NDArray[np.float32] | None:
        """Return one model's vector under a spec, None where it has none."""
        return self._read(lambda connection: vectors.read_vector(connection, spec_hash, model_id))

    def index(self, spec: FingerprintSpec, metric: str) -> derived.OpenIndex | None:
        """Return what can be made of a derived index for a spec and distance; None where none is there at all."""
        if self._engine.dialect.name != "postgresql":
            return None

        with self.snapshot():
            state, _, facts = self._standing(spec.hash, metric)
            if state is None or facts is None:
                return None
            found = self._read(lambda connection: derived.opened(connection, state, facts, metric, spec.label))
            if found is None or found.problem:
                return None if found is None else derived.OpenIndex(found, state, metric, 0)
            # Counting is O(n): once a change.
            if self._counted.get(spec.hash, (None, 0))[0] != state:
                count = self._read(lambda connection: vectors.count_vectors(connection, state.id))
                self._counted[spec.hash] = (state, count)
            return derived.OpenIndex(found, state, metric, self._counted[spec.hash][1])

    def near(
        self,
        index: derived.OpenIndex,
        query: NDArray[np.float32] | int,
        k: int,
        *,
        ids: Sequence[int] | None = None,
        kind: tuple[str, str] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and vectors of some more than ``k`` models that the index finds near; see `derived.find`."""
        return self._read(lambda connection: derived.find(connection, index, query, k, ids=ids, kind=kind))

    def count_vectors(self, index: derived.OpenIndex, ids: Sequence[int]) -> int:
        """Return how many of those models have a vector in the index."""
        return self._read(lambda connection: vectors.count_vectors(connection, index.state.id, ids))

    def build_index(self, spec: FingerprintSpec, metric: str) -> int | None:
        """Make the derived index for a spec and distance; return how many vectors it holds, None on SQLite."""
        indexing.check_metric(metric)
        if self._engine.dialect.name != "postgresql":
            return None
        return self._write(lambda connection: indexing.build(connection, spec, metric))

    def drop_index(self, spec_hash: str | None = None) -> int:
        """Drop the derived indexes of a spec, or all; return of how many specs."""
        return self._write(lambda connection: indexing.drop(connection, spec_hash))

    def index_report(self, spec: FingerprintSpec, metric: str) -> IndexReport | None:
        """Return how a derived index stands to the vectors, None where there is none."""
        return self._read(lambda connection: indexing.report(connection, spec, metric))

    def put_fingerprints(self, model_id: int, given: Iterable[Fingerprint]) -> None:
        """Store vectors of a model, in place of those under the same specs."""
        kept = tuple(given)
        self._write(lambda connection: measured.put_measured(connection, {model_id: kept}))

    def missing_fingerprints(self, spec_hash: str) -> list[int]:
        """Return the ids of the models without a vector under the spec, ascending."""
        return self._read(lambda connection: vectors.missing_fingerprints(connection, spec_hash))

    def specs(self) -> list[FingerprintSpec]:
        """Return the specs that fingerprints are stored under."""
        return self._read(vectors.all_specs)

    def drop_spec(self, spec_hash: str) -> int:
        """Forget a spec with its vectors and calibrations; return how many vectors."""
        return self._write(lambda connection: measured.drop_spec(connection, spec_hash))

    def set_card(self, name: str, given: Mapping[str, str | float | None]) -> ModelSummary:
        """Set fields of a model's card; None makes one unknown."""
        return self._change(name, lambda connection, model_id: changes.set_card(connection, model_id, given))

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, in place of the one of the same name, data set and split."""
        return self._change(name, lambda connection, model_id: changes.set_metric(connection, model_id, metric))

    def tag(self, name: str, given: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
        """Put tags on a model, or with None take one off; return all that it has now, by key."""
        return self._write(
            lambda c: changes.set_tags(c, queries.resolve(c, name, self._address), given),
        )

    def rename(self, old: str, new: str) -> ModelSummary:
        """Replace a name; a model found by its hash gets the new one beside those it has."""
        return self._change(old, lambda connection, model_id: changes.rename(connection, model_id, old, new))

    def drop_name(self, name: str) -> ModelSummary:
        """Take one of several names from a model."""
        return self._change(name, lambda connection, model_id: changes.drop_name(connection, model_id, name))

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names and everything else; return what it was."""

        def remove(connection: Connection) -> ModelSummary:
            model_id = queries.resolve(connection, name, self._address)
            summary = summaries.summaries(connection, ids=[model_id])[0]
            changes.remove(connection, model_id)
            return summary

        return self._write(remove)

    def calibration(self, spec_hash: str, metric: str) -> Calibration | None:
        """Return the calibration of a spec and metric, None where there is none."""
        return self._standing(spec_hash, metric).calibration

    def put_calibration(self, given: Calibration) -> None:
        """Store a calibration in place of the one of its spec and metric."""
        self._write(lambda connection: calibrations.put_calibration(connection, given))

    def drop_calibration(self, spec_hash: str, metric: str) -> bool:
        """Forget the calibration of a spec and metric; return whether there was one."""
        return self._write(lambda connection: calibrations.drop_calibration(connection, spec_hash, metric))

    def labels(self, spec_hash: str) -> list[Label]:
        """Return what tells related models from unrelated ones, of those with a vector under the spec, by id."""
        return self._read(lambda connection: calibrations.labels(connection, spec_hash))

    def partition(self, key: PartitionKey) -> StoredPartition | None:
        """Return the classes that models were sorted into by those terms, None where none are kept."""
        return self._read(lambda connection: partitions.find_partition(connection, key))

    def put_partition(
        self,
        key: PartitionKey,
        mark: str,
        given: Sequence[StoredClass],
        identities: Callable[[Mapping[str, Sequence[int]]], Sequence[str]],
    ) -> StoredPartition | None:
        """Keep classes in place of those by the same terms; see `registry.storage.partitions.put_partition`."""
        return self._write(lambda connection: partitions.put_partition(connection, key, mark, given, identities))

    def partitions(self) -> list[PartitionRow]:
        """Return what partitions are kept, the newest first."""
        return self._read(partitions.all_partitions)

    def drop_partition(self, partition_id: int) -> PartitionRow:
        """Forget a kept partition; return what it was."""
        return self._write(lambda connection: partitions.drop_partition(connection, partition_id))

    def find_class(self, identity: str) -> tuple[PartitionRow, int, StoredClass]:
        """Return a kept class by its identity or the beginning of it: its partition, its number, itself."""
        return self._read(lambda connection: partitions.find_class(connection, identity))

    def classes_with(self, model_id: int) -> list[tuple[PartitionKey, str, int]]:
        """Return the kept classes that a model is in: terms, identity, number of members."""
        return self._read(lambda connection: partitions.classes_with(connection, model_id))

    def stats(self) -> Stats:
        """Return what the registry holds."""
        return self._read(lambda connection: queries.stats(connection, HEAD))
