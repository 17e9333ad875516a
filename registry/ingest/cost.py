"""Expected time and memory of an ingest, besides spectra, and in total for models of which only the size is known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelRef

__all__ = [
    "READ_PER_SECOND",
    "SECONDS_PER_MODEL",
    "WORKER_BYTES",
    "cores",
    "kin_of",
    "limit_of",
    "memory_by_size",
    "seconds_by_size",
]

# Measured on one core: six torchvision networks take 61 to 120 MB per second in all, reading and hashing 700 to 970 MB
# per second; the fixed cost of a model comes from 163 models of under 1 MB.
BYTES_PER_SECOND: Final = 80e6
READ_PER_SECOND: Final = 800e6
SECONDS_PER_MODEL: Final = 0.02
WORKER_BYTES: Final = 120_000_000
"""Memory in bytes of a process that has loaded NumPy and SciPy."""
TORCH_BYTES: Final = 650_000_000  # the same with torch, including pages of its libraries
# Default time limit: it must end processes that hang, but not slow ones.
LEAST_LIMIT: Final = 600.0  # seconds
TIMES_EXPECTED: Final = 200  # a file with one large square matrix takes far longer than its size suggests
SLOWEST_DOWNLOAD: Final = 100e3  # bytes per second


def seconds_by_size(refs: Sequence[ModelRef]) -> list[float]:
    """Expected seconds for each model on one core, without downloads, from its size.

    A model of unknown size counts as the mean of the others.
    """
    known = [ref.bytes for ref in refs if ref.bytes is not None]
    typical = sum(known) / len(known) if known else 0.0
    return [SECONDS_PER_MODEL + (typical if ref.bytes is None else ref.bytes) / BYTES_PER_SECOND for ref in refs]


def limit_of(ref: ModelRef, expected: float) -> float:
    """Default time limit in seconds for a model with this expected time.

    Ten minutes plus 200 times the expected time; a download adds an hour and its time at 100 kB/s.
    """
    limit = LEAST_LIMIT + TIMES_EXPECTED * expected
    return limit if ref.cached else limit + 3600.0 + (ref.bytes or 0) / SLOWEST_DOWNLOAD


def kin_of(ref: ModelRef) -> str:
    """A key that models of probably the same shapes share: their folder or their architecture."""
    return ref.target.rpartition("/")[0] or ref.target.partition(".")[0]


def memory_by_size(ref: ModelRef, *, torch: bool) -> int:
    """Expected bytes of memory to measure a model, 0 if its size is unknown; ``torch``: including torch.

    The layers are not known: twice the file's size is taken as an estimate.
    """
    if ref.bytes is None:
        return 0
    return (TORCH_BYTES if torch else WORKER_BYTES) + 2 * ref.bytes


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
