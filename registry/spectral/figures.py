"""A spectrum in three figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Figures", "figures"]


@dataclass(frozen=True, slots=True)
class Figures:
    """``largest``: largest x, the largest eigenvalue over the mean; ``stable_rank``; ``entropy``, in [0, 1]."""

    largest: float
    stable_rank: float
    entropy: float


def figures(values: NDArray[np.float32]) -> Figures:
    """Figures of proper eigenvalues ``values`` (m,), ascending, of mean 1; m >= 2.

    ``stable_rank`` = ||W||_F^2 / ||W||_2^2 = m / x_max (Rudelson & Vershynin 2007); ``entropy`` =
    -sum_i f_i log f_i / log m with f_i = x_i / m, the von Neumann entropy of W W^T over its largest value.
    """
    largest = float(values[-1])
    share = values[values > 0].astype(np.float64) / len(values)
    entropy = -float(np.sum(share * np.log(share))) / float(np.log(len(values)))
    return Figures(largest, len(values) / largest, entropy)
