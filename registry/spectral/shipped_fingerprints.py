"""The fingerprints that ship: ``layered``, the default; ``shapes``, its blocks that need no eigenvalues; and ``mme``.

``layered`` and ``shapes`` embed descriptors of layers and of runs of consecutive layers as vectors. A kernel mean
embedding (Smola et al. 2007) of a set of points by random Fourier features (Rahimi & Recht 2007): the mean over points
of cos(W^T y + b) estimates the mean of a Gaussian kernel, so that distances between embeddings measure how differently
two networks' layers are distributed, whatever their number. `SCALES` and `WEIGHTS` say what each column of the points
and each block counts for: all numbers of these fingerprints that were not derived.

``mme`` is the paper's: the cumulative spectral difference of the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles import Circular, expected_cumulative
from registry.ensembles.wishart import marchenko_pastur_cumulative
from registry.spectral.base import FingerprintKind, logarithmic
from registry.spectral.cumulatives import cumulative, depth_weights, layer_cumulatives
from registry.spectral.learned_transform import transform
from registry.types import FingerprintSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

    Points = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = [
    "COLUMNS",
    "LAYERED",
    "LAYERED_BLOCKS",
    "LAYERED_KIND",
    "MME",
    "MME_KIND",
    "SCALES",
    "SEEDS",
    "SHAPES",
    "SHAPES_BLOCKS",
    "SHAPES_KIND",
    "WEIGHTS",
    "Layers",
    "departures",
    "embed",
    "embedded",
    "embeddings",
    "fourier_features",
    "layered",
    "layers_of",
    "mme",
    "points_of",
    "points_of_layers",
    "run_points",
    "scales_of",
    "shape_embeddings",
    "shape_points",
    "spectral_points",
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

SHAPES_BLOCKS = {name: LAYERED_BLOCKS[name] for name in ("shapes", "pairs", "triples", "layers")}
"""Length of each block of ``shapes``, in the order of the vector; their numbers are those of ``layered``."""

SHAPES = FingerprintSpec(
    name="shapes",
    version=1,
    matrix_rule=LAYERED.matrix_rule,
    length=sum(SHAPES_BLOCKS.values()),
    seed=LAYERED.seed,
    weights=LAYERED.weights,
    uses=("matrix_rule", "length", "seed", "weights"),
)
"""The fingerprint of models whose weights were not read; it tells families apart, and no two trainings."""

MME = FingerprintSpec(
    name="mme", version=1, matrix_rule="matrix-2", locations=logarithmic(1e-3, 1e2, 64), length=64, reference="circular"
)
"""The paper's fingerprint: cCSD of the whole network against the conjugate circular ensemble, `full` scale.

A change of any number requires a new version, and so a new hash.
"""

# Quantiles of x that describe a layer, and the x below which differences are numerical noise.
_QUANTILES = np.array([0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.93, 0.97, 0.99])
_FLOOR = 1e-4
# Kinds that shapes do not distinguish; convolutions differ by their dimensions, depthwise ones by their channels.
_KINDS = ("embedding", "recurrent", "attention")


def _of_runs(length: int) -> tuple[str, ...]:
    each = ("kernel", "dimensions", "depthwise", "kind", "kind", "kind")
    steps = ("step", "entry")
    return (
        "width",
        *["ratio"] * length,
        *[name for name in steps for _ in range(length - 1)],
        *[name for name in each for _ in range(length)],
        "depth",
    )


COLUMNS: dict[str, tuple[str, ...]] = {
    "shapes": ("depth", "p", "q", "kernel", "channels", "dimensions", "depthwise", "kind", "kind", "kind"),
    "pairs": _of_runs(2),
    "triples": _of_runs(3),
    "spectra": ("depth", *["x"] * 14),
}
"""Which property each column of a block's points holds. Of runs: ``width`` is the sum of all log2 p
and log2 c, ``ratio`` log2 p/c of each layer, ``step`` log2 p'/p and ``entry`` log2 c'/p from one layer to the next."""

SCALES: dict[str, dict[str, float]] = {
    "shapes": {
        "depth": 6.0,
        "p": 0.12,
        "q": 0.25,
        "kernel": 0.7,
        "channels": 0.3,
        "dimensions": 0.8,
        "depthwise": 1.5,
        "kind": 1.5,
    },
    "pairs": {
        "width": 0.035,
        "ratio": 0.2,
        "step": 0.3,
        "entry": 0.3,
        "kernel": 0.8,
        "dimensions": 3.0,
        "depthwise": 2.5,
        "kind": 1.5,
        "depth": 0.6,
    },
    # The longer the run, the more columns of one property lie between two of them.
    "triples": {
        "width": 0.07 / 3,
        "ratio": 0.2,
        "step": 0.3,
        "entry": 0.3,
        "kernel": 0.6,
        "dimensions": 2.25,
        "depthwise": 1.875,
        "kind": 1.125,
        "depth": 0.6,
    },
    "spectra": {"depth": 4.0, "x": 0.6},
}
"""What a unit of each property counts for, the Gaussian kernel having unit width."""

WEIGHTS: dict[str, float] = {
    "shapes": 0.75,
    "pairs": 1.0,
    "triples": 0.4,
    "spectra": 0.56,
    "depths": 0.7,
    "layers": 0.035,
}
"""What a block's mean absolute difference counts for in the L1 distance, and its order in the vector."""


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


