"""Calibration: distances between unrelated models, and the tolerance for a rate of false passes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UsageError
from registry.types import Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import FingerprintSpec

__all__ = ["DEFAULT_RATE", "tolerance_for", "calibrate", "closer_than", "rate_at", "rate_bound", "shipped"]

DEFAULT_RATE = 0.01

# Fractions at which the distribution of unrelated distances is stored, dense in the lower tail, where tolerances lie.
_FRACTIONS = np.unique(np.concatenate([np.geomspace(1e-6, 1e-1, 101), np.linspace(0.0, 1.0, 101)]))

INTERVAL = (0.025, 0.975)
RESAMPLES = 500
"""Number of resamples for an interval; its ends are the 13th from either side."""
MIN_FAMILIES = 5
"""Smallest number of families for an interval: five give C(9, 5) = 126 resamples, four only 35, too few for 1 in 40."""

_ROUNDING = 1e-12  # rounding error of sums of weights, which must not exclude the pair that reaches the rate


def calibrate(
    distances: NDArray[np.float64],
    families: Sequence[str],
    *,
    spec_hash: str,
    distance: str,
    rate: float,
    source: str,
    seed: int = 0,
) -> Calibration:
    """Calibration from labelled models; pairs of different families are unrelated.

    ``distances``: (n, n), symmetric. Each pair of families has the same weight, whatever the number of their members,
    so that large families do not dominate. The tolerance is the largest of the distances at which the weighted fraction
    of unrelated pairs within it does not exceed ``rate``; if even the smallest distance exceeds it, the tolerance is
    the number just below. The 95 % interval is a percentile bootstrap in which whole families are drawn with
    replacement; copies of one family count as related. O(n^2 log n) time, O(n^2) memory.

    Raises ``UsageError`` for fewer than two families, a rate outside (0, 1), or more unrelated pairs at distance zero
    than the rate allows.
    """
    if not 0.0 < rate < 1.0:
        raise UsageError(f"rate must lie between 0 and 1, not {rate}")
    _, codes, counts = np.unique(np.asarray(families), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UsageError("calibration needs models of at least two families", "label models with --family")
    apart, first, second = _unrelated(distances, codes)
    weight = 1.0 / (counts[first] * counts[second])
    fraction = np.cumsum(weight) / weight.sum()
    fraction[-1] = 1.0
    nearest = fraction[np.searchsorted(apart, apart[0], side="right") - 1]
    if apart[0] == 0.0 and nearest > rate + _ROUNDING:
        raise UsageError(
            f"{nearest:.2%} of unrelated pairs are at distance 0, more than the rate {rate:.2%}",
            "give models of the same origin the same family",
        )
    values = apart[np.minimum(np.searchsorted(fraction, _FRACTIONS, side="left"), len(apart) - 1)]
    times = _Resampling(apart, weight, first, second, len(counts), int(np.searchsorted(fraction, min(4 * rate, 1.0))))
    low, high = times.interval(rate, np.random.default_rng(seed))
    return Calibration(
        spec_hash,
        distance,
        rate,
        _tolerance(apart, fraction, rate),
        tuple(zip(_FRACTIONS.round(10).tolist(), values.tolist(), strict=True)),
        source,
        tolerance_low=low,
        tolerance_high=high,
        models=len(codes),
        families=len(counts),
    )


def _unrelated(
    distances: NDArray[np.float64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Ascending distances of the pairs of different families, and the indices of the two families."""
    upper, right = np.triu_indices(len(codes), 1)
    unrelated = codes[upper] != codes[right]
    upper, right = upper[unrelated], right[unrelated]
    apart = distances[upper, right]
    order = np.argsort(apart, kind="stable")
    return apart[order], codes[upper[order]], codes[right[order]]


def _tolerance(apart: NDArray[np.float64], fraction: NDArray[np.float64], rate: float) -> float:
    """The largest distance at which at most the rate pass, else the number just below the smallest distance.

    ``fraction``: cumulative, for ascending distances. Pairs that add nothing to it were not drawn and do not count.
    """
    over = int(np.searchsorted(fraction, rate + _ROUNDING, side="right"))
    # Equal distances pass together.
    within = int(np.searchsorted(apart, apart[over], side="left"))
    if within == 0 or fraction[within - 1] == 0.0:
        return max(float(np.nextafter(apart[np.argmax(fraction > 0.0)], -np.inf)), 0.0)
    return float(apart[np.searchsorted(fraction, fraction[within - 1], side="left")])


