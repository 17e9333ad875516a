"""Pairs within a limit that other seeds are within, for held-out families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.spectral_specs import SPECTRAL
from benchmarks.training.measure import SEED
from benchmarks.training.scores import area, of_fingerprint
from registry.spectral.specs import DEFAULT_SPEC

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.training.measure import Pair

__all__ = ["HELD", "RATES", "Limit", "limits", "limits_table"]

RATES = (0.5, 0.8, 0.9, 0.95, 1.0)
"""Fractions of the other seeds, of the other families, that are within the limit."""
HELD = (
    SEED,
    "another task, from another initialisation",
    "own initialisation",
    "own weights shuffled",
    "after 3 epochs",
    "pruned by 50 %",
    "pruned by 90 %",
    "fine-tuned to another task",
)
"""The kinds of pairs that are compared with the limits."""
TASK = HELD[1]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on a score, and the fraction of pairs within it by kind.

    ``least``, ``largest``: the smallest and largest limit over held-out families.
    """

    rate: float
    least: float
    largest: float
    passed: dict[str, float]


def limits(pairs: Sequence[Pair], score: Callable[[Pair], float]) -> list[Limit]:
    """Limits at `RATES`; ``pairs``: of one fingerprint. The limit for a family comes from the seeds of all others."""
    families = np.array([_family(pair) for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])
    scores = np.array([score(pair) for pair in pairs])
    found = []
    for rate in RATES:
        passed = np.zeros(len(pairs), np.bool_)
        chosen = []
        for family in np.unique(families):
            own = families == family
            # The smallest observed score that this fraction is within.
            chosen.append(float(np.quantile(scores[(kinds == SEED) & ~own], rate, method="inverted_cdf")))
            passed[own] = scores[own] <= chosen[-1]
        shares = {kind: float(passed[kinds == kind].mean()) for kind in HELD if (kinds == kind).any()}
        found.append(Limit(rate, min(chosen), max(chosen), shares))
    return found


def limits_table(pairs: Sequence[Pair]) -> list[str]:
    """Table of the limits for each fingerprint's distance and for the block ``depths``, whatever the classes.

    Empty if fewer than two families have other seeds.
    """
    if len({_family(pair) for pair in pairs if pair.kind == SEED}) < 2:
        return []
    scores: list[tuple[str, Sequence[Pair], Callable[[Pair], float]]] = [
        (f"`{name}`", of_fingerprint(pairs, name), lambda pair: pair.distance) for name in SPECTRAL
    ]
    scores.append(("block `depths`", of_fingerprint(pairs, DEFAULT_SPEC), lambda pair: pair.depths))
    lines = [
        f"| L1 distance by | AUC | rate | limit | {' | '.join(HELD)} |",
        "| --- " * (4 + len(HELD)) + "|",
    ]
    for name, some, score in scores:
        seeds, others = ([score(pair) for pair in some if pair.kind == kind] for kind in (SEED, TASK))
        for each in limits(some, score):
            cells = " | ".join(f"{each.passed[kind]:.0%}" if kind in each.passed else "" for kind in HELD)
            head = f"{name} | {area(seeds, others):.3f}"
            lines.append(f"| {head} | {each.rate:.0%} | {each.least:.3g}-{each.largest:.3g} | {cells} |")
    return lines


def _family(pair: Pair) -> str:
    return pair.topology.rstrip("0123456789")
