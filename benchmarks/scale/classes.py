"""``python -m benchmarks.scale.classes [--write]``: cost of equivalence classes by size of registry and linkage rule.

Vectors are made of the zoo's: a random one, moved towards another, plus noise of random size. Every row is measured in
a new process, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.speed.harness import load_note, machine_load, rewrite
from registry.equivalence import DISTANCES, RULES, shipped, sorted_into_groups
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.models.vectors import read_fingerprints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "classes"

CASES = (
    *(("complete", count) for count in (1_000, 3_000, 10_000)),
    *(("single", count) for count in (1_000, 10_000, 100_000)),
    *(("cover", count) for count in (1_000, 10_000, 100_000)),
)
AIMS = {("complete", 10_000): {"seconds": 60.0, "gigabytes": 2.0}, ("cover", 100_000): {"seconds": 120.0}}
UNITS = {"seconds": "s", "gigabytes": "GB"}


def perturbed(real: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Vectors (count, d) made of real ones (m, d), with noise of 0.02 to 0.6 in L1.

    The noise of a coordinate is proportional to its spread.
    """
    rng = np.random.default_rng(0)
    source, other = rng.integers(len(real), size=(2, count))
    size, way = np.exp(rng.uniform(np.log(0.02), np.log(0.6), count)), rng.beta(1.0, 8.0, (count, 1))
    noise = rng.standard_normal((count, real.shape[1])) * np.abs(real - real.mean(axis=0)).mean(axis=0)
    noise *= (size / np.abs(noise).sum(axis=1))[:, None]
    made: NDArray[np.float32] = (real[source] + way * (real[other] - real[source]) + noise).astype(np.float32)
    return made


def measure(vectors: Path, rule: str, count: int) -> dict[str, Any]:
    """Group vectors of one kind at the shipped tolerance; returns seconds, memory and the result."""
    made = perturbed(np.load(vectors), count)
    distance, tolerance = DISTANCES["l1"], shipped(LAYERED, "l1").tolerance
    begun, worked = time.perf_counter(), time.process_time()
    groups = sorted_into_groups(made, [()] * count, distance, tolerance, RULES[rule])
    return {
        "rule": rule,
        "models": count,
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - worked,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "classes": len(groups),
        "largest": len(groups[0].members),
        "within": all(group.diameter <= tolerance for group in groups),
    }


def row(found: dict[str, Any]) -> str:
    """Table row of one measurement."""
    aims = AIMS.get((found["rule"], found["models"]), {})
    met = all(found[what] <= most for what, most in aims.items())
    words = ", ".join(f"{most:g} {UNITS[what]}" for what, most in aims.items())
    return (
        f"| `{found['rule']}` | {found['models']:,} | {found['seconds']:.3g} | {found['cpu']:.3g} "
        f"| {found['gigabytes']:.2f} | {found['classes']:,} | {found['largest']:,} "
        f"| {words} | {('met' if met else 'missed') if aims else ''} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each rule at three sizes and print the table row by row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.classes", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--one", nargs=3, metavar=("VECTORS", "RULE", "MODELS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        vectors, rule, count = options.one
        print(json.dumps(measure(Path(vectors), rule, int(count))))
        return
    note = load_note(machine_load(), os.cpu_count() or 1)
    lines = [
        "| rule | models | s | s of CPU | GB, peak | classes | largest | aim | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print(note, *lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        vectors = _zoo_vectors(Path(folder))
        for rule, count in CASES:
            command = [sys.executable, "-m", "benchmarks.scale.classes", "--one", str(vectors), rule, str(count)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert found["within"] or not RULES[rule].keeps_within
            lines.append(row(found))
            print(lines[-1], flush=True)
    if options.write:
        rewrite(PAGE, MARKER, [note, "\n".join(lines)])


def _zoo_vectors(folder: Path) -> Path:
    with Store.open("published:", mode="read") as store:
        np.save(folder / "zoo.npy", store.read(read_fingerprints, LAYERED.hash)[1])
    return folder / "zoo.npy"


if __name__ == "__main__":
    main()
