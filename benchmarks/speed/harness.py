"""Interleaved timings, their ratios, and tables. Needs only NumPy and threadpoolctl."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "Comparison",
    "Task",
    "Timing",
    "between_markers",
    "high_water",
    "interleaved",
    "load_note",
    "machine_load",
    "markdown",
    "quicker",
    "rewrite",
]

# Above this load per core, other processes affect wall-clock figures.
QUIET = 0.5
# OpenBLAS threads spin for hundredths of a second after a call, on a core that the next task may need.
PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """A function to time, and the number of BLAS threads it may use."""

    run: Callable[[], object]
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per round: wall-clock, and processor time over all threads of this process."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two timings of the same rounds, compared as one ratio with an aim.

    The ratio is ``upper`` over ``lower``, times ``scale`` if the two do different amounts of work. The aim is an upper
    bound if ``at_most``, else a lower bound.
    """

    title: str
    upper: Timing
    lower: Timing
    aim: float
    at_most: bool = False
    scale: float = 1.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """Wall-clock ratio of each round; a slowdown of a whole round cancels."""
        return tuple(self.scale * u / w for u, w in zip(self.upper.wall, self.lower.wall, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the ratios of the rounds."""
        return statistics.median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """Median of the ratios of processor time, which the load of other programs hardly affects."""
        return statistics.median(
            self.scale * u / w for u, w in zip(self.upper.cpu, self.lower.cpu, strict=True) if w > 0
        )

    @property
    def met(self) -> bool:
        """Whether the ratio meets the aim."""
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim

    def row(self) -> str:
        """Table row of the comparison."""
        low, high = _number(min(self.ratios)), _number(max(self.ratios))
        upper, lower = (f"{statistics.median(t.wall):.3g}" for t in (self.upper, self.lower))
        aim = f"{'≤' if self.at_most else '≥'} {self.aim:,g}"
        return (
            f"| {self.title} | {upper} | {lower} | **{_number(self.ratio)}** | {low}-{high} | {len(self.ratios)} "
            f"| {_number(self.cpu_ratio)} | {aim} | {'met' if self.met else 'missed'} |"
        )


def _number(ratio: float) -> str:
    return f"{ratio:,.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def interleaved(tasks: Mapping[str, Task], rounds: int) -> dict[str, Timing]:
    """Time the tasks in turns, every other round in reverse order, so that drift favours none.

    Parameters
    ----------
    tasks
        Tasks by name.
    rounds
        Number of rounds, at least 1.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name in list(tasks)[:: -1 if number % 2 else 1]:
            time.sleep(PAUSE)
            with threadpool_limits(limits=tasks[name].threads):
                wall, cpu = time.perf_counter(), time.process_time()
                tasks[name].run()
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Timing(tuple(w for w, _ in each), tuple(c for _, c in each)) for name, each in seconds.items()}


def quicker(run: Callable[[], object], threads: tuple[int, ...] = (1, 2)) -> int:
    """The number of BLAS threads with the fastest single trial, so that other packages are measured at their best."""
    trials = interleaved({str(count): Task(run, count) for count in threads}, rounds=1)
    return min(threads, key=lambda count: trials[str(count)].wall[0])


def load_note(load: float, cores: int) -> str:
    """The machine's load before the run in words, with a warning if it affects wall-clock figures."""
    note = f"Load before the run: {load:.2f} on {cores} cores."
    if load > QUIET * cores:
        note += " **The machine was busy: wall-clock ratios are not reliable, ratios of processor time may be.**"
    return note


def machine_load() -> float:
    """Mean number of runnable processes in the last minute."""
    return os.getloadavg()[0]


def high_water() -> int:
    """Peak resident bytes of this process since its start; needs Linux.

    `resource.getrusage` is not used, because it starts with the value of the parent process.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def markdown(comparisons: Iterable[Comparison]) -> str:
    """Table of the comparisons."""
    head = (
        "| A over B | A, s | B, s | ratio | range | rounds | by processor time | aim | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    )
    return "\n".join([*head, *(each.row() for each in comparisons)])


def between_markers(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the comments ``<!-- name -->`` and ``<!-- /name -->``.

    Raises ``ValueError`` if they are missing.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(opening)
    _, also, after = rest.partition(closing)
    if not (found and also):
        raise ValueError(f"the page lacks {opening} and {closing}")
    return f"{before}{opening}\n\n{text.strip()}\n\n{closing}{after}"


def rewrite(path: Path, name: str, parts: Sequence[str]) -> None:
    """Put the parts, separated by blank lines, between the markers of a file."""
    page = path.read_text(encoding="utf-8")
    path.write_text(between_markers(page, name, "\n\n".join(parts)), encoding="utf-8")
