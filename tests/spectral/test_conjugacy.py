from __future__ import annotations

import numpy as np
import pytest

from registry.ensembles.wishart import largest_eigenvalues, wishart_cumulative
from registry.errors import SpectrumError
from registry.spectral.conjugacy import (
    BAND_LOCATIONS,
    DELTAS,
    TAIL_EDGE,
    conjugacy,
    conjugate_from,
    tail_edge,
    wishart_from,
)
from registry.spectral.cumulatives import cumulative
from tests.spectral.factory import by_hand, gaussian, of_weights, published_models

SHAPES = [(16, 27), (32, 144), (32, 144), (64, 288), (10, 64)]


def scanned(F, delta):
    """x*(delta) by brute force on a fine grid."""
    x = np.linspace(0, 60, 600_001)
    beyond = np.flatnonzero(np.abs(np.minimum(x / 2, 1) - F(x)) > delta)
    return x[beyond[-1] + 1] if beyond.size else 0.0


def test_location_by_hand():
    # Four of a hundred eigenvalues at 5, one at 20: from 5 on a hundredth is left, from 20 on nothing.
    spectra = [by_hand([0.6] * 95 + [5.0] * 4 + [20.0], 100, 100)]
    assert conjugate_from(spectra, (0.005, 0.01, 0.04, 0.05)) == (20.0, 5.0, 5.0, pytest.approx(1.8, abs=1e-9))
    # Alone at 1: F_c reaches F - delta at 2 (1 - delta).
    assert conjugate_from([by_hand([1.0, 1.0], 2, 2)], (0.05, 0.6)) == (pytest.approx(1.9, abs=1e-9), 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_location_equals_a_fine_scan(seed):
    rng = np.random.default_rng(seed)
    spectra = []
    for i in range(4):
        values = rng.pareto(2.5, size=int(rng.integers(2, 40))) + 0.1
        spectra.append(by_hand(np.sort(values / values.mean()), 40, values.size, i))
    found = conjugate_from(spectra, DELTAS)
    wanted = [scanned(lambda x: cumulative(spectra, x), delta) for delta in DELTAS]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1.1e-4)
    assert all(location <= max(2, 1 / delta) for location, delta in zip(found, DELTAS, strict=True))


@pytest.mark.parametrize("shapes", [SHAPES, [(40, 40)], [(9, 500), (500, 9), (300, 310)]])
def test_location_of_the_wishart_ensemble_equals_a_fine_scan(shapes):
    wanted = [scanned(lambda x: wishart_cumulative(shapes, x), delta) for delta in DELTAS]
    np.testing.assert_allclose(wishart_from(shapes, DELTAS), wanted, rtol=0, atol=1.1e-4)
    assert max(wanted) <= TAIL_EDGE


def test_gaussian_weights_are_untrained_and_heavy_tails_are_not():
    rng = np.random.default_rng(1)
    found = [conjugacy(gaussian(SHAPES, rng)) for _ in range(120)]
    assert np.mean([c.training_class == "trained" for c in found]) <= 0.04
    assert all(c.tail_class == "edge" for c in found)
    # Half of them lie beyond the middle of their band: the band is no wider than it must be.
    assert np.mean([c.z > 0.5 for c in found]) > 0.5
    heavy = [of_weights([rng.standard_t(1.5, size=s).astype(np.float32) for s in SHAPES]) for _ in range(10)]
    assert all(c.training_class == "trained" and c.tail_class == "long" for c in map(conjugacy, heavy))


def test_tiny_layers_stay_inside_the_band():
    rng = np.random.default_rng(2)
    for shapes in ([(2, 2)], [(2, 9), (3, 3)], [(8, 8)] * 3, [(4, 300)] * 6):
        networks = [gaussian(shapes, rng) for _ in range(150)]
        # The few values that small orders take make a single seed's rate anything from 0 to 3 %: 1 % is their mean.
        found = np.array([[conjugacy(spectra, seed=seed).z for spectra in networks] for seed in range(8)])
        assert np.mean(found > 1) < 0.03
        assert np.mean(found > 0.7) > 0.03


