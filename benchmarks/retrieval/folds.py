"""What tuning adds on families it has not seen: weights of the blocks of ``layered``, tuned on four fifths of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.retrieval.scores import Scores, retrieval
from registry.spectral.fingerprints import LAYERED_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

__all__ = ["SPLITS", "block_distances", "fold_of", "repeated", "tuned"]

FOLDS = 5
SPLITS = 5
"""Divisions of the families into fifths, at random: what a single one gives differs by some 0.03 in mAP."""
_FACTORS = (0.5, 1.0, 2.0)
_SWEEPS = 3


def block_distances(vectors: NDArray[np.float64], blocks: Collection[str]) -> NDArray[np.float64]:
    """(blocks, n, n): what each block adds to the L1 distance, over its mean, which forgets its weight."""
    parts = np.split(vectors, np.cumsum(list(LAYERED_BLOCKS.values()))[:-1], axis=1)
    kept = [part for name, part in zip(LAYERED_BLOCKS, parts, strict=True) if name in blocks]
    found = np.array([cdist(part, part, "cityblock") for part in kept])
    return np.asarray(found / found.mean(axis=(1, 2), keepdims=True))


def fold_of(family: NDArray[np.str_], seed: int = 0) -> NDArray[np.intp]:
    """Which fifth of the families each model belongs to, (n,)."""
    known, codes = np.unique(family, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(known))[codes] % FOLDS)


def repeated(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_]
) -> tuple[tuple[Scores, Scores], NDArray[np.float64], NDArray[np.float64]]:
    """`tuned` over `SPLITS` divisions of the families.

    Each query's mean scores, all and cross-size; the weights (splits * folds, blocks); and the means that each division
    gave, (splits, 2, 3), all and cross-size.
    """
    found = [tuned(distances, family, topology, split) for split in range(SPLITS)]
    pairs = [scores for scores, _ in found]
    everything, across = (_averaged([pair[kind] for pair in pairs]) for kind in (0, 1))
    means = np.array([[scores.mean() for scores in pair] for pair in pairs])
    return (everything, across), np.concatenate([weights for _, weights in found]), means


def tuned(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_], seed: int = 0
) -> tuple[tuple[Scores, Scores], NDArray[np.float64]]:
    """Scores of families left out, all and cross-size, and (folds, blocks) weights that the others chose.

    A family left out asks among all models, by weights from equal ones on, chosen without it.
    """
    fold = fold_of(family, seed)
    weights = np.array([_chosen(distances, family, topology, fold != left) for left in range(FOLDS)])
    found: list[tuple[Scores, Scores]] = []
    for left in range(FOLDS):
        mixed = np.tensordot(weights[left], distances, 1)
        asked = fold == left
        found.append((retrieval(mixed, family).of(asked), retrieval(mixed, family, topology).of(asked)))
    everything, across = (_joined(scores) for scores in zip(*found, strict=True))
    return (everything, across), weights


def _chosen(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Weights by coordinate search for the sum of both mAPs among the known models; the first block's is 1."""
    kept = distances[:, known][:, :, known]
    labels, shapes = family[known], topology[known]

    def worth(weights: NDArray[np.float64]) -> float:
        mixed = np.tensordot(weights, kept, 1)
        return float(retrieval(mixed, labels).mean()[1] + retrieval(mixed, labels, shapes).mean()[1])

    best = np.ones(len(kept))
    for _ in range(_SWEEPS):
        for at in range(1, len(best)):
            tried = [np.where(np.arange(len(best)) == at, factor * best, best) for factor in _FACTORS]
            best = max(tried, key=worth)
    return best


def _joined(scores: Sequence[Scores]) -> Scores:
    query = np.concatenate([each.query for each in scores])
    order = np.argsort(query)
    family = np.concatenate([each.family for each in scores])
    return Scores(query[order], family[order], np.concatenate([each.figures for each in scores])[order])


def _averaged(scores: Sequence[Scores]) -> Scores:
    return Scores(scores[0].query, scores[0].family, np.mean([each.figures for each in scores], axis=0))
