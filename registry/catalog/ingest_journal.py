"""The journal of a run of ingest: its plan, and what became of each model. The process that stores keeps it."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.catalog.storing import is_whole, store_all
from registry.errors import RegistryError, StorageError
from registry.types import Ingested, Metric, ModelCard, ModelRef
from registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from registry.catalog.database import Database
    from registry.catalog.measuring import Read
    from registry.catalog.storing import Options
    from registry.ingest import Outcome
    from registry.storage import Entry, NewRun, Store

__all__ = ["Journal", "Planned", "from_record", "to_record"]

BEAT = 15.0  # seconds between signs of life of a run
PASSING = ("bytes", "time", "cached")  # of a record: what may change while the plan stays the same


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run is about: its models, how they are stored, what each is expected to cost, and how it was asked for."""

    refs: Sequence[ModelRef]
    options: Options
    costs: Sequence[float]
    command: str = ""

    def run(self) -> NewRun:
        """The run as the journal has it. Its hash covers what decides the registry's content, but not the files'."""
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
