"""Equivalent or not, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.equivalence.calibration import closer_than, rate_bound
from registry.types import Verdict

if TYPE_CHECKING:
    from registry.types import Calibration

__all__ = ["OTHER_SEEDS", "Kind", "judge", "strictly"]

OTHER_SEEDS = 0.0141
"""The L1 distance in the block ``depths`` of ``layered`` within which lie 95 % of pairs that were trained alike but for
the seed (benchmarks/training)."""

Kind = tuple[str, str]
"""Tail class and training class of a model; only models of one kind can be equivalent."""


def judge(distance: float, a: Kind, b: Kind, *, tolerance: float, calibration: Calibration, searched: int) -> Verdict:
    """Equivalent within the tolerance: same training class, same tail class, and distance <= tolerance.

    ``searched``: how many models the answer was looked for among; the rate counts unrelated pairs by distance alone and
    so bounds that of the verdict.
    """
    reasons = [
        f"{what} class {mine} against {theirs}"
        for what, mine, theirs in zip(("tail", "training"), a, b, strict=True)
        if mine != theirs
    ]
    if distance > tolerance:
        reasons.append(f"distance {distance:.4g} beyond the tolerance {tolerance:.4g}")
    rate = rate_bound(calibration, tolerance)
    return Verdict(
        equivalent=not reasons,
        distance=distance,
        tolerance=tolerance,
        rate=rate,
        closer_than=closer_than(calibration, distance),
        expected_false=rate * searched,
        reasons=tuple(reasons),
    )


def strictly(verdict: Verdict, depths: float) -> Verdict:
    """The verdict if spectra by depth are to be as near as other seeds' too; ``depths``: their distance.

    On top of the tolerance, which is made for telling families apart and says little among networks of one shape.
    """
    if depths <= OTHER_SEEDS:
        return verdict
    reason = f"spectra by depth {depths:.3g} apart, beyond the {OTHER_SEEDS:g} of other seeds"
    return replace(verdict, equivalent=False, reasons=(*verdict.reasons, reason))
