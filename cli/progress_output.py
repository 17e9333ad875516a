"""Progress of an ingest on standard error: a bar on a terminal, else a line per model; failures only if quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from registry.cli.error_output import harmless, report
from registry.errors import RegistryError
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from registry.ingest import Progress
    from registry.types import Ingested, ModelRef

__all__ = ["report_failure", "reporter"]

SHOWN = 2  # names of current models beside the bar


def reporter(*, quiet: bool) -> Progress:
    """The reporter for standard error: bar, lines or failures only."""
    if quiet:
        return Failures()
    return Bars() if sys.stderr.isatty() else Lines()


def report_failure(result: Ingested) -> None:
    """Write one failure and its remedy to standard error."""
    report(RegistryError(result.message, result.remedy or None), about=result.reference)


class Failures:
    """Reports failures only."""

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """Report nothing."""

    def start(self, ref: ModelRef) -> None:
        """Report nothing."""

    def done(self, ref: ModelRef, result: Ingested) -> None:  # noqa: ARG002
        """Report a failure."""
        if result.status == "failed":
            report_failure(result)

    def end(self) -> None:
        """Report nothing."""


class Lines(Failures):
    """Reports a line per model, for logs."""

    def __init__(self) -> None:
        self._total = 0
        self._finished = 0

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:  # noqa: ARG002
        """Store the number of models, and report how many were finished before."""
        self._finished, self._total = done, done + len(refs)
        if done:
            stored = f"{done} of {counted(self._total, 'model')} {'was' if done == 1 else 'were'} stored"
            sys.stderr.write(f"{stored} by an earlier start of this run.\n")

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Report the outcome of a model."""
        self._finished += 1
        name = harmless(result.name or ref.name)
        sys.stderr.write(f"[{self._finished}/{self._total}] {name}: {result.status}, {result.seconds:.1f} s\n")
        super().done(ref, result)


class Bars(Failures):
    """A bar weighted by cost, with finished models, rate, time left, failures and the current models."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._weights: dict[ModelRef, float] = {}
        self._in_hand: list[str] = []
        self._total = self._before = self._finished = self._failed = 0
        self._began = 0.0

    def begin(self, refs: Sequence[ModelRef], costs: Sequence[float], *, done: int = 0) -> None:
        """Show the bar. Models finished before are not part of it, so that the time left is correct."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._weights = dict(zip(refs, costs, strict=True))
        self._before, self._total = done, done + len(refs)
        self._began = time.monotonic()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, highlight=False),
        )
        self._task = self._bar.add_task("", total=sum(map(self._weights.__getitem__, refs)), figures=self._figures())
        self._bar.start()

    def _figures(self) -> str:
        elapsed = time.monotonic() - self._began
        rate = f", {60 * self._finished / elapsed:.0f} a minute" if self._finished and elapsed > 0 else ""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._before + self._finished}/{counted(self._total, 'model')}{rate}{failed}"

    def _described(self) -> str:
        more = f" and {len(self._in_hand) - SHOWN} more" if len(self._in_hand) > SHOWN else ""
        return ", ".join(self._in_hand[:SHOWN]) + more

    def _update(self, advance: float = 0.0) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=advance, description=self._described(), figures=self._figures())

    def start(self, ref: ModelRef) -> None:
        """Add a model to the current ones."""
        self._in_hand.append(harmless(ref.name))
        self._update()

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Advance by the cost of the model; a failure is written above the bar."""
        self._finished += 1
        self._failed += result.status == "failed"
        if harmless(ref.name) in self._in_hand:
            self._in_hand.remove(harmless(ref.name))
        self._update(self._weights.get(ref, 0.0))
        super().done(ref, result)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
