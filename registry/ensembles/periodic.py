"""The paper's way to an equal footing of layers of different orders: spectra made periodic up to the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_finite, check_locations
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["periodic_cumulative", "periodic_extension"]


def periodic_extension(spectra: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    """Each spectrum repeated, in whole periods, up to at least the largest order.

    arXiv:2006.13687, section on mixed matrix ensembles. Whole periods, so that no eigenvalue of a layer counts more
    than its others.

    Parameters
    ----------
    spectra
        (L,) spectra, of any orders >= 1.

    Returns
    -------
    list of NDArray[np.float64]
        (L,), each of ceil(largest / order) * order values.

    Raises
    ------
    SpectrumError
        No spectra, an empty one, or one that is not finite.
    """
    values = [np.ravel(check_finite(spectrum, "eigenvalues")) for spectrum in spectra]
    if not values or not all(v.size for v in values):
        raise SpectrumError("no layers: an ensemble mixed of none, or of empty spectra, is undefined")
    largest = max(v.size for v in values)
    return [np.tile(v, -(-largest // v.size)) for v in values]


def periodic_cumulative(spectra: Sequence[ArrayLike], locations: ArrayLike) -> NDArray[np.float64]:
    """Cumulative of the mixed ensemble by periodic extension: the same as the plain mean over layers, to rounding.

    Parameters
    ----------
    spectra
        (L,) spectra, of any orders >= 1.
    locations
        (K,) increasing spectral locations.

    Returns
    -------
    NDArray[np.float64]
        (K,), the weighted fraction of extended eigenvalues <= x, every layer weighing the same.

    Raises
    ------
    SpectrumError
        No spectra, an empty one or one that is not finite, unusable locations.
    """
    x = check_locations(locations)
    extended = periodic_extension(spectra)
    pooled = np.concatenate(extended)
    weights = np.concatenate([np.full(v.size, 1 / (v.size * len(extended))) for v in extended])
    order = np.argsort(pooled)
    running = np.concatenate(([0.0], np.cumsum(weights[order])))
    return running[np.searchsorted(pooled[order], x, side="right")]
