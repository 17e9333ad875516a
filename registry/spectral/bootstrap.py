"""How much a network's spectral difference depends on which layers it has: a bootstrap over its layers."""

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
"""Resampled networks behind a band: its edges scatter by some 4 % of their distance from the mean."""
BAND_LEVEL = 0.95
"""Pointwise level of a band."""
# Numbers of a block of resampled curves held at once: 64 MB.
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
    """Pointwise percentile band of a network's cCSD when its layers are drawn anew, with replacement.

    Efron (1979): the L layers' own differences are resampled L at a time and averaged; the band lies between the
    (1 - level) / 2 and (1 + level) / 2 quantiles of the averages at each location. It shows how unlike the layers are.
    The network's own curve is exact and has no sampling error. Layers are taken as exchangeable, which neighbours in
    depth are not quite; with few layers the band is too narrow, by sqrt((L - 1) / L) in its spread, and that of a
    single layer is empty.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    locations, reference, scale
        As in `spectral_difference`.
    sample
        Its ``seed``: None against the expected reference, a number against one member of it.
    resamples
        Resampled networks, >= 1.
    seed
        Of the resampling, non-negative.
    level
        In (0, 1).

    Returns
    -------
    tuple of NDArray[np.float64]
        Lower and upper edge, (K,) each; O(resamples L K) operations.

    Raises
    ------
    SpectrumError
        As `spectral_difference`; resamples below 1, a negative seed, a level outside (0, 1).
    """
    count = check_whole(resamples, "resamples")
    if not (isfinite(level) and 0 < level < 1):
        raise SpectrumError(f"level must lie within (0, 1), not {level!r}")
    layers = spectral_difference(spectra, locations, reference=reference, seed=sample, scale=scale, by="layer")
    total = len(layers)
    # How often each layer is drawn, which is all that a mean over draws depends on.
    rng = np.random.default_rng(check_whole(seed, "seed", 0))
    drawn = rng.multinomial(total, np.full(total, 1 / total), size=count) / total
    edges = np.empty((2, layers.shape[1]))
    block = max(1, HELD // count)
    for start in range(0, layers.shape[1], block):
        columns = slice(start, start + block)
        edges[:, columns] = np.quantile(drawn @ layers[:, columns], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return edges[0], edges[1]
