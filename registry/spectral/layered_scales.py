"""What each property of a layer, and each block, counts for in ``layered``: all its numbers that were not derived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["COLUMNS", "SCALES", "WEIGHTS", "scales_of"]


def _of_runs(length: int) -> tuple[str, ...]:
    each = ("kernel", "dimensions", "depthwise", "kind", "kind", "kind")
    steps = ("step", "entry")
    return (
        "width",
        *["ratio"] * length,
        *[name for name in steps for _ in range(length - 1)],
        *[name for name in each for _ in range(length)],
        "depth",
    )


COLUMNS: dict[str, tuple[str, ...]] = {
    "shapes": ("depth", "p", "q", "kernel", "channels", "dimensions", "depthwise", "kind", "kind", "kind"),
    "pairs": _of_runs(2),
    "triples": _of_runs(3),
    "spectra": ("depth", *["x"] * 14),
}
"""Which property each column of a block's points holds (``descriptors``). Of runs: ``width`` is the sum of all log2 p
and log2 c, ``ratio`` log2 p/c of each layer, ``step`` log2 p'/p and ``entry`` log2 c'/p from one layer to the next."""

SCALES: dict[str, dict[str, float]] = {
    "shapes": {
        "depth": 6.0,
        "p": 0.12,
        "q": 0.25,
        "kernel": 0.7,
        "channels": 0.3,
        "dimensions": 0.8,
        "depthwise": 1.5,
        "kind": 1.5,
    },
    "pairs": {
        "width": 0.035,
        "ratio": 0.2,
        "step": 0.3,
        "entry": 0.3,
        "kernel": 0.8,
        "dimensions": 3.0,
        "depthwise": 2.5,
        "kind": 1.5,
        "depth": 0.6,
    },
    # The longer the run, the more columns of one property lie between two of them.
    "triples": {
        "width": 0.07 / 3,
        "ratio": 0.2,
        "step": 0.3,
        "entry": 0.3,
        "kernel": 0.6,
        "dimensions": 2.25,
        "depthwise": 1.875,
        "kind": 1.125,
        "depth": 0.6,
    },
    "spectra": {"depth": 4.0, "x": 0.6},
}
"""What a unit of each property counts for, the Gaussian kernel having unit width."""

WEIGHTS: dict[str, float] = {
    "shapes": 0.75,
    "pairs": 1.0,
    "triples": 0.4,
    "spectra": 0.56,
    "depths": 0.7,
    "layers": 0.035,
}
"""What a block's mean absolute difference counts for in the L1 distance, and its order in the vector."""


def scales_of(block: str, scales: Mapping[str, Mapping[str, float]] = SCALES) -> NDArray[np.float64]:
    """The factor of each column of a block's points, (columns,)."""
    return np.array([scales[block][name] for name in COLUMNS[block]])
