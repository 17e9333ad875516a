"""Summary statistics of a layer's spectrum: largest eigenvalue, stable rank, entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.spectral.eigenvalues import spectral_entropy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Figures", "figures"]


@dataclass(frozen=True, slots=True)
class Figures:
    """``largest``: largest eigenvalue over the mean. ``stable_rank``. ``entropy``: within [0, 1]."""

    largest: float
    stable_rank: float
    entropy: float


def figures(values: NDArray[np.float32]) -> Figures:
    """Summary statistics of proper eigenvalues ``values`` (m,), ascending, with mean 1; m >= 2.

    ``stable_rank`` = ||W||_F^2 / ||W||_2^2 = m / x_max (Rudelson & Vershynin 2007). ``entropy``: see
    `spectral_entropy`, the von Neumann entropy of W W^T divided by its largest possible value.
    """
    largest = float(values[-1])
    return Figures(largest, len(values) / largest, spectral_entropy(values))
