"""``python -m benchmarks.memory``: resident memory of ``archreg ingest`` on made checkpoints of 4 GB, format by format.

The files are sparse where the format allows it: each layer is 4 MB of numbers before zeros, which read as any others do.
What is counted is what the kernel calls resident, sampled over the command and its children, and its own high-water mark
of the command: anonymous memory and pages of mapped files, both. The page cache of what is read, not mapped, is nobody's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["main"]

_ROWS, _COLUMNS = 512, 32768  # 64 MiB of float32 a layer
_DENSE = 2048  # columns that are not zero
_LAYER = _ROWS * _COLUMNS * 4
_LIMIT = 1.2e9


def _layers(count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and the dense part of each layer, (rows, dense): no two alike, so that none counts as tied."""
    base = np.random.default_rng(0).standard_normal((_ROWS, _DENSE)).astype(np.float32)
    for index in range(count):
        yield f"layers.{index}.weight", base * np.float32(1 + index / count) + np.float32(index / count)


def _fill(path: Path, start: int, count: int) -> None:
    """Append layers of column-major zeros but for the first rows' numbers; sparse on most file systems."""
    with path.open("r+b" if path.exists() else "wb") as file:
        for index, (_, dense) in enumerate(_layers(count)):
            file.seek(start + index * _LAYER)
            file.write(dense.tobytes())
        file.truncate(start + count * _LAYER)


def _safetensors(path: Path, count: int, first: int = 0) -> Path:
    entries: dict[str, Any] = {
        f"layers.{first + i}.weight": {
            "dtype": "F32", "shape": [_ROWS, _COLUMNS], "data_offsets": [i * _LAYER, (i + 1) * _LAYER],
        }
        for i in range(count)
    }  # fmt: skip
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    _fill(path, 8 + len(header), count)
    return path
