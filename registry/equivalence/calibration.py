"""How far unrelated models lie apart, and the accuracy that follows for a rate of false passes."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import SpecMismatchError, UsageError
from registry.types import Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import FingerprintSpec

__all__ = ["DEFAULT_RATE", "accuracy_for", "calibrate", "closer_than", "rate_at", "rate_bound", "shipped"]

DEFAULT_RATE = 0.01

# Fractions at which the distribution of unrelated distances is kept: fine in the lower tail, where verdicts are made.
_FRACTIONS = np.unique(np.concatenate([np.geomspace(1e-4, 1e-1, 61), np.linspace(0.0, 1.0, 101)]))


def calibrate(
    distances: NDArray[np.float64], families: Sequence[str], *, spec_hash: str, metric: str, rate: float, source: str
) -> Calibration:
    """Calibrate on labelled models: pairs of different families are unrelated.

    ``distances`` (n, n), symmetric. Each pair of families weighs the same, whatever the number of their members: two
    large families do not decide. The accuracy is the largest of the distances at which the weighted fraction of
    unrelated pairs at most that far apart does not exceed ``rate``, and where even the smallest lets more pass, the
    number just below it. O(n^2 log n) time, O(n^2) memory.

    Raises ``UsageError`` for fewer than two families, a rate outside (0, 1), or more unrelated pairs than the rate at
    distance zero, where no accuracy keeps it.
    """
    if not 0.0 < rate < 1.0:
        raise UsageError(f"rate must lie between 0 and 1, not {rate}")
    _, codes, counts = np.unique(np.asarray(families), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UsageError("calibration needs models of at least two families", "label models with --family")
    upper, right = np.triu_indices(len(codes), 1)
    unrelated = codes[upper] != codes[right]
    first, second = codes[upper[unrelated]], codes[right[unrelated]]
    weight = 1.0 / (counts[first] * counts[second])
    apart = distances[upper[unrelated], right[unrelated]]
    order = np.argsort(apart, kind="stable")
    apart, fraction = apart[order], np.cumsum(weight[order]) / weight.sum()
    fraction[-1] = 1.0
    values = apart[np.minimum(np.searchsorted(fraction, _FRACTIONS, side="left"), len(apart) - 1)]
    quantiles = tuple(zip(_FRACTIONS.round(8).tolist(), values.tolist(), strict=True))
    return Calibration(spec_hash, metric, rate, _accuracy(apart, fraction, rate), quantiles, source)


def _accuracy(apart: NDArray[np.float64], fraction: NDArray[np.float64], rate: float) -> float:
    """The accuracy from ascending distances and their cumulative weights."""
    # Equal distances pass together or not at all; and rounding of the sums must not cost the pair that makes the rate.
    passed = fraction[np.searchsorted(apart, apart, side="right") - 1]
    passing = int(np.searchsorted(passed, rate + 1e-12, side="right"))
    if passing:
        return float(apart[passing - 1])
    if apart[0] == 0.0:
        raise UsageError(
            f"{passed[0]:.2%} of unrelated pairs are at distance 0, more than the rate {rate:.2%}",
            "give models of the same origin the same family",
        )
    return float(np.nextafter(apart[0], 0.0))


def rate_at(calibration: Calibration, accuracy: float) -> float:
    """Fraction of unrelated pairs at most ``accuracy`` apart, linear between the stored quantiles."""
    fractions, distances = np.array(calibration.quantiles).T
    if accuracy < distances[0]:
        return 0.0
    # Of equal distances np.interp takes the last: a step of the distribution counts whole.
    return float(np.interp(accuracy, distances, fractions))


def rate_bound(calibration: Calibration, accuracy: float) -> float:
    """``rate_at``, or the calibration's resolution where it cannot tell so small a rate: at most so many pass."""
    return max(rate_at(calibration, accuracy), calibration.resolution)


def accuracy_for(calibration: Calibration, rate: float) -> float:
    """The largest accuracy at which ``rate_at`` does not exceed ``rate``: its inverse, and just below any step over it.

    Below the calibration's resolution that is the number just below the smallest distance between unrelated models that
    was measured; nothing is extrapolated. From 1 on it is the largest one measured.
    """
    fractions, distances = np.array(calibration.quantiles).T
    last = np.append(distances[1:] > distances[:-1], True)
    first = np.append(True, last[:-1])
    steps, reached, approached = distances[last], fractions[last], fractions[first]
    # A hair less than asked for, so that interpolating back does not exceed it by rounding.
    within = int(np.searchsorted(reached, rate, side="right"))
    if within == len(steps):
        return float(steps[-1])
    if within == 0 or rate >= approached[within]:
        return max(float(np.nextafter(steps[within], -np.inf)), 0.0)
    share = (rate * (1 - 1e-14) - reached[within - 1]) / (approached[within] - reached[within - 1])
    return float(steps[within - 1] + max(share, 0.0) * (steps[within] - steps[within - 1]))


def closer_than(calibration: Calibration, distance: float) -> float:
    """Fraction of unrelated pairs that lie farther apart than ``distance``."""
    return 1.0 - rate_at(calibration, distance)


@cache
def _shipped() -> dict[tuple[str, str], Calibration]:
    records = json.loads(files("registry.equivalence").joinpath("calibrations.json").read_text(encoding="utf-8"))
    return {
        (record["spec_hash"], record["metric"]): Calibration(
            record["spec_hash"],
            record["metric"],
            record["rate"],
            record["accuracy"],
            tuple((float(fraction), float(distance)) for fraction, distance in record["quantiles"]),
            record["source"],
        )
        for record in records
    }


def shipped(spec: FingerprintSpec, metric: str) -> Calibration:
    """The calibration that ships with this version, measured by ``benchmarks/calibrate.py``.

    Raises ``SpecMismatchError`` where none was measured for that spec and metric.
    """
    found = _shipped().get((spec.hash, metric))
    if found is None:
        raise SpecMismatchError(
            f"no calibration for {spec.label} by {metric}", "measure it: python -m benchmarks.calibrate"
        )
    return found
