"""Equivalent or not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.equivalence.calibration import closer_than, rate_bound
from registry.types import Verdict

if TYPE_CHECKING:
    from registry.types import Calibration

__all__ = ["Kind", "judge"]

Kind = tuple[str, str]
"""Tail class and training class of a model; only models of one kind can be equivalent."""


def judge(distance: float, a: Kind, b: Kind, *, accuracy: float, calibration: Calibration, searched: int) -> Verdict:
    """Equivalent within the accuracy: same training class, same tail class, and distance <= accuracy.

    ``searched``: how many models the answer was looked for among; the rate counts unrelated pairs by distance alone and
    so bounds that of the verdict.
    """
    reasons = [
        f"{what} class {mine} against {theirs}"
        for what, mine, theirs in zip(("tail", "training"), a, b, strict=True)
        if mine != theirs
    ]
    if distance > accuracy:
        reasons.append(f"distance {distance:.4g} beyond the accuracy {accuracy:.4g}")
    rate = rate_bound(calibration, accuracy)
    return Verdict(
        equivalent=not reasons,
        distance=distance,
        accuracy=accuracy,
        rate=rate,
        closer_than=closer_than(calibration, distance),
        expected_false=rate * searched,
        reasons=tuple(reasons),
    )
