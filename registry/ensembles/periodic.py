"""Periodic extension of spectra to a common order, the paper's way of weighting layers equally."""

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
    """Each spectrum repeated in whole periods up to at least the largest order.

    arXiv:2006.13687, section on mixed matrix ensembles. Whole periods keep the weights of a layer's eigenvalues equal.

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
        There are no spectra, or one is empty or not finite.
    """
    values = [np.ravel(check_finite(spectrum, "eigenvalues")) for spectrum in spectra]
    if not values or not all(v.size for v in values):
        raise SpectrumError("no layers or an empty spectrum: the mixed ensemble is undefined")
    largest = max(v.size for v in values)
    return [np.tile(v, -(-largest // v.size)) for v in values]


def periodic_cumulative(spectra: Sequence[ArrayLike], locations: ArrayLike) -> NDArray[np.float64]:
    """Cumulative of the mixed ensemble by periodic extension; equals the mean over layers to rounding error.

    Parameters
    ----------
    spectra
        (L,) spectra, of any orders >= 1.
    locations
        (K,) increasing spectral locations.

    Returns
    -------
    NDArray[np.float64]
        (K,), the weighted fraction of extended eigenvalues <= x, with equal weight per layer.

    Raises
    ------
    SpectrumError
        There are no spectra, one is empty or not finite, or the locations are invalid.
    """
    x = check_locations(locations)
    extended = periodic_extension(spectra)
    pooled = np.concatenate(extended)
    weights = np.concatenate([np.full(v.size, 1 / (v.size * len(extended))) for v in extended])
    order = np.argsort(pooled)
    running = np.concatenate(([0.0], np.cumsum(weights[order])))
    return running[np.searchsorted(pooled[order], x, side="right")]
