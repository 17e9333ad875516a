"""Bootstrap bands over layers, against exact distributions and the standard error of a mean."""

from __future__ import annotations

import numpy as np
import pytest

from registry.ensembles import REFERENCES
from registry.errors import SpectrumError
from registry.spectral import bootstrap
from registry.spectral.bootstrap import bootstrap_band
from registry.spectral.cumulatives import spectral_difference
from tests.spectral.factory import by_hand, gaussian

X = np.linspace(0.0, 4.0, 41)


def two_sided(count: int, rng: np.random.Generator):
    """Layers of order 2 with values 1 -+ u: at x <= 1 the cumulative is 0 or 1/2, at random."""
    return [by_hand([1 - u, 1 + u], 2, 5, i) for i, u in enumerate(rng.uniform(0.01, 0.99, count))]


def test_one_layer_has_no_band():
    spectra = [by_hand([0.5, 1.5], 2, 4)]
    lower, upper = bootstrap_band(spectra, X)
    np.testing.assert_array_equal(lower, upper)
    np.testing.assert_allclose(lower, spectral_difference(spectra, X))


def test_two_layers_give_the_three_means_that_there_are():
    # Means of two draws: both the first (1/4), both the second (1/4), one each (1/2).
    spectra = [by_hand([0.2, 1.8], 2, 4), by_hand([0.6, 1.4], 2, 4, 1)]
    layers = spectral_difference(spectra, X, by="layer")
    lower, upper = bootstrap_band(spectra, X, level=0.95)
    np.testing.assert_allclose(lower, layers.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(upper, layers.max(axis=0), atol=1e-12)
    lower, upper = bootstrap_band(spectra, X, level=0.4)
    np.testing.assert_allclose(lower, layers.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(upper, layers.mean(axis=0), atol=1e-12)


def widths_in_standard_errors(level: float) -> tuple[float, float]:
    """Distances of a band's edges from the mean at one location, in standard errors of a mean over 400 layers."""
    spectra = two_sided(400, np.random.default_rng(1))
    x = np.array([0.5])
    layers = spectral_difference(spectra, x, by="layer")[:, 0]
    lower, upper = bootstrap_band(spectra, x, level=level, resamples=4000)
    error = layers.std() / np.sqrt(len(layers))
    return float(layers.mean() - lower[0]) / error, float(upper[0] - layers.mean()) / error


def test_many_layers_give_the_standard_error_of_their_mean():
    # The 2.5 % quantile of 4000 normal numbers scatters by sqrt(.025 * .975 / 4000) / .0584 = .042 standard errors; the
    # steps of a count over 400 layers are 1 / 20 * 2 = .1 of them: .042 * 4 + .1 < .27.
    assert widths_in_standard_errors(0.95) == pytest.approx((1.96, 1.96), abs=0.27)
    # The control: the same tolerance tells another level.
    assert widths_in_standard_errors(0.8) != pytest.approx((1.96, 1.96), abs=0.27)
    assert widths_in_standard_errors(0.8) == pytest.approx((1.2816, 1.2816), abs=0.27)


def test_the_seed_decides_and_the_blocks_do_not(monkeypatch):
    spectra = two_sided(30, np.random.default_rng(2))
    first = bootstrap_band(spectra, X, seed=5)
    monkeypatch.setattr(bootstrap, "HELD", 3000)
    again, other = bootstrap_band(spectra, X, seed=5), bootstrap_band(spectra, X, seed=6)
    np.testing.assert_allclose(again, first, atol=1e-12)
    assert np.abs(np.subtract(other, first)).max() > 1e-3


def test_reference_and_scale_are_those_of_the_difference():
    spectra = gaussian([(12, 6)] * 8, np.random.default_rng(3))
    for scale, name, sample in (("full", "coe", None), ("full", "cue", 4), ("proper", "wishart", None)):
        settings = {"scale": scale, "reference": REFERENCES[name]}
        lower, upper = bootstrap_band(spectra, X, sample=sample, **settings)
        middle = spectral_difference(spectra, X, seed=sample, **settings)
        assert (lower <= middle + 1e-12).all()
        assert (middle <= upper + 1e-12).all()
        assert (upper - lower).max() > 0.01


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"level": np.nan}, {"seed": -1}, {"resamples": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(SpectrumError, match=r"level|seed|resamples"):
        bootstrap_band([by_hand([0.5, 1.5], 2, 4)], X, **wrong)
