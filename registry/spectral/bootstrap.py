"""Bootstrap over layers: variation of a network's cumulative spectral difference among its layers."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles import REFERENCES, Reference
from registry.ensembles.checks import check_whole
from registry.errors import SpectrumError
from registry.spectral.cumulatives import spectral_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from registry.spectral.cumulatives import Scale
    from registry.types import Spectrum

__all__ = ["BAND_LEVEL", "RESAMPLES", "bootstrap_band"]

RESAMPLES = 1000
"""Number of resampled networks for a band; its edges vary by about 4 % of their distance from the mean."""
BAND_LEVEL = 0.95
"""Pointwise confidence level of a band."""
# Numbers in a block of resampled curves: 64 MB.
HELD = 1 << 23


def bootstrap_band(
    spectra: Sequence[Spectrum],
    locations: ArrayLike,
    *,
    reference: Reference = REFERENCES["cue"],
    sample: int | None = None,
    scale: Scale = "proper",
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = BAND_LEVEL,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pointwise percentile band of a network's cCSD under resampling of its layers with replacement.

    Efron (1979): the differences of the L layers are resampled L at a time and averaged. The band lies between the (1 -
    level) / 2 and (1 + level) / 2 quantiles of the averages at each location. It shows how much the layers differ from
    each other; the network's own curve is exact and has no sampling error. Layers are treated as exchangeable, which
    neighbours in depth are not exactly. With few layers the band is too narrow, its spread by sqrt((L - 1) / L); for a
    single layer its width is zero.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    locations, reference, scale
        As in `spectral_difference`.
    sample
        ``seed`` of `spectral_difference`: None for the expected reference ensemble, a number for one member of it.
    resamples
        Number of resampled networks, >= 1.
    seed
        Seed of the resampling, non-negative.
    level
        Confidence level in (0, 1).

    Returns
    -------
    tuple of NDArray[np.float64]
        Lower and upper edge, (K,) each; O(resamples L K) operations.

    Raises
    ------
    SpectrumError
        As in `spectral_difference`; also for ``resamples`` below 1, a negative seed, or a level outside (0, 1).
    """
    count = check_whole(resamples, "resamples")
    if not (isfinite(level) and 0 < level < 1):
        raise SpectrumError(f"level must lie within (0, 1), not {level!r}")
    layers = spectral_difference(spectra, locations, reference=reference, seed=sample, scale=scale, by="layer")
    total = len(layers)
    # The mean over draws depends only on how often each layer is drawn.
    rng = np.random.default_rng(check_whole(seed, "seed", 0))
    drawn = rng.multinomial(total, np.full(total, 1 / total), size=count) / total
    edges = np.empty((2, layers.shape[1]))
    block = max(1, HELD // count)
    for start in range(0, layers.shape[1], block):
        columns = slice(start, start + block)
        edges[:, columns] = np.quantile(drawn @ layers[:, columns], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return edges[0], edges[1]
