"""The whole speed benchmark: what is measured, and how often."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed import harness, networks, others

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.speed.harness import Comparison

__all__ = ["main"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "speed"

# vgg16 on two cores only, because its two rounds on one would take as long as all the rest.
BENCHMARKS: tuple[Callable[[], list[Comparison]], ...] = (
    lambda: networks.compare("densenet121", rounds=9),
    lambda: networks.compare("resnet50", rounds=7),
    lambda: networks.compare("vit_b_16", rounds=3),
    lambda: networks.compare("vgg16", rounds=2, threads=(2,)),
    lambda: others.against_weightwatcher(rounds=7),
    lambda: others.against_bristol(rounds=2),
    lambda: others.circular_counts(rounds=3),
)


def main(*, write: bool = False) -> None:
    """Measure everything and print it as Markdown, row by row.

    Parameters
    ----------
    write
        Also put the tables into docs/benchmarks.md, between its ``speed`` markers.
    """
    begun = time.perf_counter()
    note = harness.load_note(harness.machine_load(), os.cpu_count() or 1)
    print(note, end="\n\n")
    rows: list[Comparison] = []
    absent = []
    print(harness.markdown(rows))
    for benchmark in BENCHMARKS:
        try:
            found = benchmark()
        except ImportError as error:
            absent.append(f"Not measured: {error}.")
            continue
        rows += found
        for each in found:
            print(each.row(), flush=True)
    parts = [note, harness.markdown(rows), *absent]
    try:
        parts.append(others.correctness())
    except ImportError as error:
        parts.append(f"Not compared: {error}.")
    parts.append(f"Measured in {time.perf_counter() - begun:.0f} s.")
    print("\n" + "\n\n".join(parts[2:]))
    if write:
        harness.rewrite(PAGE, MARKER, parts)
