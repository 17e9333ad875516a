"""Kernel mean embeddings: distances between them are maximum mean discrepancies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kstest

from registry.spectral.shipped_fingerprints import (
    COLUMNS,
    SCALES,
    _described,
    embed,
    fourier_features,
    layers_of,
    points_of,
    run_points,
    scales_of,
    shape_points,
    spectral_points,
)
from registry.types import LayerMatrix
from tests.fingerprints.factory import SHAPES, spectra_of, weights_of

FEATURES = 20_000


def discrepancy(a, u, b, v, width=1.0) -> float:
    """Squared maximum mean discrepancy of weighted points under a Gaussian kernel (Gretton et al. 2012)."""
    points = np.concatenate([a, b])
    weights = np.concatenate([u / u.sum(), -v / v.sum()])
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * width**2))
    return float(weights @ kernel @ weights)


def estimated(a, u, b, v, seed=0) -> float:
    """The same from random features: E[2 cos(w a + r) cos(w b + r)] is the kernel, so 2 / D times the squared norm."""
    return float(2 / FEATURES * ((embed(a, u, FEATURES, seed) - embed(b, v, FEATURES, seed)) ** 2).sum())


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_maximum_mean_discrepancies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 0.7, (9, 4)), rng.normal(0.5, 0.9, (6, 4))
    u, v = np.geomspace(0.01, 3, 9), rng.uniform(0.1, 2, 6)
    exact = discrepancy(a, u, b, v)
    # The mean of D squares, each of a relative deviation of about sqrt(2): 1 % of it, and five of those.
    tolerance = 5 * np.sqrt(2 / FEATURES) * exact
    assert abs(estimated(a, u, b, v, seed) - exact) < tolerance
    assert abs(discrepancy(a, u, b, v, width=2.0) - exact) > tolerance  # another kernel


def test_points_count_by_their_weights() -> None:
    points, mostly_one, mostly_other = np.array([[0.0], [3.0]]), np.array([9.0, 1.0]), np.array([1.0, 9.0])
    expected = 2 * 0.8**2 * (1 - np.exp(-4.5))
    assert discrepancy(points, mostly_one, points, mostly_other) == pytest.approx(expected)
    assert estimated(points, mostly_one, points, mostly_other) == pytest.approx(expected, rel=0.05)
    assert estimated(points, mostly_one, points, 7 * mostly_one) == pytest.approx(0, abs=1e-20)


def test_the_kernel_is_gaussian_at_every_distance() -> None:
    for distance in (0.0, 0.3, 1.0, 2.0, 5.0):
        a, b, one = np.zeros((1, 3)), np.full((1, 3), distance / np.sqrt(3)), np.ones(1)
        assert estimated(a, one, b, one) == pytest.approx(2 - 2 * np.exp(-(distance**2) / 2), abs=0.05)


def test_how_many_and_in_which_order_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    points, weights = rng.standard_normal((7, 3)), rng.uniform(0.5, 1, 7)
    plain = embed(points, weights, 50, 0)
    order = rng.permutation(7)
    np.testing.assert_allclose(embed(points[order], weights[order], 50, 0), plain, atol=1e-14)
    np.testing.assert_allclose(embed(np.repeat(points, 3, 0), np.repeat(weights, 3), 50, 0), plain, atol=1e-14)
    assert np.abs(plain).max() <= 1
    assert np.abs(embed(points, weights, 50, 1) - plain).max() > 0.1  # another seed, other features


def test_frequencies_are_normal_and_phases_uniform() -> None:
    frequencies, phases = fourier_features(7, 3000, 0)
    assert (frequencies.shape, phases.shape) == ((7, 3000), (3000,))
    assert kstest(frequencies.ravel(), "norm").pvalue > 0.01
    assert kstest(phases, "uniform", (0, 2 * np.pi)).pvalue > 0.01
    assert kstest(frequencies.ravel() * 1.1, "norm").pvalue < 1e-6  # the test sees 10 %
    # Independent of each other: 28 correlations of 3000 draws, each within 4.5 / sqrt(3000).
    correlations = np.corrcoef(np.vstack([frequencies, phases])) - np.eye(8)
    assert np.abs(correlations).max() < 4.5 / np.sqrt(3000)
    fourier_features.cache_clear()
    again, _ = fourier_features(7, 3000, 0)
    assert again.tobytes() == frequencies.tobytes()
    assert kstest(frequencies.ravel(), fourier_features(7, 3000, 1)[0].ravel()).pvalue > 0.01


def test_quantiles_are_numpys() -> None:
    from registry.spectral.shipped_fingerprints import _QUANTILES

    sizes = (1, 2, 3, 10, 257)
    spectra = [np.sort(np.random.default_rng(size).exponential(size=size)).astype(np.float32) for size in sizes]
    for values, described in zip(spectra, _described(spectra), strict=True):
        expected = np.log10(np.append(values[-1], np.quantile(values.astype(float), _QUANTILES)))
        np.testing.assert_allclose(described, expected, rtol=0, atol=1e-6)
    assert _described([np.array([0.0, 0.0, 3.0], np.float32)]).min() == -4.0  # below that is numerical noise


def test_layers_as_columns() -> None:
    layers = layers_of([spectrum.layer for spectrum in spectra_of(weights_of())])
    # SHAPES: a stem, a depthwise, a pointwise, two equal convolutions, a head.
    np.testing.assert_allclose(layers.depth, np.linspace(0, 1, 6))
    np.testing.assert_allclose(2.0**layers.p, [8, 8, 12, 12, 12, 10])
    np.testing.assert_allclose(2.0**layers.q, [27, 9, 8, 108, 108, 12])
    np.testing.assert_allclose(2.0**layers.kernel, [9, 9, 1, 9, 9, 1])
    np.testing.assert_allclose(2.0**layers.channels, [3, 1, 8, 12, 12, 12])
    np.testing.assert_array_equal(layers.dimensions, [4, 4, 4, 4, 4, 2])
    np.testing.assert_array_equal(layers.depthwise, [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(layers.repeats, [1, 1, 1, 2, 2, 1])
    assert layers_of([spectra_of(weights_of())[0].layer]).depth.tolist() == [0.0]


def test_points_and_their_weights() -> None:
    spectra = spectra_of(weights_of(SHAPES + SHAPES[3:5] * 7))
    layers = layers_of([spectrum.layer for spectrum in spectra])
    points, weights = shape_points(layers)
    assert points.shape == (20, 10)
    alike = layers.repeats == 16
    assert weights[alike].sum() == pytest.approx(4.0)  # n layers of one shape weigh n^1/2 together
    assert weights[~alike].tolist() == [1.0] * 4
    for length in (2, 3):
        points, weights = run_points(layers, length)
        assert points.shape == (21 - length, 9 * length)
        # Every distinct run once, whatever its depth.
        assert weights.sum() == pytest.approx(len({tuple(row) for row in points[:, :-1]}))
        assert run_points(layers_of([spectra[0].layer]), length)[0].shape == (1, 9 * length)
    assert spectral_points(spectra, layers)[0].shape == (20, 15)
    for name, (points, weights) in points_of(spectra).items():
        assert points.shape == (len(weights), len(COLUMNS[name])) == (len(weights), len(scales_of(name)))
        assert set(COLUMNS[name]) == set(SCALES[name])


def test_a_run_by_hand() -> None:
    # 3 channels to 8, 3 x 3; to 16 by 1 x 1; a linear layer that is an attention's, 16 to 4.
    made = [("conv", (8, 3, 3, 3)), ("conv", (16, 8, 1, 1)), ("attention", (4, 16))]
    layers = layers_of([LayerMatrix(i, f"{i}", f"{i}", shape, kind) for i, (kind, shape) in enumerate(made)])
    columns, weights = run_points(layers, 2)
    points = columns * scales_of("pairs")
    c = np.log2(3)
    # width; p/c of both; p'/p; c'/p; kernels; dimensions; depthwise; embedding, recurrent, attention; depth.
    first = [0.035 * (7 + c + 3), 0.2 * (3 - c), 0.2, 0.3, 0, 0.8 * np.log2(9), 0, 12, 12, *[0] * 8, 0]
    second = [0.035 * (4 + 3 + 2 + 4), 0.2, -0.4, -0.6, 0, 0, 0, 12, 6, *[0] * 7, 1.5, 0.3]
    np.testing.assert_allclose(points, [first, second], atol=1e-12)
    assert weights.tolist() == [1, 1]
    short = run_points(layers_of([LayerMatrix(0, "0", "0", (8, 3, 3, 3), "conv")]), 3)[0]
    assert (short[0, 1:4] == 3 - c).all()  # the one layer three times


@pytest.mark.parametrize("kind", ["embedding", "recurrent", "attention"])
def test_kinds_of_one_shape_are_told_apart(kind: str) -> None:
    plain, other = (layers_of([LayerMatrix(i, f"{i}", f"{i}", (8, 8), k) for i in range(3)]) for k in ("linear", kind))
    for points in (shape_points, lambda layers: run_points(layers, 2), lambda layers: run_points(layers, 3)):
        assert np.abs(embed(*points(plain), 100, 0) - embed(*points(other), 100, 0)).max() > 0.1


@pytest.mark.parametrize("length", [2, 3])
def test_a_wider_network_stays_near_in_its_runs(length: int) -> None:
    def embedded(width: int, build: tuple[tuple[int, ...], ...]) -> np.ndarray:
        shapes = [(p * width, c * width, k, k) for p, c, k in build]
        columns, weights = run_points(layers_of([s.layer for s in spectra_of(weights_of(shapes))]), length)
        return embed(columns * scales_of("pairs" if length == 2 else "triples"), weights, 160, 1)

    block = ((4, 2, 3), (4, 4, 1), (8, 4, 3), (8, 8, 1))
    plain, wide = embedded(1, block), embedded(2, block)
    other = embedded(1, ((8, 2, 1), (4, 8, 3), (4, 4, 3), (2, 4, 1)))
    assert np.abs(plain - wide).sum() < 0.5 * np.abs(plain - other).sum()
