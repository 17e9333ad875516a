"""Differences between two networks: by location, depth, layer, and block of ``layered``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_whole
from registry.spectral.cumulatives import check_spectra, depth_weights, layer_cumulatives, logarithmic_locations
from registry.spectral.shipped_fingerprints import LAYERED, LAYERED_BLOCKS
from registry.spectral.specs import fingerprint
from registry.types import Contrast, LayerContrast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = ["LAYERS_NAMED", "LOCATIONS", "contrast"]

LAYERS_NAMED = 3
"""Number of layers listed for each network."""
LOCATIONS = logarithmic_locations(1e-3, 1e2, 126)
"""Locations at which depths and layers are compared, 25 per decade."""


def contrast(a: Sequence[Spectrum], b: Sequence[Spectrum], *, layers: int = LAYERS_NAMED) -> Contrast:
    """Where the `proper` spectra of two networks differ most.

    Whole networks are compared by the largest difference of their cumulatives (Kolmogorov-Smirnov), exactly. Depths and
    layers are compared by the Wasserstein-1 distance of log10 x, the integral of |F_a - F_b|, censored at the ends of
    `LOCATIONS`. A layer is compared with the other network at the same relative depth: with the two layers beside that
    depth, mixed by linear interpolation.

    Parameters
    ----------
    a, b
        (L,) spectra of each network's layers, in depth order. The two L may differ.
    layers
        Largest number of layers to list for each network, >= 1.

    Returns
    -------
    Contrast
        All distances and shares are 0 if the networks have the same spectra and shapes.

    Raises
    ------
    SpectrumError
        There are no layers, a spectrum is empty, incomplete or not finite, or ``layers`` is below 1.
    """
    count = check_whole(layers, "number of layers listed")
    check_spectra(a)
    check_spectra(b)
    location, difference = _largest_difference(a, b)
    of_a, of_b = layer_cumulatives(a, LOCATIONS), layer_cumulatives(b, LOCATIONS)
    apart = depth_weights(len(a), LAYERED.depths) @ of_a - depth_weights(len(b), LAYERED.depths) @ of_b
    by_depth = _wasserstein(apart)
    deepest = int(by_depth.argmax())
    return Contrast(
        location=location,
        difference=difference,
        depth=LAYERED.depths[deepest],
        depth_distance=float(by_depth[deepest]),
        layers_a=_layers(a, of_a, of_b, count),
        layers_b=_layers(b, of_b, of_a, count),
        shares=_shares(a, b),
    )


def _largest_difference(a: Sequence[Spectrum], b: Sequence[Spectrum]) -> tuple[float, float]:
    """The first x with the largest |F_a - F_b|, and F_a - F_b there.

    F_a - F_b is a step function that changes at eigenvalues, each with weight 1 / (L min(p, q)) and the sign of its
    network.
    """
    values = np.concatenate([spectrum.values for spectrum in (*a, *b)])
    steps = np.concatenate(
        [
            np.full(spectrum.values.size, sign / (spectrum.values.size * len(network)))
            for network, sign in ((a, 1.0), (b, -1.0))
            for spectrum in network
        ]
    )
    order = np.argsort(values, kind="stable")
    values, differences = values[order], np.cumsum(steps[order])
    # The sum at the last of several equal values includes all of them.
    last = np.append(values[1:] > values[:-1], True)
    values, differences = values[last], differences[last]
    largest = int(np.abs(differences).argmax())
    return float(values[largest]), float(differences[largest])


def _wasserstein(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integrals of |differences| (N, K) over log10 x by the trapezoidal rule, (N,), in decades."""
    sizes = np.abs(differences)
    return np.asarray((sizes[:, 1:] + sizes[:, :-1]) @ np.diff(np.log10(LOCATIONS)) / 2)


def _layers(
    spectra: Sequence[Spectrum], own: NDArray[np.float64], other: NDArray[np.float64], count: int
) -> tuple[LayerContrast, ...]:
    """The layers that differ most from the other network at their depth, in descending order, equal ones left out."""
    depths, places = _depths(len(own)), _depths(len(other))
    mixed = np.stack([np.interp(depths, places, unit) for unit in np.eye(len(other))], axis=1) @ other
    distances = _wasserstein(own - mixed)
    farthest = np.argsort(-distances, kind="stable")[:count]
    return tuple(
        LayerContrast(spectra[at].layer.name, spectra[at].layer.position, float(depths[at]), float(distances[at]))
        for at in farthest.tolist()
        if distances[at] > 0
    )


def _depths(layers: int) -> NDArray[np.float64]:
    """Relative depths as in `depth_weights`: from 0 to 1; 1 / 2 for a single layer."""
    return np.linspace(0, 1, layers) if layers > 1 else np.array([0.5])


def _shares(a: Sequence[Spectrum], b: Sequence[Spectrum]) -> tuple[tuple[str, float], ...]:
    """Share of each block in the L1 distance between the ``layered`` fingerprints."""
    apart = np.abs(fingerprint(a, LAYERED).vector.astype(np.float64) - fingerprint(b, LAYERED).vector)
    ends = np.cumsum(list(LAYERED_BLOCKS.values()))
    sums = [float(block.sum()) for block in np.split(apart, ends[:-1])]
    total = sum(sums) or 1.0
    return tuple((name, part / total) for name, part in zip(LAYERED_BLOCKS, sums, strict=True))
