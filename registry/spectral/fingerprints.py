"""Fingerprints: ``mme``, the paper's, and ``layered``, the default.

A new fingerprint is a function and an entry in ``_VECTORS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles import Circular, expected_cumulative
from registry.ensembles.wishart import marchenko_pastur_cumulative
from registry.errors import SpectrumError
from registry.spectral.cumulatives import check_layers, cumulative, depth_weights, layer_cumulatives
from registry.spectral.descriptors import (
    WEIGHTS,
    embed,
    layers_of,
    run_points,
    scales_of,
    shape_points,
    spectral_points,
)
from registry.spectral.learned_transform import transform
from registry.types import Fingerprint, FingerprintSpec, Spectrum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["LAYERED_BLOCKS", "SEEDS", "departures", "embeddings", "fingerprint", "points_of"]

LAYERED_BLOCKS = {"shapes": 90, "pairs": 120, "triples": 110, "spectra": 86, "depths": 72, "layers": 1}
"""Length of each block of ``layered``, in the order of the vector."""
SEEDS = {"shapes": 0, "pairs": 1, "triples": 3, "spectra": 2}
"""Offset added to the spec's seed for the features of each embedded block."""


def fingerprint(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> Fingerprint:
    """The fingerprint of a network under a spec, float32 (spec.length,), from its layers' spectra in depth order.

    Raises ``SpectrumError`` for a network without layers, values that are not finite, or a spec of another version.
    """
    check_layers(spectra)
    if not isinstance(spec, FingerprintSpec):
        raise SpectrumError(f"spec must be a FingerprintSpec, not {spec!r}", "use one of registry.spectral.SPECS")
    compute = _VECTORS.get((spec.name, spec.version))
    if compute is None:
        raise SpectrumError(f"this version does not compute {spec.label}", "use the version that stored it")
    vector = compute(spectra, spec).astype(np.float32)
    if vector.shape != (spec.length,) or not np.isfinite(vector).all():
        raise SpectrumError(f"the {spec.label} fingerprint of these spectra is not {spec.length} finite numbers")
    return Fingerprint(spec, vector)


def _mme(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """CCSD(x) = F_c(x) - F(x) at the spec's locations, `full` scale (arXiv:2006.13687, definition 3).

    The L1 distance of two networks times the spacing of log x is the Wasserstein-1 distance of log x between their
    mixed ensembles, censored at the outer locations.
    """
    locations = np.array(spec.locations)
    shapes = [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
    expected = expected_cumulative(Circular(spec.beta), shapes, locations)
    return expected - cumulative(spectra, locations, scale="full")


def _layered(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """Six blocks, each divided by its length, so that an L1 distance adds up mean absolute differences.

    ``shapes``, ``pairs``, ``triples``, ``spectra``: kernel mean embeddings of layers and runs of layers; the first
    three are multiplied by the learned transform that the spec names in ``weights``, if any. ``depths``: F - F_W around
    each relative depth, against the Marchenko-Pastur law of the same shapes, which shows the effect of training.
    ``layers``: log2 of one plus the number of layers.
    """
    found = embeddings(spectra, spec.seed)
    if spec.weights:
        found |= {name: found[name] @ matrix for name, matrix in transform(spec.weights).items()}
    found["depths"] = departures(spectra, spec).ravel()
    found["layers"] = np.array([np.log2(len(spectra) + 1)])
    return np.concatenate([WEIGHTS[name] / length * found[name] for name, length in LAYERED_BLOCKS.items()])


def points_of(spectra: Sequence[Spectrum]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Points and weights of each embedded block, before the columns are scaled."""
    layers = layers_of([spectrum.layer for spectrum in spectra])
    return {
        "shapes": shape_points(layers),
        "pairs": run_points(layers, 2),
        "triples": run_points(layers, 3),
        "spectra": spectral_points(spectra, layers),
    }


def embeddings(spectra: Sequence[Spectrum], seed: int) -> dict[str, NDArray[np.float64]]:
    """Each embedded block, (its length,), within [-1, 1], before transform and weight."""
    return {
        name: embed(scales_of(name) * columns, weights, LAYERED_BLOCKS[name], seed + SEEDS[name])
        for name, (columns, weights) in points_of(spectra).items()
    }


def departures(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """F - F_W by depth, (depths, locations), with triangular weights around each depth of the spec."""
    locations = np.array(spec.locations)
    shapes = np.array([sorted((spectrum.layer.p, spectrum.layer.q)) for spectrum in spectra])
    aspects, which = np.unique(shapes[:, 0] / shapes[:, 1], return_inverse=True)
    expected = marchenko_pastur_cumulative(aspects[:, None], locations)[which]
    departures = layer_cumulatives(spectra, locations, scale="proper") - expected
    return np.asarray(depth_weights(len(spectra), spec.depths) @ departures)


_VECTORS: dict[tuple[str, int], Callable[[Sequence[Spectrum], FingerprintSpec], NDArray[np.float64]]] = {
    ("mme", 1): _mme,
    ("layered", 3): _layered,
}
