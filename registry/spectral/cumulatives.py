"""Cumulative spectra of a network, and their differences from a conjugate ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np

from registry.ensembles import REFERENCES, Reference, layer_references, periodic_cumulative
from registry.ensembles.checks import check_locations, check_numbers, check_reference, check_whole
from registry.errors import SpectrumError
from registry.types import Spectrum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "By",
    "Scale",
    "check_layers",
    "check_spectra",
    "cumulative",
    "density_difference",
    "depth_weights",
    "layer_cumulative",
    "layer_cumulatives",
    "linear_locations",
    "logarithmic_locations",
    "spectral_difference",
]

Scale = Literal["proper", "full"]
"""``proper``: over the min(p, q) eigenvalues that are not structural zeros; ``full``: over all p, zeros counted."""
By = Literal["network", "layer", "depth"]
"""Resolution of a difference: the whole network, every layer, or relative depths."""
_SPECTRA = "Registry.spectrum returns those of a stored model"


def linear_locations(start: float, stop: float, count: int) -> NDArray[np.float64]:
    """``count`` equidistant locations from ``start`` to ``stop``, float64 (count,).

    Raises ``SpectrumError`` if ``start`` is negative, ``stop`` is not larger, or ``count`` is below 2.
    """
    count = _check_range(start, stop, count)
    return check_locations(np.linspace(start, stop, count))


def logarithmic_locations(start: float, stop: float, count: int) -> NDArray[np.float64]:
    """``count`` locations of constant ratio from ``start`` to ``stop``, float64 (count,).

    Raises ``SpectrumError`` if ``start`` is not positive, ``stop`` is not larger, or ``count`` is below 2.
    """
    count = _check_range(start, stop, count)
    if start <= 0:
        raise SpectrumError(f"logarithmic locations must start above 0, not at {start!r}")
    return check_locations(np.geomspace(start, stop, count))


def layer_cumulative(spectrum: Spectrum, locations: ArrayLike, scale: Scale = "proper") -> NDArray[np.float64]:
    """F_l(x), the fraction of a layer's eigenvalues that are <= x.

    Parameters
    ----------
    spectrum
        Spectrum of the layer, stored on the `proper` scale.
    locations
        (K,) increasing locations x >= 0.
    scale
        ``proper``, or ``full``, which counts structural zeros and multiplies x by p / min(p, q).

    Returns
    -------
    NDArray[np.float64]
        (K,), within [0, 1].

    Raises
    ------
    SpectrumError
        The spectrum is empty or not finite, the locations are invalid, or the scale is unknown.
    """
    row: NDArray[np.float64] = layer_cumulatives([spectrum], locations, scale)[0]
    return row


def layer_cumulatives(
    spectra: Sequence[Spectrum], locations: ArrayLike, scale: Scale = "proper"
) -> NDArray[np.float64]:
    """`layer_cumulative` of every layer, (L, K), with one binary search per layer and location."""
    x = check_locations(locations)
    check_spectra(spectra)
    _check_scale(scale)
    orders = np.array([spectrum.layer.p for spectrum in spectra])[:, None]
    sizes = np.array([spectrum.values.size for spectrum in spectra])[:, None]
    proper = np.broadcast_to(x, (len(spectra), x.size)) if scale == "proper" else x * (sizes / orders)
    counts = np.empty((len(spectra), x.size))
    for row, spectrum, locations_of_layer in zip(counts, spectra, proper, strict=True):
        row[:] = spectrum.values.searchsorted(locations_of_layer, side="right")
    return np.asarray(counts / sizes if scale == "proper" else (orders - sizes + counts) / orders)


def cumulative(
    spectra: Sequence[Spectrum], locations: ArrayLike, scale: Scale = "proper", *, periodic: bool = False
) -> NDArray[np.float64]:
    """F(x) of the mixed matrix ensemble: the mean over layers, with equal weights.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    locations, scale
        As in `layer_cumulative`.
    periodic
        Use the paper's periodic extension to the largest order, which gives the same numbers to rounding error.

    Returns
    -------
    NDArray[np.float64]
        (K,).

    Raises
    ------
    SpectrumError
        As in `layer_cumulative`; also without layers.
    """
    if not periodic:
        return np.asarray(layer_cumulatives(spectra, locations, scale).mean(axis=0))
    check_spectra(spectra)
    _check_scale(scale)
    return periodic_cumulative([_eigenvalues(spectrum, scale) for spectrum in spectra], locations)


def spectral_difference(
    spectra: Sequence[Spectrum],
    locations: ArrayLike,
    *,
    reference: Reference = REFERENCES["cue"],
    seed: int | None = None,
    scale: Scale = "proper",
    by: By = "network",
    depths: Sequence[float] = (),
) -> NDArray[np.float64]:
    """Cumulative spectral difference cCSD(x) = F_c(x) - F(x), the integral of rho - rho_c from x to infinity.

    arXiv:2006.13687. Beyond the support of the reference ensemble it is the tail mass of the network.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers, in depth order.
    locations, scale
        As in `layer_cumulative`.
    reference
        The reference ensemble, an entry of ``registry.ensembles.REFERENCES``. Expected differences are the same for all
        circular ensembles.
    seed
        None for the expected ensemble; a number for one member of it, drawn with that seed.
    by
        ``network``: mean over layers. ``layer``: every layer. ``depth``: weighted means around ``depths``.
    depths
        Relative depths for ``by="depth"``, see `depth_weights`; none otherwise.

    Returns
    -------
    NDArray[np.float64]
        (K,), (L, K) or (len(depths), K).

    Raises
    ------
    SpectrumError
        There are no layers, a spectrum is empty or not finite, the locations are invalid or all outside the spectrum,
        the reference ensemble is not defined on the scale or given by name only, ``by`` is unknown, or the depths are
        invalid.
    """
    check_reference(reference)
    x = check_locations(locations)
    layers = layer_cumulatives(spectra, x, scale)
    _check_reach(spectra, x, scale)
    depths = tuple(check_numbers(depths, "depths").ravel().tolist())
    if scale not in reference.scales:
        raise SpectrumError(f"{reference} is not defined on the {scale} scale", "use the proper scale")
    if (by == "depth") != bool(depths):
        raise SpectrumError(f"depths {depths} cannot be used with by={by!r}", "give depths only with by='depth'")
    shapes = [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
    difference = layer_references(reference, shapes, x, seed=seed) - layers
    match by:
        case "layer":
            return difference
        case "network":
            return np.asarray(difference.mean(axis=0))
        case "depth":
            return np.asarray(depth_weights(len(spectra), depths) @ difference)
    raise SpectrumError(f"by must be network, layer or depth, not {by!r}")


def density_difference(
    spectra: Sequence[Spectrum],
    edges: ArrayLike,
    *,
    reference: Reference = REFERENCES["cue"],
    seed: int | None = None,
    scale: Scale = "proper",
) -> NDArray[np.float64]:
    """Spectral difference CSD = rho - rho_c of the network, averaged over bins.

    Parameters
    ----------
    edges
        (K + 1,) increasing locations, K >= 1; bin j is (edges[j], edges[j + 1]].
    spectra, reference, seed, scale
        As in `spectral_difference`.

    Returns
    -------
    NDArray[np.float64]
        (K,), per unit of x.

    Raises
    ------
    SpectrumError
        As in `spectral_difference`; also for a single edge.
    """
    x = check_locations(edges)
    if x.size < 2:
        raise SpectrumError(f"bins need at least two edges, not {x.tolist()}")
    difference = spectral_difference(spectra, x, reference=reference, seed=seed, scale=scale)
    return np.asarray(-np.diff(difference) / np.diff(x))


def depth_weights(layers: int, depths: Sequence[float]) -> NDArray[np.float64]:
    """Weights of the layers around relative depths: triangles between neighbouring depths, with row sums of 1.

    Layer l of L has the relative depth l / (L - 1), a single layer 1 / 2. Before the first and after the last depth the
    weight stays 1. A depth without layers inside its triangle uses the nearest layers.

    Parameters
    ----------
    layers
        L >= 1.
    depths
        (D,) strictly increasing, within [0, 1].

    Returns
    -------
    NDArray[np.float64]
        (D, L).

    Raises
    ------
    SpectrumError
        ``layers`` is below 1, or the depths are missing, outside [0, 1] or not increasing.
    """
    nodes = check_locations(depths)
    if nodes[-1] > 1:
        raise SpectrumError(f"relative depths must lie within [0, 1], not {nodes[-1]:g}")
    count = check_whole(layers, "number of layers")
    places = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    weights = np.array([np.interp(places, nodes, unit) for unit in np.eye(nodes.size)])
    for row in np.flatnonzero(weights.sum(axis=1) == 0):
        distance = np.abs(places - nodes[row])
        weights[row] = np.isclose(distance, distance.min(), rtol=0, atol=1e-12)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _eigenvalues(spectrum: Spectrum, scale: Scale) -> NDArray[np.float64]:
    """All eigenvalues of a layer on a scale, ascending, float64."""
    values = spectrum.values.astype(np.float64)
    if scale == "proper":
        return values
    order = spectrum.layer.p
    return np.concatenate((np.zeros(order - values.size), values * (order / values.size)))


def _check_range(start: float, stop: float, count: int) -> int:
    """``count`` as an int. Raises ``SpectrumError`` unless start < stop are finite and ``count`` is at least 2."""
    low, high = check_numbers([start, stop], "locations").tolist()
    if not (isfinite(low) and isfinite(high) and low < high):
        raise SpectrumError(f"locations must rise from one finite number to another, not from {start!r} to {stop!r}")
    return check_whole(count, "number of locations", 2)


def _check_scale(scale: str) -> None:
    """Raise ``SpectrumError`` if the scale is unknown."""
    if scale not in ("proper", "full"):
        raise SpectrumError(f"scale must be proper or full, not {scale!r}")


def check_layers(spectra: Sequence[Spectrum]) -> None:
    """Raise ``SpectrumError`` if the argument is not a non-empty list of spectra."""
    if not isinstance(spectra, Sequence):
        raise SpectrumError(f"spectra must be a list, one a layer, not {type(spectra).__name__}", _SPECTRA)
    wrong = next((type(layer).__name__ for layer in spectra if not isinstance(layer, Spectrum)), None)
    if wrong is not None:
        raise SpectrumError(f"spectra must be a list of Spectrum, one a layer, not of {wrong}", _SPECTRA)
    if not spectra:
        raise SpectrumError("no layers: the spectrum of a network without layers is undefined")


def check_spectra(spectra: Sequence[Spectrum]) -> None:
    """Raise ``SpectrumError`` without layers, or if a spectrum is empty, incomplete, not finite or not ascending."""
    check_layers(spectra)
    for spectrum in spectra:
        layer, shape = spectrum.layer, spectrum.values.shape
        if shape != (min(layer.p, layer.q),):
            raise SpectrumError(f"layer {layer.name} of shape ({layer.p}, {layer.q}) has eigenvalues of shape {shape}")
    # All layers at once: an ingest checks often.
    pooled = np.concatenate([spectrum.values for spectrum in spectra])
    ends = np.cumsum([spectrum.values.size for spectrum in spectra])
    ascending = pooled[1:] >= pooled[:-1]
    ascending[ends[:-1] - 1] = True
    # Comparisons with NaN are false, so these three checks find every invalid spectrum.
    first_of_all, last_of_all = pooled[np.concatenate(([0], ends[:-1]))], pooled[ends - 1]
    if bool(ascending.all() and (first_of_all >= 0).all() and (last_of_all < np.inf).all()):
        return
    for spectrum in spectra:
        values, layer = spectrum.values, spectrum.layer
        if values[0] >= 0 and values[-1] < np.inf and bool((values[1:] >= values[:-1]).all()):
            continue
        wrong = values[~(np.isfinite(values) & (values >= 0))]
        if wrong.size:
            raise SpectrumError(f"layer {layer.name} has the invalid eigenvalue {wrong[0]}")
        at = int(np.flatnonzero(np.diff(values) < 0)[0])
        raise SpectrumError(f"eigenvalues of layer {layer.name} must ascend: {values[at + 1]} follows {values[at]}")


def _check_reach(spectra: Sequence[Spectrum], x: NDArray[np.float64], scale: Scale) -> None:
    """Raise ``SpectrumError`` if all locations lie below or above every eigenvalue that is not a structural zero."""
    stretch = [s.layer.p / s.values.size if scale == "full" else 1.0 for s in spectra]
    largest = max(float(s.values[-1]) * factor for s, factor in zip(spectra, stretch, strict=True))
    smallest = min(float(s.values[0]) * factor for s, factor in zip(spectra, stretch, strict=True))
    if x[0] > largest:
        raise SpectrumError(f"locations from {x[0]:g} on miss the spectrum, which ends at {largest:g}")
    if x[-1] < smallest:
        raise SpectrumError(f"locations up to {x[-1]:g} miss the spectrum, which begins at {smallest:g}")
