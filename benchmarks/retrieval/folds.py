"""What ``layered`` is worth on families it has not seen: learned on four fifths of them, asked by the fifth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.learning import SHIPPED, learned
from benchmarks.retrieval.scores import Scores, retrieval

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from benchmarks.retrieval.learning import Numbers, Sample

    Fits = Sequence[Sequence[Numbers]]

__all__ = ["FOLDS", "SPLITS", "HeldOut", "as_shipped", "fitted", "fold_of", "held_out"]

FOLDS = 5
SPLITS = 5
"""Divisions of the families into fifths, at random: what a single one gives differs by some 0.03 in mAP."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Scores of families left out, all and cross-size; each query's mean over divisions.

    ``means``: those of each division, (splits, 2, 3); ``distances``: by the first of them, (n, n), each row from what
    was fitted without the family of the model that asks.
    """

    everything: Scores
    across: Scores
    means: NDArray[np.float64]
    distances: NDArray[np.float64]


def fold_of(family: NDArray[np.str_], seed: int = 0) -> NDArray[np.intp]:
    """Which fifth of the families each model belongs to, (n,)."""
    known, codes = np.unique(family, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(known))[codes] % FOLDS)


def fitted(samples: Sequence[Sample], names: Collection[str], splits: int = SPLITS) -> Fits:
    """Numbers for the blocks of those names, learned on four fifths of every sample's families.

    By division and by the fifth that is left out; ``splits * FOLDS`` fits.
    """
    return [
        [learned([each.of(fold_of(each.family, split) != left) for each in samples], names) for left in range(FOLDS)]
        for split in range(splits)
    ]


def as_shipped(splits: int = SPLITS) -> Fits:
    """The numbers that ship in the place of learned ones."""
    return [[SHIPPED] * FOLDS for _ in range(splits)]


def held_out(sample: Sample, fits: Fits, names: Collection[str], teacher: Sample | None) -> HeldOut:
    """Scores by the blocks of those names; each fifth asks among all, by what was fitted without its families.

    ``teacher``: the transform is what four fifths of its families teach, of the same division: the sample itself, the
    same models changed, or models of other families; None: without a transform.
    """
    divided, means, first = [], [], np.empty(0)
    for split, numbers in enumerate(fits):
        fold = fold_of(sample.family, split)
        distances = np.empty((len(fold), len(fold)))
        for left, each in enumerate(numbers):
            transform = teacher.of(fold_of(teacher.family, split) != left).transform(each, names) if teacher else None
            distances[fold == left] = sample.distances(each, names, transform)[fold == left]
        pair = retrieval(distances, sample.family), retrieval(distances, sample.family, sample.topology)
        divided.append(pair)
        means.append([scores.mean() for scores in pair])
        first = first if split else distances
    everything, across = (
        Scores(pairs[0].query, pairs[0].family, np.mean([each.figures for each in pairs], axis=0))
        for pairs in zip(*divided, strict=True)
    )
    return HeldOut(everything, across, np.array(means), first)
