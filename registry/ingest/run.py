"""The run over the models to ingest: one failure is one failed item, never the end of the run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from registry.errors import RegistryError, StorageError
from registry.types import Ingested, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Progress", "Silent", "run"]


class Progress(Protocol):
    """What watches a run. Every ``start`` is followed by one ``done``, unless the run is interrupted."""

    def begin(self, refs: Sequence[ModelRef]) -> None:
        """Say what will be done, in order."""

    def start(self, ref: ModelRef) -> None:
        """Say that this one is in hand."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Say what became of it."""

    def end(self) -> None:
        """Say that the run is over, finished or not."""


class Silent:
    """Progress that says nothing."""

    def begin(self, refs: Sequence[ModelRef]) -> None:
        """Ignore it."""

    def start(self, ref: ModelRef) -> None:
        """Ignore it."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Ignore it."""

    def end(self) -> None:
        """Ignore it."""


def run(
    refs: Sequence[ModelRef], work: Callable[[ModelRef], Ingested], progress: Progress | None = None
) -> tuple[Ingested, ...]:
    """Do ``work`` on every reference in order and return what became of each; O(n) calls, nothing kept between them.

    A ``RegistryError`` of one model becomes a failed item. A ``StorageError`` ends the run, as every later write would
    fail alike: what was written before it stays.
    """
    watcher = progress or Silent()
    results: list[Ingested] = []
    watcher.begin(refs)
    try:
        for ref in refs:
            watcher.start(ref)
            begun = time.perf_counter()
            try:
                result = work(ref)
            except StorageError:
                raise
            except RegistryError as error:
                result = _failed(ref, begun, error.message, error.remedy or "")
            except MemoryError:
                result = _failed(
                    ref, begun, f"{ref.target} does not fit in memory", "ingest it on a machine with more memory"
                )
            results.append(result)
            watcher.done(ref, result)
    finally:
        watcher.end()
    return tuple(results)


def _failed(ref: ModelRef, begun: float, message: str, remedy: str) -> Ingested:
    return Ingested(ref.target, ref.name, "failed", time.perf_counter() - begun, message, remedy)
