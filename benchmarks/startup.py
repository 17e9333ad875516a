"""``python -m benchmarks.startup``: whole commands in new processes with a warm page cache; medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from registry import Registry

__all__ = ["main"]

_REPEATS = 7


def main() -> None:
    """Time ``archreg --help`` and searches in a registry of the published models."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"{folder}/zoo.db"
        with Registry(database) as reg:
            reg.import_from("published:")
        name = "resnet-cifar/akamaster-resnet56"
        for command in (["--help"], ["nearest", name], ["compress", name], ["show", name], ["list"], ["classes"]):
            target = [] if command == ["--help"] else ["--db", database]
            print(f"archreg {' '.join(command):45s} {_median([*command, *target]):.2f} s")


def _median(arguments: list[str]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "registry.cli.app", *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
