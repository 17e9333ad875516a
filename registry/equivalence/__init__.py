"""Distances, neighbours, classes, calibration and verdicts over fingerprints."""

from registry.equivalence.calibration import (
    DEFAULT_RATE,
    accuracy_for,
    calibrate,
    closer_than,
    rate_at,
    rate_bound,
    shipped,
)
from registry.equivalence.classes import MAX_COMPLETE, Group, complete_linkage
from registry.equivalence.distances import DEFAULT_DISTANCE, DISTANCES, Distance, distance_named
from registry.equivalence.metrics import direction
from registry.equivalence.neighbours import nearest
from registry.equivalence.verdicts import Kind, judge

__all__ = [
    "DEFAULT_DISTANCE",
    "DEFAULT_RATE",
    "DISTANCES",
    "MAX_COMPLETE",
    "Distance",
    "Group",
    "Kind",
    "accuracy_for",
    "calibrate",
    "closer_than",
    "complete_linkage",
    "direction",
    "distance_named",
    "judge",
    "nearest",
    "rate_at",
    "rate_bound",
    "shipped",
]
