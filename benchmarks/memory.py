"""``python -m benchmarks.memory``: resident memory of ``archreg ingest`` on generated checkpoints of 4 GB, by format.

Printed beside the estimate of ``ingest --dry-run``. Resident memory is that of the command and its children together:
anonymous memory and pages of mapped files, sampled fifty times per second, beside the kernel's high-water mark of the
command alone. Page cache of files that are read, not mapped, does not count. Needs Linux and 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

ROWS, COLUMNS = 512, 32768  # 64 MiB of float32 a layer
LAYER = ROWS * COLUMNS * 4
WRITTEN = 2048  # non-zero numbers per row; the rest are holes in the file, which read as zeros
LIMIT = 1.2e9


class Peak(NamedTuple):
    """Peak resident bytes of all processes, the part of it in mapped files, and the command's own high-water mark."""

    sampled: int
    mapped: int
    own: int
    seconds: float


def _flat(path: Path, layers: int, start: int = 0) -> None:
    """Write the layers one after another from ``start`` on, sparse and all different, so that none counts as tied."""
    base = np.random.default_rng(0).standard_normal((ROWS, WRITTEN)).astype(np.float32)
    with path.open("r+b" if start else "wb") as file:
        for layer in range(layers):
            for row, numbers in enumerate(base + np.float32(layer / layers)):
                file.seek(start + layer * LAYER + row * COLUMNS * 4)
                file.write(numbers.tobytes())
        file.truncate(start + layers * LAYER)


