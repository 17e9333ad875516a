"""Distances, neighbours, classes, calibration and verdicts over fingerprints."""

from registry.equivalence.calibration import (
    DEFAULT_RATE,
    calibrate,
    closer_than,
    rate_at,
    rate_bound,
    shipped,
    tolerance_for,
)
from registry.equivalence.classes import (
    EXACT_UP_TO,
    MAX_COMPLETE,
    RULES,
    Group,
    Rule,
    inherited,
    rule_for,
    sorted_into_groups,
)
from registry.equivalence.distances import DEFAULT_DISTANCE, DISTANCES, Distance, distance_named, nearest, search
from registry.equivalence.judging import (
    OTHER_SEEDS,
    SEED_DISTANCES,
    TRAINED,
    UNDETERMINED,
    assumed,
    comparable,
    judge,
    strictly,
)
from registry.equivalence.metrics import changes, direction
from registry.equivalence.pareto import pareto

__all__ = [
    "DEFAULT_DISTANCE",
    "DEFAULT_RATE",
    "DISTANCES",
    "EXACT_UP_TO",
    "MAX_COMPLETE",
    "OTHER_SEEDS",
    "SEED_DISTANCES",
    "TRAINED",
    "UNDETERMINED",
    "assumed",
    "comparable",
    "RULES",
    "Distance",
    "Group",
    "Rule",
    "tolerance_for",
    "calibrate",
    "changes",
    "closer_than",
    "direction",
    "distance_named",
    "inherited",
    "judge",
    "nearest",
    "pareto",
    "rate_at",
    "rate_bound",
    "rule_for",
    "search",
    "shipped",
    "sorted_into_groups",
    "strictly",
]
