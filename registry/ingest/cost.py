"""What ingesting a model is expected to cost, by its bytes, the one thing known before it is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ModelRef

__all__ = ["BYTES_PER_SECOND", "SECONDS_PER_MODEL", "cores", "memory_of", "seconds_of", "total_seconds"]

# Measured on one core: resnet18 and resnet50 for the bytes, 163 models of under 1 MB for the rest of a model.
BYTES_PER_SECOND: Final = 40e6
SECONDS_PER_MODEL: Final = 0.05
# A process that has loaded NumPy, SciPy and, for the formats that need it, torch.
WORKER_BYTES: Final = 300_000_000


def seconds_of(refs: Sequence[ModelRef]) -> list[float]:
    """Seconds that each model is expected to take on one core, downloads not counted.

    A model of unknown size counts as much as the mean of the others.
    """
    known = [ref.bytes for ref in refs if ref.bytes is not None]
    typical = sum(known) / len(known) if known else 0.0
    return [SECONDS_PER_MODEL + (typical if ref.bytes is None else ref.bytes) / BYTES_PER_SECOND for ref in refs]


def total_seconds(refs: Sequence[ModelRef]) -> float:
    """Seconds that all of them are expected to take on one core."""
    return sum(seconds_of(refs))


def memory_of(ref: ModelRef) -> int:
    """Bytes that measuring a model may need, 0 where that is not known: its own twice, in double precision, and more.

    An upper bound: of most formats a layer is read at a time.
    """
    return 0 if ref.bytes is None else WORKER_BYTES + 2 * ref.bytes


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
