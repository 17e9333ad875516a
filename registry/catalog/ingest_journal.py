"""Journal of a run of ingest: its plan, and the outcome of each model. Written by the storing process."""

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
from registry.spelling import without_secrets
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

BEAT = 15.0  # seconds between heartbeats of a run
PASSING = ("bytes", "time", "cached")  # fields of a record that may change without changing the plan


@dataclass(frozen=True, slots=True)
class Planned:
    """Plan of a run: its models, the options, the expected cost of each model, and the command."""

    refs: Sequence[ModelRef]
    options: Options
    costs: Sequence[float]
    command: str = ""

    def run(self) -> NewRun:
        """The run as a journal record. Its hash covers what determines the stored content, without the files."""
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
    """Journal record of a reference, with the file's size and modification time, which detect a changed file."""
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
    if ref.base:  # left out of other records, whose hashes stay what they are
        record["base"] = without_secrets(ref.base)
    try:
        record["time"] = Path(ref.target).stat().st_mtime_ns
    except (OSError, ValueError):  # not a file but a name of a source, or a file that was removed
        record["time"] = None
    return record


def from_record(text: str) -> ModelRef:
    """Inverse of `to_record`."""
    record = json.loads(text)
    card = record["card"]
    card["metrics"] = tuple(Metric(**metric) for metric in card.get("metrics", ()))
    card["tags"] = tuple((key, value) for key, value in card.get("tags", ()))
    fields = {key: record[key] for key in ("source", "target", "name", "key", "seed", "bytes", "cached")}
    return ModelRef(**fields, card=ModelCard(**card), base=record.get("base", ""))


class Journal:
    """Stores the models that an executor returns, and records the outcome of each item in the journal.

    The first stored model creates the database and the journal, if there are none. Earlier failures are recorded then.
    """

    def __init__(self, database: Database, planned: Planned, discard: Callable[[ModelRef], None]) -> None:
        self._database = database
        self._planned = planned
        self._discard = discard
        self._early: list[Entry] = []
        self._run_id: int | None = None
        self.beside = False

    def open(self) -> dict[int, Ingested]:
        """Start the run if there is a database, and return the items that an earlier start finished, by position."""
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
        """Store measured models. None marks weights that were taken for stored but are not."""
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
        """Record a failure, once there is a journal."""
        from registry.storage.journal.run_journal import record_entries

        entry = self._entry(outcome, "failed", result.message, result.remedy)
        store = self._database.existing() if self._run_id is not None else None
        if store is None:
            self._early.append(entry)
        else:
            store.patiently(store.write, record_entries, [(entry, None)])

    def elsewhere(self) -> Sequence[int]:
        """Positions that concurrent runs of the same plan have finished."""
        return self._database.created().adopt(self._run_id) if self._run_id is not None else ()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write heartbeats during the run, and record its final state."""
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
                return  # the storing thread meets the same error and reports it

    def _end(self, state: str) -> None:
        from registry.storage.journal.run_journal import end_run

        if self._run_id is None:
            return
        try:
            self._database.created().write(end_run, self._run_id, state)
        except StorageError:
            if state != "stopped":  # else the error that stopped the run is reported
                raise
