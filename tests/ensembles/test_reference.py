from __future__ import annotations

from math import lcm

import numpy as np
import pytest

from registry.ensembles import (
    REFERENCES,
    Circular,
    Wishart,
    band,
    expected_cumulative,
    layer_references,
    periodic_cumulative,
    periodic_extension,
    reference,
    sampled_cumulative,
)
from registry.ensembles.circular import mixed_variance
from registry.errors import SpectrumError

X = np.concatenate(([0.0], np.geomspace(0.02, 5, 30)))
SHAPES = [(8, 27), (16, 72), (16, 72), (10, 16), (40, 40)]


@pytest.mark.parametrize("name", sorted(REFERENCES))
class TestContract:
    def test_samples_scatter_about_what_is_expected(self, name):
        expected = expected_cumulative(REFERENCES[name], SHAPES, X)
        members = sampled_cumulative(REFERENCES[name], SHAPES, X, seed=1, draws=600)
        assert members.shape == (600, X.size)
        assert (np.diff(members, axis=1) >= -1e-12).all()
        # Marchenko-Pastur is the limit of large orders: of a finite one the mean strays by less than 1 / 4n.
        bias = 0.0 if name != "wishart" else np.mean([0.25 / min(shape) for shape in SHAPES])
        assert (np.abs(members.mean(axis=0) - expected) < 4.5 * members.std(axis=0) / np.sqrt(600) + bias + 1e-9).all()
        assert members.std(axis=0).max() > 1e-3

    def test_seed_decides_and_the_order_of_layers_does_not(self, name):
        first = sampled_cumulative(REFERENCES[name], SHAPES, X, seed=3, draws=4)
        np.testing.assert_array_equal(first, sampled_cumulative(REFERENCES[name], SHAPES[::-1], X, seed=3, draws=4))
        assert (first != sampled_cumulative(REFERENCES[name], SHAPES, X, seed=4, draws=4)).any()
        width = band(REFERENCES[name], SHAPES, X, seed=3)
        assert width == band(REFERENCES[name], SHAPES[::-1], X, seed=3)
        assert width != band(REFERENCES[name], SHAPES, X, seed=4)

    @pytest.mark.parametrize("order", range(6))
    def test_expected_cumulatives_do_not_depend_on_the_order_of_layers(self, name, order):
        shapes = [(n, n + 7 * k) for n in (3, 5, 8, 13, 21, 34) for k in range(1 + n % 4)]
        turned = np.random.default_rng(order).permutation(len(shapes))
        mixed = [shapes[i] for i in turned]
        np.testing.assert_array_equal(
            expected_cumulative(REFERENCES[name], mixed, X), expected_cumulative(REFERENCES[name], shapes, X)
        )
        np.testing.assert_array_equal(
            layer_references(REFERENCES[name], mixed, X), layer_references(REFERENCES[name], shapes, X)[turned]
        )

    def test_layers_mix_to_the_network(self, name):
        expected = layer_references(REFERENCES[name], SHAPES, X)
        assert expected.shape == (len(SHAPES), X.size)
        np.testing.assert_allclose(
            expected.mean(axis=0), expected_cumulative(REFERENCES[name], SHAPES, X), rtol=0, atol=1e-14
        )
        drawn = layer_references(REFERENCES[name], SHAPES, X, seed=5)
        member = sampled_cumulative(REFERENCES[name], SHAPES, X, seed=5)[0]
        np.testing.assert_allclose(drawn.mean(axis=0), member, rtol=0, atol=1e-14)
        # Layers of one shape hold different draws.
        assert (drawn[1] != drawn[2]).any()

    def test_band_is_left_by_one_in_a_hundred(self, name):
        expected = expected_cumulative(REFERENCES[name], SHAPES, X)
        members = sampled_cumulative(REFERENCES[name], SHAPES, X, seed=77, draws=2000)
        suprema = np.abs(members - expected).max(axis=1)
        outside = float(np.mean([np.mean(suprema > band(REFERENCES[name], SHAPES, X, seed=s)) for s in range(6)]))
        # 299 draws scatter the rate by 0.6 % a seed, ties of small orders lower it.
        assert 0.002 < outside < 0.02
        half = float(
            np.mean([np.mean(suprema > band(REFERENCES[name], SHAPES, X, seed=s, level=0.5)) for s in range(6)])
        )
        assert 0.4 < half < 0.6

    def test_band_does_not_depend_on_what_was_asked_before(self, name):
        reference._pool.cache_clear()
        reference._suprema.cache_clear()
        alone = band(REFERENCES[name], SHAPES, X)
        reference._pool.cache_clear()
        reference._suprema.cache_clear()
        band(REFERENCES[name], [(16, 72), (5, 5)], X)
        assert band(REFERENCES[name], SHAPES, X) == alone

    def test_band_narrows_with_the_number_of_layers(self, name):
        one = band(REFERENCES[name], [(24, 48)], X)
        many = band(REFERENCES[name], [(24, 48)] * 25, X)
        # Five times, less what the expected law misses of finite orders.
        assert 2.5 < one / many < 5.5

    @pytest.mark.parametrize(
        "call",
        [
            lambda r: expected_cumulative(r, [], X),
            lambda r: expected_cumulative(r, [(0, 4)], X),
            lambda r: expected_cumulative(r, iter([(3, 4)]), X),
            lambda r: band(r, 3, X),
            lambda r: expected_cumulative(r, SHAPES, [1.0, 1.0]),
            lambda r: sampled_cumulative(r, SHAPES, X, draws=0),
            lambda r: sampled_cumulative(r, SHAPES, X, seed=-1),
            lambda r: layer_references(r, [], X),
            lambda r: band(r, [], X),
            lambda r: band(r, SHAPES, X, level=1.0),
            lambda r: band(r, SHAPES, X, level=0.0),
            lambda r: band(r, SHAPES, X, draws=50, level=0.99),
            lambda r: band(r, SHAPES, X, seed=-1),
            lambda r: band(r, SHAPES, X, seed=1.5),
            lambda r: sampled_cumulative(r, SHAPES, X, seed=None),
        ],
    )
    def test_bad_input(self, name, call):
        with pytest.raises(SpectrumError):
            call(REFERENCES[name])


