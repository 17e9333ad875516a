"""Scores of ``layered`` on held-out families: learned on four fifths of the families, queried by the other fifth."""

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
"""Number of random divisions of the families into fifths; results of single divisions differ by about 0.03 in mAP."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Scores of held-out families, all and cross-size, as the mean of each query over divisions.

    ``means``: of each division, (splits, 2, 3). ``distances``: of the first division, (n, n); each row uses numbers
    fitted without the family of the query.
    """

    everything: Scores
    across: Scores
    means: NDArray[np.float64]
    distances: NDArray[np.float64]


def fold_of(family: NDArray[np.str_], seed: int = 0) -> NDArray[np.intp]:
    """Index of the fifth that each model's family belongs to, (n,)."""
    known, codes = np.unique(family, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(known))[codes] % FOLDS)


def fitted(samples: Sequence[Sample], names: Collection[str], splits: int = SPLITS) -> Fits:
    """Numbers for the named blocks, learned on four fifths of every sample's families.

    By division and by held-out fifth; ``splits * FOLDS`` fits.
    """
    return [
        [learned([each.of(fold_of(each.family, split) != left) for each in samples], names) for left in range(FOLDS)]
        for split in range(splits)
    ]


def as_shipped(splits: int = SPLITS) -> Fits:
    """The shipped numbers in place of learned ones."""
    return [[SHIPPED] * FOLDS for _ in range(splits)]


def held_out(sample: Sample, fits: Fits, names: Collection[str], teacher: Sample | None) -> HeldOut:
    """Scores with the named blocks; each fifth queries all models, with numbers fitted without its families.

    ``teacher``: the models from which the transform is learned, in the same division: the sample itself, the same
    models changed, or models of other families. None: no transform.
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
