"""From measured models to stored ones, the journal with them. The only process that writes does this."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError, StorageError
from registry.types import Ingested, Metric, ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from registry.catalog.database import Database
    from registry.catalog.measuring import Read
    from registry.ingest import Outcome
    from registry.spectral.devices import Device
    from registry.storage import Added, Entry, NewModel, NewRun, Store
    from registry.types import WeightsPlan

__all__ = ["Journal", "Options", "Planned", "from_record", "is_whole", "store_all", "store_read", "to_record"]

BEAT = 15.0  # seconds between signs of life of a run
PASSING = ("bytes", "time", "cached")  # of a record: what may change while the plan stays the same


@dataclass(frozen=True, slots=True)
class Options:
    """How models are stored: whether names move, spectra are kept, downloads go; and where spectra are computed.

    ``approximate``: those of orders beyond 8,192, by stochastic Lanczos quadrature.
    """

    replace: bool = False
    keep_spectra: bool = True
    discard_weights: bool = False
    device: Device = "cpu"
    approximate: bool = False


def is_whole(store: Store, plan: WeightsPlan, options: Options) -> bool:
    """Whether weights are stored with all that this version computes, with spectra if kept, and exactly if asked."""
    from registry.spectral import SPECS
    from registry.storage.models.model_queries import find_holding

    held = store.patiently(store.read, find_holding, plan.content_hash)
    if held is None or held.matrix_rule != plan.rule or not held.judged or not (held.exact or options.approximate):
        return False
    return {spec.hash for spec in SPECS.values()} <= held.specs and (held.has_spectra or not options.keep_spectra)


def store_read(store: Store, read: Read, options: Options, seconds: float) -> Ingested:
    """Store one model that was read, or what is new of it; a transaction."""
    return _ingested(read, store.add(_new_model(read, options), replace=options.replace), seconds)


def store_all(
    store: Store, reads: Sequence[Read], options: Options, entries: Sequence[Entry]
) -> list[Ingested | RegistryError]:
    """Store models together, with the journal's entries; what became of each, or why it is refused."""
    added = store.add_all([_new_model(read, options) for read in reads], entries, replace=options.replace)
    return [
        one if isinstance(one, RegistryError) else _ingested(read, one, entry.seconds)
        for read, one, entry in zip(reads, added, entries, strict=True)
    ]


def _new_model(read: Read, options: Options) -> NewModel:
    from registry import __version__
    from registry.storage import NewModel

    new = NewModel(name=read.ref.name, plan=read.plan, card=read.ref.card, tool_version=__version__)
    if read.measured is None:
        return new
    return replace(
        new,
        spectra=read.measured.spectra,
        keep_spectra=options.keep_spectra,
        conjugacy=read.measured.conjugacy,
        fingerprints=read.measured.fingerprints,
    )


def _ingested(read: Read, added: Added, seconds: float) -> Ingested:
    message = ""
    if added.status == "named":
        other = next((name for name in added.names if name != read.ref.name), "a model without a name")
        message = f"another name for {other}, which has the same weights"
    elif added.status == "known":
        whole = read.measured is None
        message = "already stored; nothing added" if whole else "already stored; what was missing of it is added"
    return Ingested(read.ref.target, read.ref.name, added.status, seconds, message)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run is about: its models, how they are stored, what each is expected to cost, and how it was asked for."""

    refs: Sequence[ModelRef]
    options: Options
    costs: Sequence[float]
    command: str = ""

    def run(self) -> NewRun:
        """The run as the journal has it. Its hash covers what decides the registry's content, but not the files'."""
        from registry import __version__
        from registry.sources import MATRIX_RULE
        from registry.spectral import SPECS
        from registry.storage import NewRun

        records = [to_record(ref) for ref in self.refs]
        options = {**asdict(self.options), "rule": MATRIX_RULE, "specs": [spec.hash for spec in SPECS.values()]}
        lasting = [{key: value for key, value in record.items() if key not in PASSING} for record in records]
        digest = hashlib.sha256(_json([lasting, options]).encode()).hexdigest()[:16]
        items = [
            (_json(record), ref.name, cost) for record, ref, cost in zip(records, self.refs, self.costs, strict=True)
        ]
        return NewRun(digest, self.command, _json(asdict(self.options)), __version__, items)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def to_record(ref: ModelRef) -> dict[str, Any]:
    """A reference as the journal keeps it, with the file's size and time of change, by which a changed one is told."""
    known = {key: value for key, value in asdict(ref.card).items() if value not in ("", None, ())}
    record: dict[str, Any] = {
        "source": ref.source,
        "target": ref.target,
        "name": ref.name,
        "card": known,
        "key": ref.key,
        "seed": ref.seed,
        "bytes": ref.bytes,
        "cached": ref.cached,
    }
    try:
        record["time"] = Path(ref.target).stat().st_mtime_ns
    except (OSError, ValueError):  # no file: a name that a source knows, or one that has gone meanwhile
        record["time"] = None
    return record


