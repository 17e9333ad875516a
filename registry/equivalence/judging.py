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

__all__ = ["OTHER_SEEDS", "Kind", "judge", "strictly"]

OTHER_SEEDS = 0.0141
"""The L1 distance in the block ``depths`` of ``layered`` within which 95 % of trainings with other seeds lie.

Measured by ``benchmarks/training``.
"""

Kind = tuple[str, str]
"""Tail class and training class of a model. Equivalent models have the same of both."""


def judge(
    distances: NDArray[np.float64],
    kind: Kind,
    others: Sequence[Kind],
    *,
    tolerance: float | None,
    rate: float | None,
    calibration: Calibration | None,
    searched: int,
    by_shapes: bool = False,
) -> list[Verdict]:
    """Verdicts on ``others``: equivalent within the tolerance are those of one kind at a distance <= tolerance.

    ``distances`` (n,) of n others from the model of ``kind``; ``rate``: `rate_bound` at the tolerance; ``searched``:
    how many models the answer was looked for among. The rate counts unrelated pairs by distance alone and so bounds
    that of the verdict. Without a tolerance nothing is called equivalent, and models of one kind are left undecided,
    None; without a calibration there are no rates. ``by_shapes``: of shapes alone, which no kind is known of, so that
    kinds do not count.
    """
    tail, training = kind
    closer = [None] * len(others) if calibration is None else closer_than(calibration, distances).tolist()
    expected_false = None if rate is None else rate * searched
    found = []
    for distance, farther, (its_tail, its_training) in zip(distances.tolist(), closer, others, strict=True):
        reasons = []
        if its_tail != tail and not by_shapes:
            reasons.append(f"tail class {tail} against {its_tail}")
        if its_training != training and not by_shapes:
            reasons.append(f"training class {training} against {its_training}")
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
