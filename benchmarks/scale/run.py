"""The whole scale benchmark: registries of three sizes in SQLite and Postgres, and the table of results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scale.filling import fill, real_models
from benchmarks.scale.server import postgres
from benchmarks.speed import harness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scale.filling import Real

__all__ = ["SIZES", "main", "measure", "table"]

SIZES = (1_000, 10_000, 100_000)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "scale"


@dataclass(frozen=True, slots=True)
class Row:
    """A table row: key of its figure, unit, and the aim at the largest size."""

    title: str
    where: tuple[str, str]
    aim: str = ""
    unit: float = 1e3
    digits: int = 3
    quantiles: bool = True


ROWS = (
    Row("SQLite, L2, warm, ms", ("sqlite", "l2"), "20"),
    Row("SQLite, L1, warm, ms", ("sqlite", "l1"), "60"),
    Row("SQLite, L1, `equivalent`, warm, ms", ("sqlite", "equivalent")),
    Row("SQLite, L1, one in a hundred by a tag, warm, ms", ("sqlite", "filtered")),
    Row("SQLite, first in a process, ms", ("sqlite", "first"), quantiles=False),
    Row("SQLite, `archreg nearest`, a new process, s", ("sqlite", "cold"), "1.5", 1.0),
    Row("memory of that process, at the end, MB", ("sqlite", "memory"), "400", 1e-6),
    Row("memory of that process, at most, MB", ("sqlite", "peak"), "400", 1e-6),
    Row("Postgres, exact, L1, warm, ms", ("postgres", "l1"), "200"),
    Row("Postgres, exact, first in a process, ms", ("postgres", "first"), quantiles=False),
    Row("Postgres, index, L1, ms", ("indexed", "l1"), "3"),
    Row("Postgres, index, L2, ms", ("indexed", "l2"), "3"),
    Row("recall@10 of the index, L1", ("indexed", "recall l1"), "0.97 at least", 1.0),
    Row("recall@10 of the index, L2", ("indexed", "recall l2"), "0.97 at least", 1.0),
    Row("Postgres, index, L1, `equivalent`, ms", ("indexed", "equivalent")),
    Row("Postgres, one in a hundred by a tag, ms", ("indexed", "filtered"), "30"),
    Row("... answers, at least, of 10", ("indexed", "answers"), "10", 1.0),
    Row("`index build`, L1, s", ("indexed", "build l1"), "60", 1.0, quantiles=False),
    Row("`index build`, L2, s", ("indexed", "build l2"), "60", 1.0, quantiles=False),
    *(
        Row(f"{title}, `archreg classes`, a new process{when}, s", (where, kind), aim, 1.0, quantiles=False)
        for title, where in (("SQLite", "sqlite"), ("Postgres", "postgres"))
        for when, kind, aim in ((", made and kept", "classes", "120"), (", read back", "classes again", ""))
    ),
    Row("an ingested model is found at once", ("indexed", "added"), "yes", 1.0),
)


def main(sizes: Sequence[int] = SIZES, *, write: bool = False) -> None:
    """Measure and print the table as Markdown; ``write`` also puts it into docs/benchmarks.md, between its markers."""
    begun = time.perf_counter()
    note = harness.load_note(harness.machine_load(), os.cpu_count() or 1)
    print(note, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        real = real_models("published:")
        found = {size: measure(real, size, Path(folder)) for size in sizes}
    parts = [note, table(found), f"Measured in {time.perf_counter() - begun:.0f} s."]
    print("\n\n".join(parts))
    if write:
        harness.rewrite(PAGE, MARKER, parts)


def measure(real: Real, size: int, folder: Path) -> dict[str, dict[str, Any]]:
    """All figures of one size, by database and question."""
    path = folder / f"{size}.db"
    fill(str(path), real, size)
    found = {"sqlite": {**_apart(str(path), "exact"), "cold": _cold(path, size), **_classes(str(path))}}
    print(f"{size}: SQLite done", file=sys.stderr)
    try:
        with postgres() as pattern:
            url = pattern.format("postgres")
            fill(url, real, size)
            found["postgres"] = {**_apart(url, "exact"), **_classes(url)}
            found["indexed"] = _apart(url, "indexed")
    except ImportError as error:
        print(f"without Postgres: {error}", file=sys.stderr)
    print(f"{size}: done", file=sys.stderr)
    return found


def _apart(url: str, kind: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.scale.lookups", url, kind]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _cold(path: Path, size: int, rounds: int = 5) -> list[float]:
    return [_command("nearest", f"m{number * size // rounds}", "--db", str(path)) for number in range(rounds)]


def _classes(url: str) -> dict[str, list[float]]:
    """Seconds of the command that forms all classes by the default rule, and of the same command again."""
    return {kind: [_command("classes", "--db", url)] for kind in ("classes", "classes again")}


def _command(*words: str) -> float:
    begun = time.perf_counter()
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-m", "registry.cli.app", *words], check=True, **output)
    return time.perf_counter() - begun


def table(found: dict[int, dict[str, dict[str, Any]]]) -> str:
    """The figures as Markdown, one column per size: medians, followed by the 95th percentile."""
    lines = [
        "| | " + " | ".join(f"{size:,}" for size in found) + " | aim |",
        "| --- |" + " --- |" * (len(found) + 1),
    ]
    for row in ROWS:
        cells = [_cell(row, found[size].get(row.where[0], {}).get(row.where[1])) for size in found]
        lines.append(f"| {row.title} | {' | '.join(cells)} | {row.aim} |")
    return "\n".join(lines)


def _cell(row: Row, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, list):
        return f"{value * row.unit:.{row.digits}g}"
    low, high = np.quantile(np.array(value) * row.unit, [0.5, 0.95])
    return f"{low:.{row.digits}g} ({high:.{row.digits}g})" if row.quantiles else f"{low:.{row.digits}g}"
