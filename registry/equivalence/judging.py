"""Verdicts: whether two models are equivalent, with reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.equivalence.calibration import closer_than
from registry.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Calibration

__all__ = ["OTHER_SEEDS", "SEED_DISTANCES", "TRAINED", "UNDETERMINED", "assumed", "comparable", "judge", "strictly"]

OTHER_SEEDS = 0.0141
"""The L1 distance in the block ``depths`` of ``layered`` within which 95 % of trainings with other seeds lie.

Measured by ``benchmarks/training``.
"""

SEED_DISTANCES = {("layered", "l1"): 0.079, ("mme", "l1"): 0.77}
"""The distance, by fingerprint and distance, within which 95 % of trainings of one topology with other seeds lie.

Small networks of nine families; the largest of the limits that were chosen without one family. Measured by
``benchmarks/training``.
"""

UNDETERMINED = "undetermined"
"""Training class of a model whose file holds too little to tell: it is equivalent to itself alone."""

TRAINED = "trained"
"""Training class that an undetermined model is judged by where that is asked for."""


def assumed(training: str) -> str:
    """The training class where undetermined models are assumed to be trained."""
    return TRAINED if training == UNDETERMINED else training


def comparable(training: str, own: int) -> str:
    """The training class, by which models may be equivalent; of an undetermined one a text that only ``own`` has."""
    return f"{UNDETERMINED} {own}" if training == UNDETERMINED else training


def judge(
    distances: NDArray[np.float64],
    training: str,
    others: Sequence[str],
    *,
    tolerance: float | None,
    rate: float | None,
    calibration: Calibration | None,
    searched: int,
    by_shapes: bool = False,
    seeds: float | None = None,
) -> list[Verdict]:
    """Verdicts on n others: equivalent are those of the training class of the model at a distance <= tolerance.

    ``distances`` (n,) of the others, of training classes ``others``, from the model of the class ``training``;
    ``rate``: `rate_bound` at the tolerance; ``searched``: how many models the answer was looked for among. The rate
    counts unrelated pairs by distance alone and so bounds that of the verdict. Without a tolerance nothing is called
    equivalent, and models of one class are left undecided, None; without a calibration there are no rates. A model of
    undetermined class is equivalent to none but itself, at distance 0. ``by_shapes``: of shapes alone, so that training
    classes do not count. ``seeds``: of `SEED_DISTANCES`.
    """
    closer = [None] * len(others) if calibration is None else closer_than(calibration, distances).tolist()
    expected_false = None if rate is None else rate * searched
    found = []
    for distance, farther, other in zip(distances.tolist(), closer, others, strict=True):
        reasons = []
        if other != training and not by_shapes:
            reasons.append(f"training class {training or 'unknown'} against {other or 'unknown'}")
        elif training == UNDETERMINED and distance > 0.0 and not by_shapes:
            reasons.append("training class undetermined: the weights are too few to tell")
        if tolerance is not None and distance > tolerance:
            reasons.append(f"distance {distance:.4g} beyond the tolerance {tolerance:.4g}")
        found.append(
            Verdict(
                equivalent=None if tolerance is None and not reasons else not reasons,
                distance=distance,
                tolerance=tolerance,
                rate=rate,
                closer_than=farther,
                expected_false=expected_false,
                reasons=tuple(reasons),
                by_shapes=by_shapes,
                seeds=seeds,
            )
        )
    return found


def strictly(verdict: Verdict, depths: float) -> Verdict:
    """The verdict under the strict rule: the block ``depths`` must also be as near as that of other seeds.

    ``depths``: L1 distance in that block. The tolerance alone is calibrated to tell families apart, and says little
    among networks of one topology.
    """
    if depths <= OTHER_SEEDS:
        return verdict
    reason = f"spectra by depth {depths:.3g} apart, beyond the {OTHER_SEEDS:g} of other seeds"
    return replace(verdict, equivalent=False, reasons=(*verdict.reasons, reason))
