"""Expected spectrum of Gaussian weights of a network's shapes, on either scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_locations, check_shapes
from registry.ensembles.wishart import marchenko_pastur_cumulative
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from registry.spectral.cumulatives import Scale

__all__ = ["gaussian_cumulative"]


def gaussian_cumulative(
    shapes: Sequence[tuple[int, int]], locations: ArrayLike, scale: Scale = "proper"
) -> NDArray[np.float64]:
    """Expected cumulative of Gaussian matrices of the layers' shapes, the mean over layers.

    With n = min(p, q), the cumulative of a layer on the `full` scale is 1 - n / p + (n / p) F(x n / p), where F is the
    Marchenko-Pastur law with mean 1: p - n structural zeros, and the other eigenvalues larger by p / n.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q).
    locations
        (K,) increasing locations x >= 0.
    scale
        ``proper`` or ``full``.

    Returns
    -------
    NDArray[np.float64]
        (K,).

    Raises
    ------
    SpectrumError
        There are no layers, an extent is below 1, the locations are invalid, or the scale is unknown.
    """
    if scale not in ("proper", "full"):
        raise SpectrumError(f"scale must be proper or full, not {scale!r}")
    x = check_locations(locations)
    sizes = np.array(check_shapes(shapes), dtype=np.float64)
    small = sizes.min(axis=1)
    share = small / sizes[:, 0] if scale == "full" else np.ones(len(sizes))
    kinds, layers = np.unique(np.stack((small / sizes.max(axis=1), share)), axis=1, return_counts=True)
    aspect, share = kinds[:, :, None]
    values = 1 - share + share * marchenko_pastur_cumulative(aspect, share * x)
    return np.asarray(layers @ values / len(sizes))