def test_low_rank_change_is_noticed():
    rng = np.random.default_rng(3)
    matrices = [rng.standard_normal(shape) for shape in SHAPES]
    learnt = [W + 3 * np.outer(rng.standard_normal(len(W)), rng.standard_normal(W.shape[1])) for W in matrices]
    assert conjugacy(of_weights(matrices)).training_class == "untrained"
    assert conjugacy(of_weights(learnt)).training_class == "trained"


def test_figures_are_reproducible_and_of_the_set_of_layers():
    spectra = gaussian(SHAPES, np.random.default_rng(4))
    found = conjugacy(spectra)
    assert found == conjugacy(spectra)
    for seed in range(5):
        turned = np.random.default_rng(seed).permutation(len(spectra))
        assert conjugacy([spectra[at] for at in turned]) == found
    assert conjugacy(spectra, seed=1).z != found.z
    assert conjugacy(spectra, seed=1).z == pytest.approx(found.z, rel=0.3)
    assert tuple(delta for delta, _ in found.tail) == DELTAS == tuple(delta for delta, _ in found.wishart_tail)
    large = conjugacy(gaussian([(200, 400), (300, 500), (256, 256)], np.random.default_rng(5)))
    for (_, own), (_, theirs) in zip(large.tail, large.wishart_tail, strict=True):
        assert own == pytest.approx(theirs, rel=0.03)


def test_band_locations():
    assert BAND_LOCATIONS.shape == (64,)
    assert (np.diff(BAND_LOCATIONS) > 0).all()
    np.testing.assert_allclose(BAND_LOCATIONS[[0, -1]], [1e-3, 8.2], rtol=0.02)


@pytest.fixture(scope="module")
def published():
    return published_models()


def test_trained_models_are_found_trained(published):
    found = [conjugacy(spectra) for spectra in published.values()]
    trained = np.mean([c.training_class == "trained" for c in found])
    tails = np.mean([c.tail_class == "long" for c in found])
    assert trained >= 0.94
    assert 0.80 <= tails <= 0.88


@pytest.mark.parametrize("initialisation", ["gaussian", "uniform"])
def test_initialised_models_of_their_shapes_are_not(published, initialisation):
    rng = np.random.default_rng(6)
    networks = [[(s.layer.p, s.layer.q) for s in spectra] for spectra in published.values()]
    found = []
    for shapes in networks:
        if initialisation == "gaussian":
            found.append(conjugacy(gaussian(shapes, rng)))
        else:
            found.append(conjugacy(of_weights([rng.random(s, dtype=np.float32) - np.float32(0.5) for s in shapes])))
    assert np.mean([c.training_class == "trained" for c in found]) <= 0.03
    assert [c.tail_class for c in found].count("long") == 0


def test_the_edge_of_networks_so_small_that_one_eigenvalue_decides():
    assert tail_edge(SHAPES) == tail_edge([(512, 512)]) == TAIL_EDGE
    short = [(16, 16), (32, 144), (100, 512), (10, 100)]
    assert TAIL_EDGE < tail_edge(short) == largest_eigenvalues([(16, 16)], 0.999)[0] < 6
    # The same layers in a network so deep that none of their eigenvalues weighs 0.01.
    assert tail_edge(short * 4) == TAIL_EDGE
    rng = np.random.default_rng(8)
    found = np.array([conjugate_from(gaussian(short, rng), [0.01])[0] for _ in range(3000)])
    # At most once in a thousand, by three deviations; the edge of large networks is passed by far more.
    assert np.mean(found > tail_edge(short)) <= 0.001 + 3 * np.sqrt(0.001 / 3000)
    assert np.mean(found > TAIL_EDGE) > 0.01


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_thresholds_outside_the_unit_interval(delta):
    with pytest.raises(SpectrumError, match="thresholds delta"):
        conjugate_from([by_hand([1.0, 1.0], 2, 2)], (0.5, delta))
    with pytest.raises(SpectrumError, match="thresholds delta"):
        wishart_from([(2, 2)], (delta,))


@pytest.mark.parametrize("spectra", [[], [by_hand([0.5, np.nan], 2, 2)], [by_hand([1.0], 2, 2)]])
def test_bad_spectra(spectra):
    with pytest.raises(SpectrumError):
        conjugacy(spectra)
