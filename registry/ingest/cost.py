"""What ingesting models takes besides their spectra, and what all of it takes where nothing but a size is known."""

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

# Measured on one core: six of torchvision's networks at 61 to 120 MB a second, of which reading and hashing them is at
# 700 to 970; the rest of a model on 163 of under 1 MB.
BYTES_PER_SECOND: Final = 80e6
READ_PER_SECOND: Final = 800e6
SECONDS_PER_MODEL: Final = 0.02
WORKER_BYTES: Final = 120_000_000
"""A process that has loaded NumPy and SciPy."""
TORCH_BYTES: Final = 650_000_000  # with torch, pages of its libraries counted
# Of a limit that nobody has set: what hangs is to end some day, and nothing that is merely slow.
LEAST_LIMIT: Final = 600.0  # seconds
TIMES_EXPECTED: Final = 200  # by its size, a file that is one large square matrix takes far longer than is expected
SLOWEST_DOWNLOAD: Final = 100e3  # bytes a second


def seconds_by_size(refs: Sequence[ModelRef]) -> list[float]:
    """Seconds that each model is expected to take on one core, downloads not counted.

    A model of unknown size counts as much as the mean of the others.
    """
    known = [ref.bytes for ref in refs if ref.bytes is not None]
    typical = sum(known) / len(known) if known else 0.0
    return [SECONDS_PER_MODEL + (typical if ref.bytes is None else ref.bytes) / BYTES_PER_SECOND for ref in refs]


def limit_of(ref: ModelRef, expected: float) -> float:
    """Seconds after which a model that is expected to take so long is given up, where no limit is set.

    Ten minutes, 200 times what is expected, and for a download an hour and what it takes at 100 kB/s.
    """
    limit = LEAST_LIMIT + TIMES_EXPECTED * expected
    return limit if ref.cached else limit + 3600.0 + (ref.bytes or 0) / SLOWEST_DOWNLOAD


def kin_of(ref: ModelRef) -> str:
    """What models that are likely to be of the same shapes have in common: their folder, or their architecture."""
    return ref.target.rpartition("/")[0] or ref.target.partition(".")[0]


def memory_by_size(ref: ModelRef, *, torch: bool, largest: int | None = None, threads: int = 1) -> int:
    """Bytes that measuring a model is expected to need, 0 where its size is not known; ``torch``: and torch with it.

    A layer a thread in float64, whose Gram matrix and copy take four times its own if it is square, and the weights of
    one more: of tensors no larger than ``largest``; where that is not known, twice the file, a rule of thumb.
    """
    if ref.bytes is None:
        return 0
    working = 2 * ref.bytes if largest is None else (5 * threads + 1) * largest
    return (TORCH_BYTES if torch else WORKER_BYTES) + working


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
