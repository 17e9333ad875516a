"""What learning adds on families it has not seen: all numbers of ``layered`` learned on four fifths of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.learning import learned
from benchmarks.retrieval.scores import Scores, retrieval

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from benchmarks.retrieval.learning import Numbers, Sample

__all__ = ["FOLDS", "SPLITS", "HeldOut", "fold_of", "held_out"]

FOLDS = 5
SPLITS = 5
"""Divisions of the families into fifths, at random: what a single one gives differs by some 0.03 in mAP."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Scores of families left out, all and cross-size; each query's mean over divisions.

    ``means``: those of each division, (splits, 2, 3); ``numbers``: what was learned, one a fit.
    """

    everything: Scores
    across: Scores
    means: NDArray[np.float64]
    numbers: list[Numbers]


def fold_of(family: NDArray[np.str_], seed: int = 0) -> NDArray[np.intp]:
    """Which fifth of the families each model belongs to, (n,)."""
    known, codes = np.unique(family, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(known))[codes] % FOLDS)


def held_out(samples: Sequence[Sample], names: Collection[str], splits: int = SPLITS) -> list[HeldOut]:
    """Learn the blocks of those names on four fifths of every sample's families; of each, the fifth left out asks.

    It asks among all of its sample, by numbers learned without any model of its family. ``splits * FOLDS`` fits.
    """
    divided: list[list[tuple[Scores, Scores]]] = [[] for _ in samples]
    numbers = []
    for split in range(splits):
        folds = [fold_of(sample.family, split) for sample in samples]
        found: list[list[tuple[Scores, Scores]]] = [[] for _ in samples]
        for left in range(FOLDS):
            fitted = learned([sample.of(fold != left) for sample, fold in zip(samples, folds, strict=True)], names)
            numbers.append(fitted)
            for at, (sample, fold) in enumerate(zip(samples, folds, strict=True)):
                distances, asked = sample.distances(fitted, names), fold == left
                every = retrieval(distances, sample.family).of(asked)
                found[at].append((every, retrieval(distances, sample.family, sample.topology).of(asked)))
        for at, pairs in enumerate(found):
            everything, across = (_joined(scores) for scores in zip(*pairs, strict=True))
            divided[at].append((everything, across))
    return [
        HeldOut(
            *(_averaged([pair[kind] for pair in pairs]) for kind in (0, 1)),
            np.array([[scores.mean() for scores in pair] for pair in pairs]),
            numbers,
        )
        for pairs in divided
    ]


def _joined(scores: Sequence[Scores]) -> Scores:
    query = np.concatenate([each.query for each in scores])
    order = np.argsort(query)
    family = np.concatenate([each.family for each in scores])
    return Scores(query[order], family[order], np.concatenate([each.figures for each in scores])[order])


def _averaged(scores: Sequence[Scores]) -> Scores:
    return Scores(scores[0].query, scores[0].family, np.mean([each.figures for each in scores], axis=0))
