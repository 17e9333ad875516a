"""What watches a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Ingested, ModelRef

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """What watches a run. Every ``start`` is followed by one ``done``, unless the run is interrupted."""

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """Say what will be done, what each is expected to cost, and how many more an earlier start has done."""

    def start(self, ref: ModelRef) -> None:
        """Say that this one is in hand; several may be at once."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Say what became of it."""

    def end(self) -> None:
        """Say that the run is over, finished or not."""


class Silent:
    """Progress that says nothing."""

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """Ignore it."""

    def start(self, ref: ModelRef) -> None:
        """Ignore it."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Ignore it."""

    def end(self) -> None:
        """Ignore it."""