def from_record(text: str) -> ModelRef:
    """The reference that `to_record` made the record of."""
    record = json.loads(text)
    card = record["card"]
    card["metrics"] = tuple(Metric(**metric) for metric in card.get("metrics", ()))
    card["tags"] = tuple((key, value) for key, value in card.get("tags", ()))
    fields = {key: record[key] for key in ("source", "target", "name", "key", "seed", "bytes", "cached")}
    return ModelRef(**fields, card=ModelCard(**card))


class Journal:
    """Stores what comes back from an executor, and puts down in the journal what became of each item.

    There is no journal before there is a database, and none is made for a failure: the first model that is stored makes
    both, and what failed before it is put down then.
    """

    def __init__(self, database: Database, planned: Planned, discard: Callable[[ModelRef], None]) -> None:
        self._database = database
        self._planned = planned
        self._discard = discard
        self._early: list[Entry] = []
        self._run_id: int | None = None
        self.beside = False

    def open(self) -> dict[int, Ingested]:
        """Start the run where there is a database, and return what an earlier start has finished of it."""
        store = self._database.existing()
        return {} if store is None else self._begin(store)

    def _begin(self, store: Store) -> dict[int, Ingested]:
        from registry.storage.journal.run_journal import begin_run

        begun = store.patiently(store.write, begin_run, self._planned.run())
        self._run_id, self.beside = begun.id, begun.beside
        refs = self._planned.refs
        return {
            at: Ingested(refs[at].target, refs[at].name, "known", 0.0, "stored by an earlier start of this run")
            for at in begun.done
        }

    def _entry(self, outcome: Outcome, *result: str) -> Entry:
        from registry.storage import Entry

        return Entry(self._run_id or 0, outcome.task.position, outcome.seconds, *result)

    def store(self, outcomes: Sequence[Outcome]) -> Sequence[Ingested | RegistryError | None]:
        """Store models that were read; None where weights were taken for stored and are not."""
        from registry.storage.journal.run_journal import record_entries

        store, options = self._database.created(), self._planned.options
        found: list[Ingested | RegistryError | None] = [None] * len(outcomes)
        reads: list[Read] = [outcome.value for outcome in outcomes]
        sound = [
            at for at, read in enumerate(reads) if read.measured is not None or is_whole(store, read.plan, options)
        ]
        if sound and self._run_id is None:
            self._begin(store)
            early = [(replace(entry, run_id=self._run_id or 0), None) for entry in self._early]
            if early:
                store.patiently(store.write, record_entries, early)
        entries = [self._entry(outcomes[at]) for at in sound]
        for at, result in zip(sound, store_all(store, [reads[at] for at in sound], options, entries), strict=True):
            found[at] = result
            if options.discard_weights and isinstance(result, Ingested):
                self._discard(outcomes[at].task.ref)
        return found

    def fail(self, outcome: Outcome, result: Ingested) -> None:
        """Put down a failure, once there is a journal."""
        from registry.storage.journal.run_journal import record_entries

        entry = self._entry(outcome, "failed", result.message, result.remedy)
        store = self._database.existing() if self._run_id is not None else None
        if store is None:
            self._early.append(entry)
        else:
            store.patiently(store.write, record_entries, [(entry, None)])

    def elsewhere(self) -> Sequence[int]:
        """Positions that other runs of the same plan have finished meanwhile."""
        return self._database.created().adopt(self._run_id) if self._run_id is not None else ()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give signs of life meanwhile, and at the end put down how it ended."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        state = "stopped"
        try:
            yield
            state = "done"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            over.set()
            thread.join()
            self._end(state)

    def _beat(self, over: threading.Event) -> None:
        from registry.storage.journal.run_journal import beat_run

        while not over.wait(BEAT):
            if self._run_id is None:
                continue
            try:
                self._database.created().write(beat_run, self._run_id)
            except StorageError:
                return  # the thread that stores meets the same, and tells it

    def _end(self, state: str) -> None:
        from registry.storage.journal.run_journal import end_run

        if self._run_id is None:
            return
        try:
            self._database.created().write(end_run, self._run_id, state)
        except StorageError:
            if state != "stopped":  # otherwise what stopped it is told, and is the cause of this as well
                raise
