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

__all__ = ["block_distances", "fold_of", "tuned"]

FOLDS = 5
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


def tuned(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_]
) -> tuple[tuple[Scores, Scores], NDArray[np.float64]]:
    """Scores of families left out, all and cross-size, and (folds, blocks) weights that the others chose.

    A family left out asks among all models, by weights from equal ones on, chosen without it.
    """
    fold = fold_of(family)
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
