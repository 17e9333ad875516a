"""Runs of ingest: an executor measures the unfinished models of a plan, and this process stores them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from registry.catalog.estimating import TORCH_SOURCES, estimate
from registry.catalog.ingest_journal import Journal, Planned
from registry.catalog.measuring import Hashes
from registry.catalog.storing import Stored, reading_of
from registry.errors import StorageError, UsageError
from registry.ingest import EXECUTORS, Setting, Silent, Task, chosen, kin_of, limit_of, run
from registry.spelling import brief, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from registry.catalog.database import Database
    from registry.catalog.measuring import Reading
    from registry.catalog.storing import Options
    from registry.ingest import Progress
    from registry.types import Ingested, ModelEstimate, ModelRef

    Watcher = Progress | Callable[[int, int], None]

__all__ = ["ingest_refs"]


def ingest_refs(
    database: Database,
    refs: Sequence[ModelRef],
    options: Options,
    setting: Setting,
    command: str,
    progress: Watcher | None,
) -> tuple[Ingested, ...]:
    """Ingest a plan, or its unfinished models; return the outcome of every model in the order of the plan."""
    from registry.sources import discard

    if setting.name == "ray" and options.discard_weights:
        raise UsageError("the executor ray cannot delete downloads on its nodes", "leave --discard-weights out")
    if not refs:
        return ()
    if options.device != "cpu":
        if setting.name == "ray":
            raise UsageError("the executor ray measures on CPU cores only", "leave --device out")
        if not setting.name and setting.workers is None:  # all processes would share the one device
            setting = replace(setting, workers=1)
    expected = estimate(refs, setting, approximate=options.approximate, headers_only=options.headers_only).models
    planned = Planned(refs, options, [model.seconds for model in expected], command)
    settled = chosen(setting, len(refs), sum(planned.costs))
    watcher = _watcher(progress)
    executor = EXECUTORS[settled.name](settled, _modules(refs))
    try:
        journal = Journal(database, planned, discard)
        # Open an existing database now, so that an error comes before hours of measuring.
        results = journal.open()
        if settled.name != "inprocess":
            database.load()
        left = [_task(at, ref, expected[at], settled) for at, ref in enumerate(refs) if at not in results]
        watcher.begin([task.ref for task in left], [task.cost for task in left], done=len(results))
        with journal.kept(), _told(results, len(refs)):
            if left:
                executor.begin(_reading(database, options, settled))
            run(_ordered(left, planned.costs, settled, journal), executor, journal, watcher, results)
    finally:
        watcher.end()
        executor.close()
    return tuple(results[at] for at in range(len(refs)))


class Counting(Silent):
    """Progress that calls a function with the number of finished models and of all models."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:  # noqa: ARG002
        """Count models finished by an earlier start as finished."""
        self._done, self._all = done, done + len(refs)

    def done(self, ref: ModelRef, result: Ingested) -> None:  # noqa: ARG002
        """Count a model, whatever its outcome."""
        self._done += 1
        self._tell(self._done, self._all)


def _watcher(progress: Watcher | None) -> Progress:
    """The progress reporter of the run. Raises ``UsageError`` for a wrong type."""
    if progress is None:
        return Silent()
    if hasattr(progress, "begin"):
        return cast("Progress", progress)
    if not callable(progress):
        raise UsageError(
            f"progress must be a function of two numbers, not {brief(progress)}", "or a registry.ingest.Progress"
        )
    return Counting(progress)


def _task(position: int, ref: ModelRef, expected: ModelEstimate, setting: Setting) -> Task:
    limit = limit_of(ref, expected.seconds) if setting.limit is None else setting.limit
    return Task(position, ref, memory=expected.memory, cost=expected.seconds, limit=limit, kin=kin_of(ref))


def _modules(refs: Sequence[ModelRef]) -> list[str]:
    """Modules that a worker imports while the plan is prepared."""
    needed = ["registry.catalog.measuring", "registry.sources", "registry.spectral"]
    return [*needed, "torch"] if any(ref.source in TORCH_SOURCES for ref in refs) else needed


@contextmanager
def _told(results: Mapping[int, Ingested], total: int) -> Iterator[None]:
    """Add the progress, and how to continue, to an error that ends the run."""

    def reached() -> str:
        stored = sum(result.status != "failed" for result in results.values())
        return f"{stored} of {counted(total, 'model')} {'is' if 1 in (stored, total) else 'are'} stored"

    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(reached())
        raise
    except StorageError as error:
        onward = f"{reached()}, and the same command continues with the rest"
        raise type(error)(error.message, f"{error.remedy}; {onward}" if error.remedy else onward) from error


def _reading(database: Database, options: Options, setting: Setting) -> Reading:
    """The work, for this process or for workers, which cannot query the database."""
    from registry.storage.models.adding import whole_hashes

    if setting.name == "inprocess":
        return reading_of(options, Stored(database, options), None)
    from registry.equivalence.sketches import SKETCH_VERSION
    from registry.sources import MATRIX_RULE
    from registry.spectral import SPECS
    from registry.spectral.training import FIGURES_VERSION

    store = database.existing()
    hashes: list[str] = []
    if store is not None:
        specs = [spec.hash for spec in SPECS.values()]
        hashes = store.patiently(
            store.read,
            whole_hashes,
            MATRIX_RULE,
            specs,
            SKETCH_VERSION,
            FIGURES_VERSION,
            spectra=options.keep_spectra,
            exact=not options.approximate,
        )
    return reading_of(options, Hashes.of(MATRIX_RULE, hashes), 1)


def _ordered(tasks: Sequence[Task], costs: Sequence[float], setting: Setting, journal: Journal) -> list[Task]:
    """The tasks, the most expensive first, so that no core ends with a long one; reversed beside a concurrent run.

    A single process keeps the given order.
    """
    if setting.name == "inprocess":
        return list(tasks)[:: -1 if journal.beside else 1]
    return sorted(tasks, key=lambda task: costs[task.position], reverse=not journal.beside)