def shapes_of_layers(layers: Sequence[LayerMatrix], spec: FingerprintSpec) -> NDArray[np.float64]:
    """Four blocks, each as in ``layered``: ``shapes``, ``pairs``, ``triples`` and ``layers``."""
    found = shape_embeddings(layers, spec.seed)
    if spec.weights:
        found |= {name: found[name] @ matrix for name, matrix in transform(spec.weights).items()}
    found["layers"] = np.array([np.log2(len(layers) + 1)])
    return np.concatenate([WEIGHTS[name] / length * found[name] for name, length in SHAPES_BLOCKS.items()])


def shapes_of_spectra(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """As `shapes_of_layers`: the eigenvalues are not used."""
    return shapes_of_layers([spectrum.layer for spectrum in spectra], spec)


def mme(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """CCSD(x) = F_c(x) - F(x) at the spec's locations, `full` scale (arXiv:2006.13687, definition 3).

    The L1 distance of two networks times the spacing of log x is the Wasserstein-1 distance of log x between their
    mixed ensembles, censored at the outer locations.
    """
    locations = np.array(spec.locations)
    shapes = [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
    expected = expected_cumulative(Circular(spec.beta), shapes, locations)
    return expected - cumulative(spectra, locations, scale="full")


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Properties of a network's layers as columns, each float64 (L,).

    ``depth``: relative depth in [0, 1]. ``p``, ``q``, ``kernel``, ``channels``: log2 of the outputs, of the product of
    the other extents, of the kernel's area and of the input channels. ``dimensions``: number of dimensions of the
    tensor. ``depthwise``: 1 or 0. ``repeats``: number of layers with the same shape. ``kinds``: 1 or 0 for each of
    embedding, recurrent and attention, (3, L).
    """

    depth: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    kernel: NDArray[np.float64]
    channels: NDArray[np.float64]
    dimensions: NDArray[np.float64]
    depthwise: NDArray[np.float64]
    repeats: NDArray[np.float64]
    kinds: NDArray[np.float64]


def layers_of(layers: Sequence[LayerMatrix]) -> Layers:
    """Columns of the layers, given in depth order; O(L)."""
    counts: dict[tuple[int, ...], int] = {}
    for layer in layers:
        counts[layer.shape] = counts.get(layer.shape, 0) + 1
    table = np.array(
        [
            (
                layer.p,
                layer.q,
                prod(layer.kernel),
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
    p, q, kernel, channels = np.log2(table[:4])
    dimensions, depthwise, repeats = table[4:]
    kinds = np.array([[layer.kind == kind for layer in layers] for kind in _KINDS], dtype=np.float64)
    return Layers(depth, p, q, kernel, channels, dimensions, depthwise, repeats, kinds)


def shape_points(layers: Layers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (L, 10) and weights (L,): depth, shape and kind of each layer.

    The n layers of one shape have a total weight of n^1/2.
    """
    columns = [
        layers.depth,
        layers.p,
        layers.q,
        layers.kernel,
        layers.channels,
        layers.dimensions,
        layers.depthwise,
        *layers.kinds,
    ]
    return np.stack(columns, axis=1), layers.repeats**-0.5


def run_points(layers: Layers, length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights of runs of ``length`` consecutive layers, described by how widths change.

    Points (L - length + 1, 9 length) and weights. Widths enter as ratios, log2 p/c within a layer, log2 p'/p and log2
    c'/p between consecutive layers, so that a network and a wider version of it are similar. Every distinct run has the
    same weight, however often it repeats. The last layer stands for the layers that a shorter network lacks.
    """
    count = len(layers.depth)
    places = np.minimum(np.arange(max(count - length + 1, 1)) + np.arange(length)[:, None], count - 1)
    p, c, kernel, dimensions = (v[places] for v in (layers.p, layers.channels, layers.kernel, layers.dimensions))
    columns = [
        (p + c).sum(axis=0, keepdims=True),
        p - c,
        p[1:] - p[:-1],
        c[1:] - p[:-1],
        kernel,
        dimensions,
        layers.depthwise[places],
        *layers.kinds[:, places],
        layers.depth[places[:1]],
    ]
    widths = np.concatenate([p, c, kernel, dimensions])
    _, inverse, counts = np.unique(widths, axis=1, return_inverse=True, return_counts=True)
    return np.concatenate(columns).T, 1.0 / counts[inverse.ravel()]


def spectral_points(spectra: Sequence[Spectrum], layers: Layers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (L, 15) and weights (L,): depth, largest x and 13 quantiles of x of each layer, x in decades."""
    described = _described([spectrum.values for spectrum in spectra])
    return np.concatenate([layers.depth[:, None], described], axis=1), layers.repeats**-0.5


def _described(spectra: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Logarithms of the largest value of each spectrum and of its quantiles, (L, 14)."""
    # Linear interpolation between order statistics (Hyndman & Fan 1996, type 7); the values are already sorted.
    values = np.concatenate(spectra)
    sizes = np.array([len(each) for each in spectra])[:, None]
    starts = np.cumsum(sizes)[:, None] - sizes
    place = _QUANTILES * (sizes - 1)
    below = place.astype(np.intp)
    above = np.minimum(below + 1, sizes - 1)
    share = place - below
    quantiles = values[starts + below] * (1.0 - share) + values[starts + above] * share
    largest = values[starts + sizes - 1]
    return np.asarray(np.log10(np.maximum(np.concatenate((largest, quantiles), axis=1), _FLOOR)))


def embed(points: NDArray[np.float64], weights: NDArray[np.float64], features: int, seed: int) -> NDArray[np.float64]:
    """Weighted mean of ``features`` random Fourier features of a unit Gaussian kernel, (features,), within [-1, 1]."""
    frequencies, phases = fourier_features(points.shape[1], features, seed)
    return np.asarray(weights @ np.cos(points @ frequencies + phases) / weights.sum())


@lru_cache(maxsize=16)
def fourier_features(dimension: int, features: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard normal frequencies (dimension, features) and uniform phases (features,).

    Each group of ``dimension`` consecutive frequencies is orthogonal, which keeps the distribution of each frequency
    and reduces the variance of the estimate (Yu et al. 2016). Numbers come from the raw stream of the bit generator,
    which NumPy promises not to change (NEP 19), by the method of Box & Muller (1958), so that all versions compute
    equal fingerprints. The last ones are kept, since each network asks for the same; they are read-only.
    """
    bases = -(-features // dimension)
    count = bases * dimension * dimension
    raw = np.random.PCG64(seed).random_raw(4 * count + features)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle, phase = np.split(uniform, [2 * count, 4 * count])
    normal = np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)
    directions, lengths = normal.reshape(2, bases, dimension, dimension)
    orthogonal, upper = np.linalg.qr(directions)
    # With a positive diagonal, QR is unique and Q uniform over rotations (Mezzadri 2007).
    orthogonal = orthogonal * np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None]
    scaled = orthogonal * np.sqrt((lengths**2).sum(axis=1, keepdims=True))
    frequencies = scaled.transpose(1, 0, 2).reshape(dimension, -1)[:, :features]
    found = np.ascontiguousarray(frequencies), 2.0 * np.pi * phase
    for each in found:
        each.flags.writeable = False
    return found


def scales_of(block: str, scales: Mapping[str, Mapping[str, float]] = SCALES) -> NDArray[np.float64]:
    """The factor of each column of a block's points, (columns,)."""
    return np.array([scales[block][name] for name in COLUMNS[block]])


LAYERED_KIND = FingerprintKind(LAYERED, layered)
SHAPES_KIND = FingerprintKind(SHAPES, shapes_of_spectra, shapes_of_layers)
MME_KIND = FingerprintKind(MME, mme)
