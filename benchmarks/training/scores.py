"""Statistics of pairs: separation by a score, medians, fractions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.training.measure import KINDS, SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike

    from benchmarks.training.measure import Pair

__all__ = ["Row", "area", "distance_area", "of_fingerprint", "rows", "side_area"]


def area(low: ArrayLike, high: ArrayLike) -> float:
    """Area under the ROC curve: the probability that one of ``low`` is below one of ``high``; ties count half."""
    difference = np.subtract.outer(np.asarray(high, dtype=np.float64), np.asarray(low, dtype=np.float64))
    return float(np.mean(difference > 0) + 0.5 * np.mean(difference == 0))


def distance_area(pairs: Sequence[Pair], kind: str) -> float:
    """Probability that two seeds are nearer than a network and its ``kind``, averaged over topologies.

    ``pairs``: of one fingerprint. Pairs are compared within one topology, so that shapes give no information.
    """
    return float(
        np.mean(
            [
                area([pair.distance for pair in seeds], [pair.distance for pair in others])
                for seeds, others in _by_topology(pairs, kind)
                if seeds
            ]
        )
    )


def side_area(pairs: Sequence[Pair], kind: str, *, by_class: bool) -> float:
    """The same for a score of single networks: z, or with ``by_class`` whether the training class is ``trained``."""

    def score(z: float, training_class: str) -> float:
        return float(training_class == "trained") if by_class else z

    return float(
        np.mean(
            [
                area(
                    [score(pair.b.z, pair.b.training_class) for pair in others],
                    [score(pair.a.z, pair.a.training_class) for pair in others],
                )
                for _, others in _by_topology(pairs, kind)
            ]
        )
    )


def of_fingerprint(pairs: Iterable[Pair], fingerprint: str) -> list[Pair]:
    """The pairs under one fingerprint."""
    return [pair for pair in pairs if pair.fingerprint == fingerprint]


def _by_topology(pairs: Sequence[Pair], kind: str) -> list[tuple[list[Pair], list[Pair]]]:
    """For each topology with pairs of ``kind``: the pairs of seeds, and those pairs."""
    groups: dict[str, tuple[list[Pair], list[Pair]]] = defaultdict(lambda: ([], []))
    for pair in pairs:
        if pair.kind in (SEED, kind):
            groups[pair.topology][pair.kind != SEED].append(pair)
    return [group for group in groups.values() if group[1]]


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of pair under one fingerprint: number, median distance, and fractions of the pairs."""

    kind: str
    pairs: int
    median: float
    area: float | None
    within: float
    equivalent: float
    same_training: float
    same_tail: float


def rows(pairs: Sequence[Pair]) -> list[Row]:
    """A row for each kind; ``pairs``: of one fingerprint."""
    found = []
    for kind in KINDS:
        some = [pair for pair in pairs if pair.kind == kind]
        if some:
            shares = np.mean([(p.within, p.equivalent, p.same_training, p.same_tail) for p in some], axis=0)
            median = float(np.median([pair.distance for pair in some]))
            nearer = None if kind == SEED else distance_area(pairs, kind)
            found.append(Row(kind, len(some), median, nearer, *map(float, shares)))
    return found