@pytest.mark.parametrize("ask", [expected_cumulative, sampled_cumulative, layer_references, band])
def test_a_reference_that_is_only_named(ask):
    with pytest.raises(SpectrumError, match="must be a reference ensemble, not 'cue'") as refused:
        ask("cue", SHAPES, X)
    assert "registry.ensembles.REFERENCES" in refused.value.remedy


def test_expected_circular_is_uniform():
    np.testing.assert_array_equal(expected_cumulative(Circular(), SHAPES, [0.0, 0.5, 2.0, 7.0]), [0, 0.25, 1, 1])
    with pytest.raises(SpectrumError):
        Circular(beta=0)


@pytest.mark.parametrize("name", ["coe", "cue", "cse"])
def test_sampled_circular_scatters_as_its_number_variance(name):
    x = np.array([0.2, 1.0, 1.7, 2.0, 3.0])
    members = sampled_cumulative(REFERENCES[name], SHAPES, x, seed=2, draws=6000)
    theory = mixed_variance([p for p, _ in SHAPES], int(REFERENCES[name].beta), x)
    np.testing.assert_allclose(members.var(axis=0)[:3], theory[:3], rtol=0.1)
    np.testing.assert_array_equal(members[:, 3:], 1.0)


def test_locations_on_and_off_the_circle():
    np.testing.assert_array_equal(sampled_cumulative(Circular(), SHAPES, [0.0, 2.0]), [[0, 1]])
    np.testing.assert_array_equal(sampled_cumulative(Circular(), SHAPES, [3.0]), [[1]])


@pytest.mark.parametrize("shape", [(512, 512), (512, 2048)])
def test_large_orders_scatter_as_if_simulated(monkeypatch, shape):
    kind = Wishart().kind(shape)
    x = np.linspace(0.3, 2.0, 12)
    direct = Wishart().deviations(kind, x, np.random.default_rng(1), 250)
    monkeypatch.setattr(reference, "LARGEST_SIMULATED", 64)
    shrunk = Wishart().deviations(kind, x, np.random.default_rng(2), 250)
    ratio = np.sqrt((shrunk**2).mean() / (direct**2).mean())
    assert 0.85 < ratio < 1.2
    unshrunk = Wishart().deviations((64, kind[1] // 8), x, np.random.default_rng(2), 250)
    assert np.sqrt((unshrunk**2).mean() / (direct**2).mean()) > 4
    member = Wishart().expected([kind], x) + shrunk
    assert (np.diff(member, axis=1) >= -1e-12).all()


def test_periodic_extension_equals_the_plain_mean():
    rng = np.random.default_rng(3)
    spectra = [np.sort(rng.exponential(size=n)) for n in (2, 3, 7, 12)]
    x = np.linspace(0, 4, 50)
    plain = np.mean([np.searchsorted(s, x, side="right") / s.size for s in spectra], axis=0)
    np.testing.assert_allclose(periodic_cumulative(spectra, x), plain, rtol=0, atol=1e-14)
    extended = periodic_extension(spectra)
    assert [e.size for e in extended] == [12, 12, 14, 12]
    np.testing.assert_array_equal(extended[1][3:6], spectra[1])
    # Up to a common multiple, all weigh the same by their number alone; pooled as they are, they do not.
    pooled = np.sort(np.concatenate([np.tile(s, lcm(2, 3, 7, 12) // s.size) for s in spectra]))
    np.testing.assert_allclose(np.searchsorted(pooled, x, side="right") / pooled.size, plain, rtol=0, atol=1e-14)
    raw = np.sort(np.concatenate(spectra))
    assert np.abs(np.searchsorted(raw, x, side="right") / raw.size - plain).max() > 0.01


def test_periodic_extension_of_nothing():
    for spectra in ([], [[1.0], []], [[1.0], [np.nan]], [[1.0], ["a"]]):
        with pytest.raises(SpectrumError):
            periodic_extension(spectra)
