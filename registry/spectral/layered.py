"""The fingerprint ``layered``: shapes and spectra resolved by depth; the default."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.wishart import marchenko_pastur_cumulative
from registry.spectral.base import FingerprintKind, logarithmic
from registry.spectral.cumulatives import depth_weights, layer_cumulatives
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
from registry.types import FingerprintSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

    Points = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = [
    "FINGERPRINT",
    "LAYERED",
    "LAYERED_BLOCKS",
    "SEEDS",
    "departures",
    "embedded",
    "embeddings",
    "points_of",
    "points_of_layers",
    "shape_embeddings",
]

LAYERED_BLOCKS = {"shapes": 90, "pairs": 120, "triples": 110, "spectra": 86, "depths": 72, "layers": 1}
"""Length of each block of ``layered``, in the order of the vector."""
SEEDS = {"shapes": 0, "pairs": 1, "triples": 3, "spectra": 2}
"""Offset added to the spec's seed for the features of each embedded block."""

LAYERED = FingerprintSpec(
    name="layered",
    version=3,
    matrix_rule="matrix-2",
    locations=logarithmic(1e-3, 10.0, 12),
    depths=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    length=90 + 120 + 110 + 86 + 72 + 1,
    reference="wishart",
    beta=1,
    weights="1",
)
"""The default fingerprint: resolved by depth, compared with Gaussian weights of the same topology.

A change of any number requires a new version, and so a new hash.
"""


def layered(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
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


def points_of_layers(layers: Sequence[LayerMatrix]) -> Points:
    """Points and weights of the embedded blocks that need no eigenvalues, before the columns are scaled."""
    columns = layers_of(layers)
    return {"shapes": shape_points(columns), "pairs": run_points(columns, 2), "triples": run_points(columns, 3)}


def points_of(spectra: Sequence[Spectrum]) -> Points:
    """Points and weights of each embedded block, before the columns are scaled."""
    layers = [spectrum.layer for spectrum in spectra]
    return {**points_of_layers(layers), "spectra": spectral_points(spectra, layers_of(layers))}


def embedded(points: Points, seed: int) -> dict[str, NDArray[np.float64]]:
    """Each of the blocks given as points, (its length,), within [-1, 1], before transform and weight."""
    return {
        name: embed(scales_of(name) * columns, weights, LAYERED_BLOCKS[name], seed + SEEDS[name])
        for name, (columns, weights) in points.items()
    }


def embeddings(spectra: Sequence[Spectrum], seed: int) -> dict[str, NDArray[np.float64]]:
    """Each embedded block, (its length,), within [-1, 1], before transform and weight."""
    layers = tuple(spectrum.layer for spectrum in spectra)
    return shape_embeddings(layers, seed) | embedded({"spectra": spectral_points(spectra, layers_of(layers))}, seed)


def shape_embeddings(layers: Sequence[LayerMatrix], seed: int) -> dict[str, NDArray[np.float64]]:
    """Those of the embedded blocks that need no eigenvalues; the last ones are kept, since two fingerprints ask."""
    return dict(_kept(tuple(layers), seed))


@lru_cache(maxsize=1)
def _kept(layers: tuple[LayerMatrix, ...], seed: int) -> dict[str, NDArray[np.float64]]:
    return embedded(points_of_layers(layers), seed)


def departures(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """F - F_W by depth, (depths, locations), with triangular weights around each depth of the spec."""
    locations = np.array(spec.locations)
    shapes = np.array([sorted((spectrum.layer.p, spectrum.layer.q)) for spectrum in spectra])
    aspects, which = np.unique(shapes[:, 0] / shapes[:, 1], return_inverse=True)
    expected = marchenko_pastur_cumulative(aspects[:, None], locations)[which]
    departures = layer_cumulatives(spectra, locations, scale="proper") - expected
    return np.asarray(depth_weights(len(spectra), spec.depths) @ departures)


FINGERPRINT = FingerprintKind(LAYERED, layered)
