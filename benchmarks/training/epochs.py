"""Checkpoints of one published training run: distance as a function of the epochs between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from benchmarks.spectral_specs import SPECTRAL
from registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Epochs", "epochs_apart", "mantel"]

_NAME = re.compile(r"mini-xception/fer2013_mini_XCEPTION\.(\d+)-.*")
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


def epochs_apart() -> list[Epochs]:
    """The correlation for each fingerprint with L1, over the published checkpoints of mini-xception on FER-2013."""
    found = []
    with Registry("published:") as reg:
        for spec in SPECTRAL:
            names, distances = reg.distances(fingerprint=spec, distance="l1", family="mini-xception")
            epochs = {place: float(match[1]) for place, name in enumerate(names) if (match := _NAME.fullmatch(name))}
            chosen = np.ix_(list(epochs), list(epochs))
            apart = mantel(np.array(list(epochs.values())), distances[chosen], np.random.default_rng(0))
            found.append(Epochs(spec, len(epochs), *apart))
    return found
