"""Data of figures of stored spectra; ``registry.plots`` draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import several
from registry.catalog.model_details import stored_spectra
from registry.ensembles import REFERENCES, Wishart, expected_cumulative
from registry.ensembles.fluctuations import SPACING_RATIOS
from registry.ensembles.wishart import marchenko_pastur_edges
from registry.errors import UsageError
from registry.plots import LARGEST, Curve, DifferencePicture, SpectrumPicture
from registry.spectral.bootstrap import BAND_LEVEL, RESAMPLES, bootstrap_band
from registry.spectral.cumulatives import cumulative, layer_cumulatives, spectral_difference
from registry.spectral.gaussian import gaussian_cumulative
from registry.spectral.spacing import spacing_ratio
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import read_conjugacy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from registry.ensembles import Reference
    from registry.spectral.cumulatives import Scale
    from registry.storage import Store
    from registry.types import Spectrum

__all__ = ["picture_differences", "picture_spectrum"]

LOCATIONS = 600
"""Number of locations of a curve, in geometric progression from ``FIRST``."""
FIRST = 1e-2
FARTHEST = 1e9
"""Upper limit of locations. An eigenvalue divided by the mean is at most the order, which is far smaller."""
BIN = 0.05
"""Bin width of a spectrum, in decades of x."""
NEGLECTED = 0.01
"""Largest fraction of the density below the axis."""
LOWEST = -6
"""Lowest decade of the axis; below it, eigenvalues of 0 appear by rounding."""
THEORY = (("Poisson", 0), ("β = 1", 1), ("β = 2", 2), ("β = 4", 4))
"""Reference lines of spacing ratios. Eigenvalues of W W^T of real weights repel as for beta = 1."""


def picture_differences(
    store: Store,
    names: str | Sequence[str],
    *,
    scale: Scale,
    reference: str,
    sample: int | None,
    x_max: float | None,
) -> DifferencePicture:
    """Spectral differences of stored models, each with a bootstrap band over its layers.

    Raises
    ------
    UsageError
        No names or too many, an unknown reference ensemble, a scale on which it is not defined, or ``x_max`` not in
        (2, `FARTHEST`].
    RegistryError
        As `stored_spectra` and `spectral_difference`.
    """
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(several(names, "names")))
    if not 1 <= len(wanted) <= LARGEST:
        raise UsageError(f"a figure shows 1 to {LARGEST} networks, not {len(wanted)}", "draw several figures")
    if reference not in REFERENCES:
        raise UsageError(f"unknown reference ensemble {reference!r}", f"known: {', '.join(REFERENCES)}")
    if scale not in REFERENCES[reference].scales:
        raise UsageError(
            f"the reference ensemble {reference} is not defined on the scale {scale}", "use the scale proper"
        )
    if x_max is not None and not 2 < x_max <= FARTHEST:
        raise UsageError(
            f"x_max must be above 2, where the circular support ends, and at most {FARTHEST:g}, not {x_max:g}"
        )
    conjugate = REFERENCES[reference]
    networks = {name: stored_spectra(store, name) for name in wanted}
    x = _locations(networks.values(), scale, x_max)
    return DifferencePicture(
        locations=x,
        curves=tuple(_curve(name, spectra, x, conjugate, sample, scale) for name, spectra in networks.items()),
        scale=scale,
        reference=conjugate.title,
        law=conjugate.law,
        support=conjugate.support,
        sample=sample,
        level=BAND_LEVEL,
        resamples=RESAMPLES,
        seed=0,
    )


def picture_spectrum(store: Store, name: str) -> SpectrumPicture:
    """The `proper` spectrum of a stored model by layer, with reference ensembles and stored conjugacy.

    Raises
    ------
    RegistryError
        As `stored_spectra`.
    """
    spectra = stored_spectra(store, name)
    model = store.read(find_model, name)
    edges = _edges(spectra)
    step = np.diff(np.log10(edges))
    layers = layer_cumulatives(spectra, edges)
    shapes = _shapes(spectra)
    ratios, errors = np.array([_spacing(spectrum) for spectrum in spectra]).T
    aspects = [min(shape) / max(shape) for shape in shapes]
    return SpectrumPicture(
        name=name,
        edges=edges,
        layers=np.diff(layers, axis=1) / step,
        network=np.diff(layers.mean(axis=0)) / step,
        circular=np.diff(expected_cumulative(REFERENCES["cue"], shapes, edges)) / step,
        wishart=np.diff(expected_cumulative(REFERENCES["wishart"], shapes, edges)) / step,
        support=np.array(marchenko_pastur_edges(aspects)),
        ratios=ratios,
        errors=errors,
        theory=tuple((label, SPACING_RATIOS[beta]) for label, beta in THEORY),
        below=float(layers[:, 0].mean()),
        conjugacy=store.read(read_conjugacy, [model.id]).get(model.id),
    )


def _locations(networks: Collection[Sequence[Spectrum]], scale: Scale, x_max: float | None) -> NDArray[np.float64]:
    """Locations: 0, the end of the circular support, and a geometric progression to the largest eigenvalue."""
    largest = max(
        float(s.values[-1]) * (s.layer.p / s.values.size if scale == "full" else 1.0)
        for spectra in networks
        for s in spectra
    )
    stop = max(1.05 * largest, 4.0) if x_max is None else x_max
    return np.union1d(np.geomspace(FIRST, stop, LOCATIONS), [0.0, 2.0])


def _curve(
    name: str,
    spectra: Sequence[Spectrum],
    x: NDArray[np.float64],
    conjugate: Reference,
    sample: int | None,
    scale: Scale,
) -> Curve:
    """Spectral difference of a network with its bootstrap band, and that of Gaussian weights."""
    shapes = _shapes(spectra)
    values = spectral_difference(spectra, x, reference=conjugate, seed=sample, scale=scale)
    lower, upper = bootstrap_band(spectra, x, reference=conjugate, sample=sample, scale=scale)
    gaussian = None
    if not isinstance(conjugate, Wishart):
        gaussian = expected_cumulative(conjugate, shapes, x) - gaussian_cumulative(shapes, x, scale)
    return Curve(name, len(spectra), values, lower, upper, gaussian)


def _edges(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    """Bin edges 2 * 10^(k BIN), which include 2, the end of the circular support.

    The first edge is the highest 2 * 10^d, d < 0, with at most `NEGLECTED` of the density below. The last is the first
    above the largest eigenvalue, in steps of a quarter of a decade.
    """
    decades = np.arange(LOWEST, 0)
    few = decades[cumulative(spectra, 2 * 10.0**decades) <= NEGLECTED]
    first = int(few[-1]) if few.size else LOWEST
    largest = max(float(s.values[-1]) for s in spectra)
    last = max(1, int(np.ceil(4 * np.log10(largest / 2)))) / 4
    return np.asarray(2 * 10.0 ** np.linspace(first, last, round((last - first) / BIN) + 1))


def _spacing(spectrum: Spectrum) -> tuple[float, float]:
    """Mean spacing ratio of a layer and its standard error; NaN with fewer than three eigenvalues."""
    if spectrum.values.size < 3:
        return float("nan"), float("nan")
    found = spacing_ratio(spectrum.values)
    return found.mean, found.error


def _shapes(spectra: Sequence[Spectrum]) -> list[tuple[int, int]]:
    return [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
