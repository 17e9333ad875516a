"""How often the expected change's interval holds the true change, on families that nothing was learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.advice.correlations import rank_correlation
from registry.equivalence.expected_change import LEVEL, features_of, learned, pairs_of
from registry.spectral.specs import DEFAULT_SPEC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.advice.answers import Answer
    from benchmarks.advice.scored import Scored
    from registry.equivalence.expected_change import ChangeRule

__all__ = ["ANSWERED", "HIDDEN", "LEFT_OUT", "Coverage", "coverages"]

LEFT_OUT = "a family left out, all pairs"
ANSWERED = "a family left out, first answers"
BLIND = ", by rules without the distance"
HIDDEN = "only the answer's score left out, first answers"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Pairs of one data set: fraction within their interval, its median width in points, and what the rules said.

    ``known``: fraction of the pairs that got an interval. ``families``: the lowest and highest coverage by family.
    ``said``: mean of the rules' own coverage. ``score``: mean interval score in points, the width and 20 times what is
    missed (Gneiting and Raftery, doi:10.1198/016214506000001437, section 6.2): less is better. ``rank``: rank
    correlation of the expected with the true change.
    """

    task: str
    kind: str
    pairs: int
    known: float
    held: float
    families: tuple[float, float]
    said: float
    width: float
    score: float
    rank: float


def coverages(gallery: Scored, answers: Sequence[Answer]) -> list[Coverage]:
    """For families that are left out of the scores, and for first answers whose own score alone is not known.

    ``answers``: of this data set.
    """
    everything = np.arange(len(gallery.names))
    every = np.argwhere(gallery.parameters[:, None] > gallery.parameters[None])
    asked = np.unique([(answer.query, answer.answer) for answer in answers], axis=0)
    found = []
    for kind, pairs in ((LEFT_OUT, every), (ANSWERED, asked)):
        for blind in (False, True):
            rows = []
            for family in np.unique(gallery.families):
                own = gallery.families == family
                rule = _rule(gallery, everything[~own], blind=blind)
                rows += _told(gallery, rule, pairs[own[pairs].any(axis=1)], family, blind=blind)
            found.append(_coverage(gallery.task, kind + BLIND * blind, rows))
    rows = []
    for answer in np.unique(asked[:, 1]):
        rule = _rule(gallery, everything[everything != answer], blind=False)
        rows += _told(gallery, rule, asked[asked[:, 1] == answer], gallery.families[answer], blind=False)
    return [*found, _coverage(gallery.task, HIDDEN, rows)]


@dataclass(frozen=True, slots=True)
class _Told:
    family: str
    change: float
    value: float
    low: float
    high: float
    said: float


def _rule(gallery: Scored, rows: NDArray[np.int64], *, blind: bool) -> ChangeRule | None:
    """The rule of those networks; ``blind``: of the same pairs, without their distances."""
    distances, families = gallery.distances[DEFAULT_SPEC][np.ix_(rows, rows)], gallery.families[rows].tolist()
    pairs = pairs_of(distances, gallery.parameters[rows], gallery.top1[rows], families)
    if blind:
        pairs.features[:, :] = features_of(0.0, np.exp(pairs.features[:, 1]), 1.0, pairs.features[:, 2])
    return learned(pairs)


def _told(
    gallery: Scored, rule: ChangeRule | None, pairs: NDArray[np.int64], family: str, *, blind: bool
) -> list[_Told]:
    a, b = pairs.T
    changes = gallery.top1[b] - gallery.top1[a]
    if rule is None:
        return [_Told(family, float(change), np.nan, np.nan, np.nan, np.nan) for change in changes]
    distances = 0.0 if blind else gallery.distances[DEFAULT_SPEC][a, b]
    found = rule.expected(features_of(distances, gallery.parameters[a], gallery.parameters[b], gallery.top1[a]))
    return [
        _Told(family, change, value, low, high, rule.coverage)
        for change, (value, low, high) in zip(changes.tolist(), found.tolist(), strict=True)
    ]


def _score(row: _Told) -> float:
    missed = max(row.low - row.change, row.change - row.high, 0.0)
    return row.high - row.low + 2.0 / (1.0 - LEVEL) * missed


def _coverage(task: str, kind: str, rows: Sequence[_Told]) -> Coverage:
    known = [row for row in rows if np.isfinite(row.value)]
    within: dict[str, list[bool]] = {}
    for row in known:
        within.setdefault(row.family, []).append(row.low <= row.change <= row.high)
    shares = [float(np.mean(held)) for held in within.values()]
    return Coverage(
        task,
        kind,
        len(rows),
        len(known) / len(rows),
        float(np.mean([held for some in within.values() for held in some])) if known else np.nan,
        (min(shares), max(shares)) if known else (np.nan, np.nan),
        float(np.mean([row.said for row in known])) if known else np.nan,
        float(np.median([row.high - row.low for row in known])) if known else np.nan,
        float(np.mean([_score(row) for row in known])) if known else np.nan,
        rank_correlation(np.array([row.value for row in known]), np.array([row.change for row in known])),
    )
