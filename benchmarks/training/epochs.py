"""Checkpoints of one published training run: distance as a function of the epochs between them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from benchmarks.spectral_specs import SPECTRAL
from registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Epochs", "epochs_apart", "mantel"]

_FILE = re.compile(r"fer2013_mini_XCEPTION\.(\d+)-")
_RESAMPLES = 999


@dataclass(frozen=True, slots=True)
class Epochs:
    """Rank correlation of distance with the number of epochs between checkpoints, and its p-value."""

    fingerprint: str
    models: int
    correlation: float
    chance: float


def mantel(
    positions: NDArray[np.float64], distances: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """Spearman's correlation of |difference of positions| with distances, over pairs, and its one-sided p-value.

    Mantel's test (1967): pairs of one model are dependent, so the positions of whole models are permuted.
    ``positions``: (n,). ``distances``: (n, n).
    """
    upper = np.triu_indices(len(positions), 1)
    ranks = rankdata(distances[upper])

    def correlation(placed: NDArray[np.float64]) -> float:
        apart = np.abs(np.subtract.outer(placed, placed))[upper]
        return float(np.corrcoef(rankdata(apart), ranks)[0, 1])

    measured = correlation(positions)
    as_high = sum(correlation(rng.permutation(positions)) >= measured - 1e-12 for _ in range(_RESAMPLES))
    return measured, (as_high + 1) / (_RESAMPLES + 1)


def epochs_apart(zoo: Path) -> list[Epochs]:
    """The correlation for each fingerprint with L1, over the zoo's checkpoints of mini-xception on FER-2013."""
    files = sorted(path for path in (zoo / "mini-xception").iterdir() if _FILE.match(path.name))
    found = []
    with tempfile.TemporaryDirectory() as folder, Registry(f"sqlite:///{folder}/epochs.db") as reg:
        for path in files:
            reg.ingest(path, name=path.stem, keep_spectra=False)
        for spec in SPECTRAL:
            names, distances = reg.distances(fingerprint=spec, distance="l1")
            epochs = np.array([float(match[1]) for name in names if (match := _FILE.match(name))])
            found.append(Epochs(spec, len(names), *mantel(epochs, distances, np.random.default_rng(0))))
    return found
