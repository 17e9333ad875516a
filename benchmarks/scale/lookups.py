"""Timed searches in one registry, in a separate process, so that its memory is its own.

``python -m benchmarks.scale.lookups URL KIND`` prints a JSON object: seconds by question, and memory in bytes.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scale.filling import TAG
from registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["exact", "indexed", "main"]

ROUNDS = 60
K = 10


def _timed(ask: Callable[[str], object], names: list[str]) -> list[float]:
    ask(names[0])
    seconds = []
    for name in names:
        begun = time.perf_counter()
        ask(name)
        seconds.append(time.perf_counter() - begun)
    return seconds


def _memory(field: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def _names(registry: Registry, seed: int) -> list[str]:
    count = registry.stats().models
    return [f"m{number}" for number in np.random.default_rng(seed).integers(count, size=ROUNDS)]


def exact(url: str) -> dict[str, Any]:
    """First and warm searches without an index; memory after those with L1 and L2, and peak memory."""
    found: dict[str, Any] = {}
    with Registry(url) as registry:
        names = _names(registry, 1)
        begun = time.perf_counter()
        registry.nearest(names[0], K, exact=True)
        found["first"] = [time.perf_counter() - begun]
        for distance in ("l2", "l1"):
            found[distance] = _timed(partial(registry.nearest, k=K, distance=distance, exact=True), names)
        found["equivalent"] = _timed(partial(registry.nearest, k=K, equivalent=True, exact=True), names)
        found["filtered"] = _timed(partial(registry.nearest, k=K, tags=(TAG,), exact=True), names)
        found["memory"], found["peak"] = _memory("VmRSS"), _memory("VmHWM")
    return found


def indexed(url: str) -> dict[str, Any]:
    """Building of the index, its recall, searches with it, and time until a new model is found."""
    found: dict[str, Any] = {}
    with Registry(url) as registry:
        for distance in ("l1", "l2"):
            begun = time.perf_counter()
            registry.index.build(distance=distance)
            found[f"build {distance}"] = [time.perf_counter() - begun]
    with Registry(url) as registry:
        names = _names(registry, 2)
        for distance in ("l1", "l2"):
            found[distance] = _timed(partial(registry.nearest, k=K, distance=distance), names)
            checked = registry.index.check(distance=distance, k=K, queries=ROUNDS)
            found[f"recall {distance}"] = checked.recall if checked else None
    with Registry(url) as registry:
        found["equivalent"] = _timed(partial(registry.nearest, k=K, equivalent=True), names)
        found["filtered"] = _timed(partial(registry.nearest, k=K, tags=(TAG,)), names)
        answers = [len(registry.nearest(name, K, tags=(TAG,))) for name in names]
        found["answers"] = min(answers)
        found["indexed"] = registry.search(names[0], K).indexed
        found["memory"] = _memory("VmRSS")
        found["added"] = _added(registry)
    return found


def _added(registry: Registry) -> bool:
    """Whether the index finds a model directly after it is stored, and not after it is removed."""
    rng = np.random.default_rng(3)
    given = {f"fc{i}.weight": rng.standard_normal((20, 30)).astype(np.float32) for i in range(3)}
    # From an archive, through the whole of an ingest.
    import tempfile

    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number in range(2):
            # Weights multiplied by two have the same spectra, so no other model is nearer.
            weights = {name: (number + 1) * matrix for name, matrix in given.items()}
            path = Path(folder) / f"new{number}.safetensors"
            save_file(weights, path)
            names.append(registry.ingest(path).name)
        found = registry.search(names[0], 1)
        hit = found.indexed and found.neighbours[0].model.name == names[1]
        registry.remove(names[1])
        found = registry.search(names[0], 1)
        gone = found.indexed and found.neighbours[0].model.name != names[1]
        registry.remove(names[0])
    return hit and gone


def main(url: str, kind: str) -> None:
    """Print the measurements of a kind, ``exact`` or ``indexed``, as JSON."""
    print(json.dumps({"exact": exact, "indexed": indexed}[kind](url)))


if __name__ == "__main__":
    main(*sys.argv[1:])