def _safetensors(path: Path, layers: int, first: int = 0) -> Path:
    names = [f"layers.{first + layer}.weight" for layer in range(layers)]
    spans = [[i * LAYER, (i + 1) * LAYER] for i in range(layers)]
    entries = {
        n: {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": s} for n, s in zip(names, spans, strict=True)
    }
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    _flat(path, layers, 8 + len(header))
    return path


def _shards(path: Path, layers: int) -> Path:
    """Write four shards and their index. Layer i is the same in each shard except for its name."""
    path.mkdir()
    mapped: dict[str, str] = {}
    each = max(1, layers // 4)
    for number in range(4):
        file = f"model-{number + 1:05}-of-00004.safetensors"
        _safetensors(path / file, each, number * each)
        with (path / file).open("r+b") as shard:  # all layers differ between shards
            shard.seek(-each * LAYER, os.SEEK_END)
            for layer in range(each):
                shard.seek((layer - each) * LAYER, os.SEEK_END)
                shard.write(np.float32(number).tobytes())
        mapped |= {f"layers.{number * each + layer}.weight": file for layer in range(each)}
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": mapped}), encoding="utf-8")
    return index


def _arrays(path: Path, layers: int) -> dict[str, Any]:
    flat = path.with_suffix(".flat")
    _flat(flat, layers)
    weights = np.memmap(flat, np.float32, "r", shape=(layers, ROWS, COLUMNS))
    return {f"layers.{layer}.weight": weights[layer] for layer in range(layers)}


def _torch(path: Path, layers: int) -> Path:
    import torch

    flat = path.with_suffix(".flat")
    _flat(flat, layers)
    weights = torch.from_file(str(flat), shared=False, size=layers * ROWS * COLUMNS).reshape(layers, ROWS, COLUMNS)
    torch.save({f"layers.{layer}.weight": weights[layer].clone() for layer in range(layers)}, path)
    flat.unlink()
    return path


def _module(flat: Path, layers: int) -> Any:
    """A module of these layers, one behind the other's sum, whose weights are mapped from a file."""
    import torch
    from torch import nn

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(COLUMNS, ROWS, bias=False, device="meta") for _ in range(layers))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([layer(x) for layer in self.layers]).sum(0)

    _flat(flat, layers)
    weights = torch.from_file(str(flat), shared=False, size=layers * ROWS * COLUMNS).reshape(layers, ROWS, COLUMNS)
    module = Layers()
    for number, layer in enumerate(module.layers):
        layer.weight = nn.Parameter(weights[number], requires_grad=False)
    return module.eval()


def _torchscript(path: Path, layers: int) -> Path:
    import torch

    flat = path.with_suffix(".flat")
    torch.jit.trace(_module(flat, layers), torch.zeros(1, COLUMNS), check_trace=False).save(str(path))
    flat.unlink()
    return path


def _exported(path: Path, layers: int) -> Path:
    import torch

    flat = path.with_suffix(".flat")
    program = torch.export.export(_module(flat, layers), (torch.zeros(1, COLUMNS),))
    torch.export.save(program, path)
    flat.unlink()
    return path


def _nemo(path: Path, layers: int) -> Path:
    """A tar archive of a configuration and the weights, uncompressed."""
    weights = _torch(path.with_name("model_weights.ckpt"), layers)
    config = path.with_name("model_config.yaml")
    config.write_text("target: some.Model\n")
    with tarfile.open(path, "w") as archive:
        for each in (config, weights):
            archive.add(each, f"./{each.name}")
            each.unlink()
    return path


def _npz(path: Path, layers: int) -> Path:
    np.savez(path, **_arrays(path, layers))
    path.with_suffix(".flat").unlink()
    return path


FORMATS: dict[str, tuple[str, Callable[[Path, int], Path]]] = {
    "safetensors": ("x.safetensors", _safetensors),
    "shards": ("x", _shards),
    "pt": ("x.pt", _torch),
    "npz": ("x.npz", _npz),
    "torchscript": ("x.pt", _torchscript),
    "torch_export": ("x.pt2", _exported),
    "nemo": ("x.nemo", _nemo),
}


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    with suppress(OSError):  # the process has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _resident(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and the part of it in mapped files."""
    with suppress(OSError):
        _, resident, shared, *_ = (int(n) for n in Path(f"/proc/{pid}/statm").read_text().split())
        return resident * os.sysconf("SC_PAGE_SIZE"), shared * os.sysconf("SC_PAGE_SIZE")
    return 0, 0


def _mark(pid: int) -> int:
    """The kernel's high-water mark of a process, in bytes."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return max((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), default=0)
    return 0


def measure(command: list[str]) -> Peak:
    """Run a command and sample its memory; raises ``CalledProcessError`` if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, mark = (0, 0), 0
    while process.poll() is None:
        members = [_resident(pid) for pid in _family(process.pid)]
        peak = max(peak, (sum(m[0] for m in members), sum(m[1] for m in members)))
        mark = max(mark, _mark(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Peak(*peak, mark, time.perf_counter() - begun)


def main() -> None:
    """Generate each file, ingest it in a new process, and print peak memory and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS), help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--layers", type=int, default=64, help=f"each of {LAYER / 2**20:.0f} MiB")
    parser.add_argument("--folder", type=Path, help="folder for the files (default: the system's temporary folder)")
    given = parser.parse_args(None if sys.argv[0].endswith("memory.py") else [])
    gigabytes, layer = given.layers * LAYER / 1e9, LAYER / 1e6
    print(f"{gigabytes:.1f} GB in layers of {layer:.0f} MB; limit {LIMIT / 1e9:.1f} GB and a layer's working set")
    _tell("import torch", measure([sys.executable, "-c", "import torch, time; time.sleep(0.2)"]))
    for name in given.formats:
        file, make = FORMATS[name]
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            # In a separate process: until a child runs the command, the memory of its parent counts as resident.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                path = pool.apply(make, (Path(folder, file), given.layers))
            command = [sys.executable, "-m", "registry.cli.app", "ingest", str(path), "--db", f"{folder}/x.db"]
            said = subprocess.run([*command, "--dry-run", "--json"], check=True, stdout=subprocess.PIPE)
            _tell(name, measure([*command, "--quiet"]), json.loads(said.stdout)["estimated_memory"])


def _tell(name: str, peak: Peak, estimate: int = 0) -> None:
    figures = f"{peak.sampled / 1e9:.2f} GB, {peak.mapped / 1e9:.2f} of it mapped files"
    over = "" if peak.sampled < LIMIT else ", OVER THE LIMIT"
    expected = f"; estimated {estimate / 1e9:.2f} GB" if estimate else ""
    print(f"{name:12s} peak {figures}; own mark {peak.own / 1e9:.2f} GB; {peak.seconds:.0f} s{expected}{over}")


if __name__ == "__main__":
    main()