@dataclass(frozen=True, slots=True, eq=False)
class _Resampling:
    """Pairs of unrelated models, ascending by ``apart``.

    The first ``head`` are used, and all of them if those do not suffice.
    """

    apart: NDArray[np.float64]
    weight: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    families: int
    head: int

    def interval(self, rate: float, rng: np.random.Generator) -> tuple[float, float] | tuple[None, None]:
        """Percentile interval of the tolerance over resampled families."""
        if self.families < MIN_FAMILIES:
            return None, None
        found: list[float] = []
        while len(found) < RESAMPLES:
            times = np.bincount(rng.integers(self.families, size=self.families), minlength=self.families)
            total = (times.sum() ** 2 - (times**2).sum()) / 2  # each pair of families has weight 1
            if total:  # otherwise only one family was drawn
                found.append(self._tolerance(times, total, rate))
        low, high = np.quantile(found, INTERVAL)
        return float(low), float(high)

    def _tolerance(self, times: NDArray[np.int64], total: float, rate: float) -> float:
        for end in (self.head, len(self.apart)):
            drawn = times[self.first[:end]] * times[self.second[:end]] * self.weight[:end]
            fraction = np.cumsum(drawn) / total
            if end == len(self.apart):
                fraction[-1] = 1.0
            if end and fraction[-1] > rate + _ROUNDING:
                break
        return _tolerance(self.apart, fraction, rate)


@lru_cache(maxsize=64)
def _curve(calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions and distances (n,) of a calibration as arrays, cached because every verdict uses them."""
    fractions, distances = np.array(calibration.quantiles).T
    return fractions, distances


def rate_at(calibration: Calibration, tolerance: float) -> float:
    """Fraction of unrelated pairs at most ``tolerance`` apart, by linear interpolation between the stored quantiles."""
    fractions, distances = _curve(calibration)
    if tolerance < distances[0]:
        return 0.0
    # For equal distances np.interp takes the last, so that a step of the distribution counts fully.
    return float(np.interp(tolerance, distances, fractions))


@lru_cache(maxsize=64)
def rate_bound(calibration: Calibration, tolerance: float) -> float:
    """``rate_at``, or the calibration's resolution if that is larger: an upper bound on the rate."""
    return max(rate_at(calibration, tolerance), calibration.resolution)


@lru_cache(maxsize=64)
def tolerance_for(calibration: Calibration, rate: float) -> float:
    """The largest tolerance at which ``rate_at`` does not exceed ``rate``, just below a step that exceeds it.

    For a rate below the calibration's resolution, it is the number just below the smallest measured distance between
    unrelated models; nothing is extrapolated. For a rate of 1 or more it is the largest measured distance.
    """
    fractions, distances = _curve(calibration)
    last = np.append(distances[1:] > distances[:-1], True)
    first = np.append(True, last[:-1])
    steps, reached, approached = distances[last], fractions[last], fractions[first]
    within = int(np.searchsorted(reached, rate, side="right"))
    if within == len(steps):
        return float(steps[-1])
    if within == 0 or rate >= approached[within]:
        return max(float(np.nextafter(steps[within], -np.inf)), 0.0)
    share = (rate - reached[within - 1]) / (approached[within] - reached[within - 1])
    found = float(steps[within - 1] + share * (steps[within] - steps[within - 1]))
    # Reduced until interpolation does not exceed the rate through rounding.
    less = float(np.spacing(found))
    while rate_at(calibration, found) > rate:
        found, less = max(found - less, float(steps[within - 1])), 2 * less
    return found


def closer_than(calibration: Calibration, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractions (n,) of unrelated pairs that lie farther apart than each of ``distances`` (n,): 1 - ``rate_at``."""
    fractions, measured = _curve(calibration)
    rates = np.interp(distances, measured, fractions)
    rates[distances < measured[0]] = 0.0
    return np.asarray(1.0 - rates)


@cache
def _shipped() -> dict[tuple[str, str], Calibration]:
    records = json.loads(files("registry.equivalence").joinpath("calibrations.json").read_text(encoding="utf-8"))
    return {
        (record["spec_hash"], record["distance"]): Calibration(
            record["spec_hash"],
            record["distance"],
            record["rate"],
            record["tolerance"],
            tuple((float(fraction), float(distance)) for fraction, distance in record["quantiles"]),
            record["source"],
            record["tolerance_low"],
            record["tolerance_high"],
            record["models"],
            record["families"],
        )
        for record in records
    }


def shipped(spec: FingerprintSpec, distance: str) -> Calibration | None:
    """The calibration that ships with this version, measured by ``benchmarks/calibrate.py``; None if there is none."""
    return _shipped().get((spec.hash, distance))
