"""Progress of an ingest on standard error: a bar on a terminal, a line a model elsewhere, failures alone if quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from registry.cli.errors import harmless, report
from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from registry.ingest import Progress
    from registry.types import Ingested, ModelRef

__all__ = ["report_failure", "reporter"]


def reporter(*, quiet: bool) -> Progress:
    """The reporter that suits standard error."""
    if quiet:
        return Failures()
    return Bars() if sys.stderr.isatty() else Lines()


def report_failure(result: Ingested) -> None:
    """Write one failure and its remedy to standard error."""
    report(RegistryError(result.message, result.remedy or None), about=result.reference)


class Failures:
    """Tells failures alone."""

    def begin(self, refs: Sequence[ModelRef]) -> None:
        """Nothing to tell."""

    def start(self, ref: ModelRef) -> None:
        """Nothing to tell."""

    def done(self, ref: ModelRef, result: Ingested) -> None:  # noqa: ARG002
        """Tell a failure."""
        if result.status == "failed":
            report_failure(result)

    def end(self) -> None:
        """Nothing to tell."""


class Lines(Failures):
    """A line a model, for logs."""

    def __init__(self) -> None:
        self._total = 0
        self._finished = 0

    def begin(self, refs: Sequence[ModelRef]) -> None:
        """Remember how many there are."""
        self._total = len(refs)

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Tell what became of a model."""
        self._finished += 1
        name = harmless(result.name or ref.name)
        sys.stderr.write(f"[{self._finished}/{self._total}] {name}: {result.status}, {result.seconds:.1f} s\n")
        super().done(ref, result)


class Bars(Failures):
    """A bar weighted by bytes, with models done, rate, time left, failures so far and the model in hand."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._typical = 1.0
        self._total = self._finished = self._failed = 0
        self._began = 0.0

    def begin(self, refs: Sequence[ModelRef]) -> None:
        """Show the bar. A model of unknown size weighs as much as the mean of the others."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        known = [ref.bytes for ref in refs if ref.bytes]
        self._typical = sum(known) / len(known) if known else 1.0
        self._total = len(refs)
        self._began = time.monotonic()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True, highlight=False),
        )
        self._task = self._bar.add_task("", total=sum(map(self._weight, refs)), figures=self._figures())
        self._bar.start()

    def _weight(self, ref: ModelRef) -> float:
        return float(ref.bytes or self._typical)

    def _figures(self) -> str:
        elapsed = time.monotonic() - self._began
        rate = f", {60 * self._finished / elapsed:.0f} a minute" if self._finished and elapsed > 0 else ""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._finished}/{self._total} models{rate}{failed}"

    def start(self, ref: ModelRef) -> None:
        """Show the model in hand."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=harmless(ref.name))

    def done(self, ref: ModelRef, result: Ingested) -> None:
        """Move on by the model's weight; a failure is written above the bar."""
        self._finished += 1
        self._failed += result.status == "failed"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=self._weight(ref), figures=self._figures())
        super().done(ref, result)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
