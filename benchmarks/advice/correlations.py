"""How the gap of the scores and the disagreement of two networks go with what their weights and sizes tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from benchmarks.spectral_specs import SPECTRAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from benchmarks.advice.scored import Scored

__all__ = ["TARGETS", "Correlation", "correlations", "rank_correlation"]

TARGETS = ("gap of top1", "disagreement")
RESAMPLES = 200
LEAST = 20
"""Fewest pairs of a correlation."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of evidence with a target over the pairs of one data set, and its 95 % interval.

    ``within``: whether the pairs are those of one family. NaN where fewer than 20 pairs have the evidence, or where all
    have the same. The interval is a percentile bootstrap in which whole families are drawn with replacement.
    """

    task: str
    evidence: str
    target: str
    within: bool
    pairs: int
    value: float
    low: float
    high: float


def correlations(galleries: Sequence[Scored]) -> list[Correlation]:
    """By data set, evidence and target, for all pairs and for those of one family."""
    return [found for networks in galleries for found in _of_task(networks)]


def _evidence(networks: Scored) -> dict[str, NDArray[np.float64]]:
    """(n, n) matrices by name, larger where networks are less alike; NaN where it is unknown."""
    sizes = np.log(networks.parameters)
    found = {f"distance, `{spec}`": networks.distances[spec] for spec in SPECTRAL}
    found["ratio of parameters"] = np.abs(sizes[:, None] - sizes[None])
    found["weights, 1 - r"] = 1.0 - networks.correlation
    found["other training class"] = (networks.classes[:, None] != networks.classes[None]).astype(np.float64)
    return found


def _of_task(networks: Scored) -> Iterator[Correlation]:
    same = networks.families[:, None] == networks.families[None]
    gaps = np.abs(networks.top1[:, None] - networks.top1[None])
    everything, draws = np.arange(len(networks.names)), list(_draws(networks.families))
    for name, values in _evidence(networks).items():
        for target, aimed in zip(TARGETS, (gaps, networks.disagreement), strict=True):
            for within in (False, True):
                usable = np.isfinite(values) & (same | (not within))
                correlation = _over(values, aimed, usable)
                value = correlation(everything)
                low = high = np.nan
                if np.isfinite(value):
                    drawn = [correlation(rows) for rows in draws]
                    low, high = (float(end) for end in np.nanquantile(drawn, [0.025, 0.975]))
                pairs = int(np.triu(usable, 1).sum())
                yield Correlation(networks.task, name, target, within, pairs, value, low, high)


def _over(
    values: NDArray[np.float64], aimed: NDArray[np.float64], usable: NDArray[np.bool_]
) -> Callable[[NDArray[np.int64]], float]:
    """The rank correlation of two (n, n) matrices over the usable pairs of given positions, copies of one left out."""

    def of(rows: NDArray[np.int64]) -> float:
        first, second = np.triu_indices(len(rows), 1)
        a, b = rows[first], rows[second]
        kept = (a != b) & usable[a, b]
        return rank_correlation(values[a[kept], b[kept]], aimed[a[kept], b[kept]])

    return of


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's correlation of (n,) numbers; NaN from fewer than 20, or where all of one side are equal."""
    if len(a) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _draws(families: NDArray[np.str_]) -> Iterator[NDArray[np.int64]]:
    """Positions of the networks of families that are drawn with replacement."""
    random = np.random.default_rng(0)
    names = np.unique(families)
    members = [np.flatnonzero(families == name) for name in names]
    for _ in range(RESAMPLES):
        yield np.concatenate([members[at] for at in random.integers(len(names), size=len(names))])
