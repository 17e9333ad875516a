"""``python -m benchmarks.startup``: whole commands in new processes with a warm page cache; medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from registry import Registry

__all__ = ["main"]

_REPEATS = 7


def main() -> None:
    """Time ``archreg --help``, searches in a registry of the published models, and ``identify`` of a resnet50."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"{folder}/zoo.db"
        with Registry(database) as reg:
            reg.import_from("published:")
        name = "resnet-cifar/akamaster-resnet56"
        for command in (["--help"], ["nearest", name], ["compress", name], ["show", name], ["list"], ["classes"]):
            target = [] if command == ["--help"] else ["--db", database]
            print(f"archreg {' '.join(command):45s} {_median([*command, *target]):.2f} s")
        for path in _initialised(Path(folder)):
            print(f"archreg identify {path.name:36s} {_median(['identify', str(path)]):.2f} s")


def _initialised(folder: Path) -> tuple[Path, Path]:
    """Files of torchvision's resnet50 at its start, 100 MB each."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    state = torchvision.models.resnet50().state_dict()
    torch.save(state, folder / "resnet50.pth")
    save_file(state, folder / "resnet50.safetensors")
    return folder / "resnet50.pth", folder / "resnet50.safetensors"


def _median(arguments: list[str]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "registry.cli.app", *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
