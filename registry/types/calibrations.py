"""What distances between unrelated models look like, and how related ones lie under it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.types.reprs import Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Calibrated", "Calibration", "Relation"]


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Shown):
    """What distances between unrelated models look like by one distance, under one spec.

    ``tolerance``: the largest distance at which at most ``rate`` of unrelated pairs pass, and (``tolerance_low``,
    ``tolerance_high``) its 95 % interval, None where there were too few families for one; ``quantiles``: pairs
    (fraction of unrelated pairs, distance), both increasing; ``source``: what it was measured on, in words, and
    ``models`` of how many ``families`` that were; ``created``: when, in UTC, ISO 8601, empty for one that ships.
    """

    spec_hash: str
    distance: str
    rate: float
    tolerance: float
    quantiles: tuple[tuple[float, float], ...] = field(repr=False, hash=False)  # hundreds of numbers
    source: str
    tolerance_low: float | None = None
    tolerance_high: float | None = None
    models: int | None = None
    families: int | None = None
    created: str = ""

    @property
    def resolution(self) -> float:
        """The smallest rate it can tell: that of the nearest of the unrelated pairs it was measured on."""
        nearest = self.quantiles[0][1]
        return max(fraction for fraction, distance in self.quantiles if distance == nearest)


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs of labelled models of one relation, and how they lie under a calibration.

    ``pairs``: how many, of how many ``families``; ``median``: of their distances; ``within``: the fraction within the
    calibrated tolerance; ``equivalent``: those that share both classes, too. Each family, or pair of families, weighs
    the same.
    """

    name: str
    pairs: int
    families: int
    median: float
    within: float
    equivalent: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration measured on the registry's labelled models, and the ``previous`` one, which held until then.

    ``labelled``: models with a family, ``unlabelled``: without, which are left out; ``relations``: of unrelated models
    first, then of those that labels say are related.
    """

    calibration: Calibration
    previous: Calibration
    labelled: int
    unlabelled: int
    relations: tuple[Relation, ...]

    def to_frame(self) -> DataFrame:
        """One row for each relation of labelled models: see ``registry.frames.of_calibrated``."""
        from registry.frames import of_calibrated

        return of_calibrated(self)
