from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.ensembles import REFERENCES, expected_cumulative, sampled_cumulative
from registry.errors import SpectrumError
from registry.spectral import conjugacy, contrast
from registry.spectral.cumulatives import (
    cumulative,
    density_difference,
    depth_weights,
    layer_cumulative,
    layer_cumulatives,
    linear_locations,
    logarithmic_locations,
    spectral_difference,
)
from tests.spectral.factory import by_hand, gaussian, of_weights

# Sums of eigenvalues are exact in float32: mean 1 each.
HAND = [by_hand([0.5, 1.5], 2, 3, 0), by_hand([0.25, 0.25, 2.5], 6, 3, 1)]
X = np.array([0.125, 0.25, 0.5, 1.0, 2.0, 2.5, 4.0])


def test_by_hand():
    np.testing.assert_array_equal(layer_cumulative(HAND[0], X), [0, 0, 0.5, 0.5, 1, 1, 1])
    np.testing.assert_array_equal(layer_cumulative(HAND[1], X), np.array([0, 2, 2, 2, 2, 3, 3]) / 3)
    # On the full scale, half of the second layer's order is structural zeros, and x is twice as large.
    np.testing.assert_array_equal(layer_cumulative(HAND[1], X, "full"), np.array([3, 3, 5, 5, 5, 5, 5]) / 6)
    np.testing.assert_array_equal(layer_cumulative(HAND[1], [5.0], "full"), [1])
    mean = np.array([0, 1 / 3, (0.5 + 2 / 3) / 2, (0.5 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1, 1])
    np.testing.assert_allclose(cumulative(HAND, X), mean, rtol=0, atol=1e-16)
    np.testing.assert_allclose(spectral_difference(HAND, X), np.minimum(X / 2, 1) - mean, rtol=0, atol=2.3e-16)
    # Counting eigenvalues instead of layers would not do.
    pooled = np.searchsorted(np.sort(np.concatenate([s.values for s in HAND])), X, side="right") / 5
    assert np.abs(pooled - mean).max() > 0.01


def test_full_scale_is_of_all_eigenvalues_of_the_product():
    rng = np.random.default_rng(1)
    W = rng.standard_normal((12, 5)).astype(np.float32)
    values = np.linalg.eigvalsh(W.astype(float) @ W.T.astype(float))
    x = np.linspace(1e-6, 8, 300)
    full = np.searchsorted(values / values.mean(), x, side="right") / 12
    (spectrum,) = of_weights([W])
    np.testing.assert_array_equal(layer_cumulative(spectrum, x, "full"), full)
    (transposed,) = of_weights([W.T])
    np.testing.assert_array_equal(layer_cumulative(transposed, x), layer_cumulative(spectrum, x))
    assert (layer_cumulative(transposed, x, "full") != layer_cumulative(spectrum, x, "full")).any()


def test_scaling_layers_by_powers_of_two_and_permuting_units():
    rng = np.random.default_rng(2)
    matrices = [rng.standard_normal(shape).astype(np.float32) for shape in [(8, 9), (20, 8), (5, 20)]]
    x = logarithmic_locations(1e-2, 10, 40)
    wanted = spectral_difference(of_weights(matrices), x)
    units = rng.permutation(20)
    same = [matrices[0] * 8, matrices[1][units], matrices[2][:, units] / 4]
    np.testing.assert_array_equal(spectral_difference(of_weights(same), x), wanted)
    # Scaling single units is no symmetry of the spectrum, though it may be one of the network.
    rescaled = [matrices[0], matrices[1] * np.linspace(1, 4, 20, dtype=np.float32)[:, None], matrices[2]]
    assert np.abs(spectral_difference(of_weights(rescaled), x) - wanted).max() > 0.01


@pytest.mark.parametrize("scale", ["proper", "full"])
def test_periodic_extension_is_the_plain_mean(scale):
    spectra = gaussian([(3, 5), (7, 4), (12, 12)], np.random.default_rng(3))
    x = linear_locations(0.01, 5, 80)
    np.testing.assert_allclose(
        cumulative(spectra, x, scale, periodic=True), cumulative(spectra, x, scale), rtol=0, atol=1e-14
    )


def test_resolved_by_layer_and_depth():
    spectra = gaussian([(6, 9), (9, 6), (4, 4), (30, 10), (5, 5)], np.random.default_rng(4))
    x = logarithmic_locations(0.01, 10, 12)
    layers = spectral_difference(spectra, x, by="layer")
    assert layers.shape == (5, 12)
    np.testing.assert_allclose(layers.mean(axis=0), spectral_difference(spectra, x), rtol=0, atol=1e-15)
    np.testing.assert_array_equal(np.minimum(x / 2, 1) - layers, layer_cumulatives(spectra, x))
    depths = spectral_difference(spectra, x, by="depth", depths=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(depths[0], (layers[0] + 0.5 * layers[1]) / 1.5, rtol=0, atol=1e-15)
    np.testing.assert_allclose(depths[1], (0.5 * layers[1] + layers[2] + 0.5 * layers[3]) / 2, rtol=0, atol=1e-15)
    assert np.abs(depths - spectral_difference(spectra[::-1], x, by="depth", depths=(0.0, 0.5, 1.0))).max() > 0.01


@given(st.integers(1, 40), st.lists(st.floats(0, 1), min_size=1, max_size=6, unique=True))
def test_depth_weights_are_means(layers, depths):
    nodes = sorted(depths)
    weights = depth_weights(layers, nodes)
    assert weights.shape == (len(nodes), layers)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)


def test_depth_weights_of_few_layers():
    np.testing.assert_array_equal(depth_weights(1, (0.0, 0.5, 1.0)), [[1], [1], [1]])
    np.testing.assert_array_equal(depth_weights(2, (0.0, 0.5, 1.0)), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(depth_weights(4, (0.3,)), [[0.25] * 4])
    for layers, depths in ((0, (0.5,)), (3, ()), (3, (0.5, 0.2)), (3, (0.5, 1.5)), (3, (-0.1,))):
        with pytest.raises(SpectrumError):
            depth_weights(layers, depths)


def test_against_sampled_and_wishart_references():
    shapes = [(6, 9), (9, 6), (9, 6)]
    spectra = gaussian(shapes, np.random.default_rng(5))
    x = linear_locations(0.1, 3.5, 20)
    F = cumulative(spectra, x)
    for name in REFERENCES:
        reference = REFERENCES[name]
        np.testing.assert_allclose(
            spectral_difference(spectra, x, reference=reference),
            expected_cumulative(reference, shapes, x) - F,
            atol=1e-14,
        )
        sampled = spectral_difference(spectra, x, reference=reference, seed=3)
        np.testing.assert_allclose(sampled, sampled_cumulative(reference, shapes, x, seed=3)[0] - F, atol=1e-14)
        assert (sampled != spectral_difference(spectra, x, reference=reference, seed=4)).any()
    with pytest.raises(SpectrumError, match="not defined on the full scale"):
        spectral_difference(spectra, x, reference=REFERENCES["wishart"], scale="full")


def test_density_difference_integrates_to_the_cumulative():
    spectra = gaussian([(6, 9), (9, 60)], np.random.default_rng(6))
    edges = linear_locations(0, 4, 41)
    density = density_difference(spectra, edges)
    values = np.sort(spectra[0].values)
    histogram = np.histogram(values, edges)[0] / values.size / 0.1
    np.testing.assert_allclose(
        density_difference(spectra[:1], edges), histogram - np.where(edges[:-1] < 2 - 1e-9, 0.5, 0), atol=1e-12
    )
    tails = np.cumsum((density * np.diff(edges))[::-1])[::-1]
    np.testing.assert_allclose(tails, spectral_difference(spectra, edges)[:-1], atol=1e-12)


def test_locations():
    np.testing.assert_allclose(linear_locations(0, 2, 5), [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(logarithmic_locations(0.01, 100, 5), [0.01, 0.1, 1, 10, 100])
    for start, stop, count in ((1, 1, 5), (2, 1, 5), (0, np.inf, 5), (0, 1, 1), (-1, 1, 5)):
        for rule in (linear_locations, logarithmic_locations):
            with pytest.raises(SpectrumError):
                rule(start, stop, count)
    with pytest.raises(SpectrumError, match="above 0"):
        logarithmic_locations(0, 1, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cumulative([], X), "no layers"),
        (lambda: cumulative([], X, periodic=True), "no layers"),
        (lambda: spectral_difference([], X), "no layers"),
        (lambda: cumulative(HAND, [1.0, 0.5]), "0.5 follows 1"),
        (lambda: cumulative(HAND, [0.0, np.nan]), "nan"),
        (lambda: cumulative(HAND, []), "at least one"),
        (lambda: cumulative(HAND, [-1.0]), "-1"),
        (lambda: cumulative(HAND, X, "half"), "'half'"),
        (lambda: cumulative(HAND, X, "half", periodic=True), "'half'"),
        (lambda: layer_cumulative(by_hand([0.5, np.nan], 2, 2), X), "eigenvalue nan"),
        (lambda: layer_cumulative(by_hand([0.5, np.inf], 2, 2), X), "eigenvalue inf"),
        (lambda: layer_cumulative(by_hand([-0.5, 1.0], 2, 2), X), "eigenvalue -0.5"),
        (lambda: layer_cumulative(by_hand([1.5, 0.5], 2, 2), X), "layer0 must ascend: 0.5 follows 1.5"),
        (lambda: layer_cumulative(by_hand([1.5, np.nan, 0.5], 3, 3), X), "eigenvalue nan"),
        (lambda: layer_cumulative(by_hand([1.0], 2, 2), X), "\\(2, 2\\)"),
        (lambda: layer_cumulative(by_hand([], 2, 2), X), "shape \\(0,\\)"),
        (lambda: spectral_difference(HAND, [3.0, 4.0]), "from 3 on miss the spectrum, which ends at 2.5"),
        (lambda: spectral_difference(HAND, [0.1, 0.2]), "up to 0.2 miss the spectrum, which begins at 0.25"),
        (lambda: spectral_difference(HAND, X, by="unit"), "'unit'"),
        (lambda: spectral_difference(HAND, X, by="depth"), "depths"),
        (lambda: spectral_difference(HAND, X, depths=(0.5,)), "depths"),
        (lambda: spectral_difference(HAND, X, by="depth", depths=(0.5, 2.0)), "2"),
        (lambda: spectral_difference(HAND, X, seed=-1), "-1"),
        (lambda: density_difference(HAND, [1.0]), "two edges"),
        (lambda: spectral_difference(HAND, X, reference="cue"), "must be a reference ensemble, not 'cue'"),
        (lambda: density_difference(HAND, X, reference=None), "must be a reference ensemble, not None"),
        (lambda: spectral_difference(HAND, X, by="depth", depths=["deep"]), "depths must be numbers"),
        (lambda: spectral_difference(HAND, X, seed="a"), "seed must be an integer, not 'a'"),
        (lambda: spectral_difference(HAND[0], X), "spectra must be a list, one a layer, not Spectrum"),
        (lambda: spectral_difference([np.eye(3)], X), "a list of Spectrum, one a layer, not of ndarray"),
        (lambda: linear_locations("0", 1, 3), "locations must be numbers, not \\['0', 1\\]"),
        (lambda: logarithmic_locations(None, 1, 3), "locations must be numbers, not \\[None, 1\\]"),
        (lambda: conjugacy(None), "spectra must be a list, one a layer, not NoneType"),
        (lambda: contrast(HAND, HAND[0]), "spectra must be a list, one a layer, not Spectrum"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(SpectrumError, match=words):
        call()
