"""Calibrations, and how related models compare with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.types.reprs import Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Calibrated", "Calibration", "LabelledPairs"]


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Shown):
    """The distribution of one distance between unrelated models under one spec.

    ``tolerance``: the largest distance at which at most ``rate`` of unrelated pairs pass. ``tolerance_low``,
    ``tolerance_high``: its 95 % interval, None if there were too few families. ``quantiles``: pairs (fraction of
    unrelated pairs, distance), both increasing. ``source``: a description of the models measured, ``models`` of
    ``families``. ``created``: time in UTC, ISO 8601, empty for a calibration that ships.
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
        """The smallest rate that can be measured: that of the nearest unrelated pair."""
        nearest = self.quantiles[0][1]
        return max(fraction for fraction, distance in self.quantiles if distance == nearest)


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """Pairs of labelled models in one relation, compared with a calibration.

    ``pairs``: their number, in ``families``. ``median``: of their distances. ``within``: fraction within the calibrated
    tolerance. ``equivalent``: fraction that also share the training class. Each family, or pair of families,
    has the same weight.
    """

    name: str
    pairs: int
    families: int
    median: float
    within: float
    equivalent: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration measured on the registry's labelled models, and the ``previous`` one, if any, which it replaces.

    ``labelled``: number of models with a family. ``unlabelled``: number without, which are left out. ``relations``:
    unrelated models first, then models that are related by their labels.
    """

    calibration: Calibration
    previous: Calibration | None
    labelled: int
    unlabelled: int
    relations: tuple[LabelledPairs, ...]

    def to_frame(self) -> DataFrame:
        """One row for each relation of labelled models: see ``registry.frames.of_calibrated``."""
        from registry.frames import of_calibrated

        return of_calibrated(self)
