"""Layers and consecutive layers as points, and distributions of points as vectors.

A kernel mean embedding (Smola et al. 2007) of a set of points by random Fourier features (Rahimi & Recht 2007): the
mean over points of cos(W^T y + b) estimates the mean of a Gaussian kernel, so that distances between embeddings measure
how differently two networks' layers are distributed, whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

__all__ = ["Layers", "embed", "layers_of", "pair_points", "shape_points", "spectral_points"]

# Quantiles of x that a layer is described by, and the x below which differences are numerical noise.
_QUANTILES = np.array([0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.93, 0.97, 0.99])
_FLOOR = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """A network's layers as columns, each float64 (L,).

    ``depth``: relative, in [0, 1]; ``p``, ``q``, ``kernel``, ``channels``: log2 of outputs, of the rest, of the
    kernel's area and of the input channels; ``dimensions``: of the tensor; ``depthwise``: 1 or 0; ``repeats``: how many
    layers have the same shape.
    """

    depth: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    kernel: NDArray[np.float64]
    channels: NDArray[np.float64]
    dimensions: NDArray[np.float64]
    depthwise: NDArray[np.float64]
    repeats: NDArray[np.float64]


def layers_of(layers: Sequence[LayerMatrix]) -> Layers:
    """The columns of layers in depth order; O(L)."""
    counts: dict[tuple[int, ...], int] = {}
    for layer in layers:
        counts[layer.shape] = counts.get(layer.shape, 0) + 1
    table = np.array(
        [
            (
                layer.p,
                layer.q,
                np.prod(layer.kernel, dtype=np.float64),
                layer.shape[1],
                len(layer.shape),
                len(layer.shape) > 2 and layer.shape[1] == 1,
                counts[layer.shape],
            )
            for layer in layers
        ],
        dtype=np.float64,
    ).T
    depth = np.linspace(0.0, 1.0, len(layers)) if len(layers) > 1 else np.zeros(1)
    return Layers(depth, *np.log2(table[:4]), *table[4:])


def shape_points(layers: Layers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (L, 7) and weights (L,): each layer by its depth and shape; n layers of one shape weigh n^1/2 together."""
    points = np.stack(
        [
            6.0 * layers.depth,
            0.12 * layers.p,
            0.25 * layers.q,
            0.7 * layers.kernel,
            0.3 * layers.channels,
            0.8 * layers.dimensions,
            1.5 * layers.depthwise,
        ],
        axis=1,
    )
    return points, layers.repeats**-0.5


def pair_points(layers: Layers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (L - 1, 12) and weights: consecutive layers by how widths change, hardly by how wide they are.

    Widths enter as ratios, log2 p'/p, log2 p/c, log2 c'/p, so that a network and its wider kin look alike; every
    distinct pair weighs the same however often a block repeats. A single layer is paired with itself.
    """
    first, second = (slice(None), slice(None)) if len(layers.depth) == 1 else (slice(None, -1), slice(1, None))
    p, c = layers.p, layers.channels
    columns = [
        0.035 * (p[first] + p[second] + c[first] + c[second]),
        0.3 * (p[second] - p[first]),
        0.2 * (p[first] - c[first]),
        0.2 * (p[second] - c[second]),
        0.3 * (c[second] - p[first]),
    ]
    for values, scale in ((layers.kernel, 0.8), (layers.dimensions, 3.0), (layers.depthwise, 2.5)):
        columns += [scale * values[first], scale * values[second]]
    widths = np.stack(
        [values[part] for values in (p, c, layers.kernel, layers.dimensions) for part in (first, second)], axis=1
    )
    _, inverse, counts = np.unique(widths, axis=0, return_inverse=True, return_counts=True)
    return np.stack([*columns, 0.6 * layers.depth[first]], axis=1), 1.0 / counts[inverse.ravel()]


def spectral_points(spectra: Sequence[Spectrum], layers: Layers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (L, 15) and weights (L,): each layer by its depth, its largest x, and 13 quantiles of x, in decades."""
    described = np.array([_described(spectrum.values) for spectrum in spectra])
    return np.concatenate([4.0 * layers.depth[:, None], 0.6 * described], axis=1), layers.repeats**-0.5


def _described(values: NDArray[np.float32]) -> NDArray[np.float64]:
    # Linear interpolation between order statistics (Hyndman & Fan 1996, type 7); the values are sorted already.
    place = _QUANTILES * (len(values) - 1)
    below = place.astype(np.intp)
    above = np.minimum(below + 1, len(values) - 1)
    share = place - below
    quantiles = values[below] * (1.0 - share) + values[above] * share
    return np.asarray(np.log10(np.maximum(np.append(values[-1], quantiles), _FLOOR)))


def embed(points: NDArray[np.float64], weights: NDArray[np.float64], features: int, seed: int) -> NDArray[np.float64]:
    """Weighted mean of ``features`` random Fourier features of a unit Gaussian kernel, (features,), each in [-1, 1]."""
    frequencies, phases = _frequencies(points.shape[1], features, seed)
    return np.asarray(weights @ np.cos(points @ frequencies + phases) / weights.sum())


def _frequencies(dimension: int, features: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard normal frequencies (dimension, features) and uniform phases (features,).

    From the bit generator's raw stream, which NumPy promises never to change (NEP 19), by Box & Muller (1958): a stored
    fingerprint must be computed alike by every version.
    """
    raw = np.random.PCG64(seed).random_raw((2 * dimension + 1) * features)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle, phase = np.split(uniform, [dimension * features, 2 * dimension * features])
    normal = np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)
    return normal.reshape(dimension, features), 2.0 * np.pi * phase
