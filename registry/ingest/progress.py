"""Progress of a run, as reported to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Ingested, ModelRef

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives the progress of a run. Every ``start`` is followed by one ``done``, unless the run is interrupted."""

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """The run begins: the models, the expected cost of each, and the number that an earlier start has done."""

    def start(self, ref: ModelRef) -> None:
        """A model is being measured; several may be at once."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """The outcome of a model."""

    def end(self) -> None:
        """The run is over, finished or not."""


class Silent:
    """Progress without output."""

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """Do nothing."""

    def start(self, ref: ModelRef) -> None:
        """Do nothing."""

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
