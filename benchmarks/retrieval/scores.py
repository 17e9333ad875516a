"""Family retrieval from pairwise distances: scores by query, and their intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scores", "gain_interval", "retrieval"]

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """By query: index of the query's model, code of its family, and (n, 3) hit at 1, average precision and AUC."""

    query: NDArray[np.intp]
    family: NDArray[np.intp]
    figures: NDArray[np.float64]

    def mean(self) -> NDArray[np.float64]:
        """P@1, mAP, AUC over queries."""
        return np.asarray(self.figures.mean(axis=0))

    def interval(self, seed: int = 0) -> NDArray[np.float64]:
        """95 % bootstrap interval of the means, families drawn with replacement; (2, 3)."""
        return _interval(self.family, self.figures, seed)

    def of(self, asked: NDArray[np.bool_]) -> Scores:
        """Scores of the queries in a mask ``asked`` (models,)."""
        kept = asked[self.query]
        return Scores(self.query[kept], self.family[kept], self.figures[kept])


def gain_interval(better: Scores, worse: Scores, seed: int = 0) -> NDArray[np.float64]:
    """95 % interval of the difference of means, paired by query, families drawn with replacement; (2, 3)."""
    return _interval(better.family, better.figures - worse.figures, seed)


def retrieval(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_] | None = None
) -> Scores:
    """Scores from (n, n) distances; with ``topology``, models of the query's topology are excluded."""
    members = Counter(family.tolist())
    codes = np.unique(family, return_inverse=True)[1]
    who, figures = [], []
    for i in range(len(family)):
        gallery = np.arange(len(family)) != i
        if topology is not None:
            gallery &= topology != topology[i]
        relevant = family[gallery] == family[i]
        if members[str(family[i])] < 3 or not relevant.any() or relevant.all():
            continue
        ranked = relevant[np.argsort(distances[i, gallery], kind="stable")]
        precision = (np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()
        area = 1.0 - np.cumsum(~ranked)[ranked].mean() / (~ranked).sum()
        who.append(i)
        figures.append((float(ranked[0]), precision, area))
    return Scores(np.array(who, dtype=np.intp), codes[who], np.array(figures).reshape(-1, 3))


def _interval(family: NDArray[np.intp], figures: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    codes = np.unique(family)
    sums = np.array([figures[family == code].sum(axis=0) for code in codes])
    counts = np.array([(family == code).sum() for code in codes])
    drawn = rng.integers(len(codes), size=(_RESAMPLES, len(codes)))
    return np.asarray(np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1)[:, None], [0.025, 0.975], axis=0))
