"""Spacing ratios and Gaussian spectra on either scale, against dense matrices and theory."""

from __future__ import annotations

import numpy as np
import pytest

from registry.ensembles import REFERENCES, expected_cumulative
from registry.ensembles.circular import SPACING_RATIOS
from registry.errors import SpectrumError
from registry.spectral.cumulatives import cumulative
from registry.spectral.gaussian import gaussian_cumulative
from registry.spectral.spacing import spacing_ratio
from tests.spectral.factory import gaussian


def test_ratios_by_hand():
    assert spacing_ratio([3, 0, 1]).mean == 0.5
    found = spacing_ratio([0, 1, 3, 7])
    assert found == pytest.approx((0.5, 0.0))
    assert np.isnan(spacing_ratio([0, 1, 3]).error)
    assert spacing_ratio([2, 2, 2, 3]).mean == 0.0
    assert spacing_ratio([0, 1, 4])[0] == spacing_ratio([0, 10, 40])[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([1, 2], r"at least three eigenvalues, not one of shape \(2,\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([0, 1, np.nan], "must be finite, not nan"),
        ([0, "a", 2], "must be numbers, not"),
    ],
)
def test_ratios_need_three_finite_values(wrong, words):
    with pytest.raises(SpectrumError, match=words):
        spacing_ratio(wrong)


def test_real_gaussian_weights_repel_as_beta_1_and_independent_numbers_do_not():
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [[spacing_ratio(np.linalg.svd(rng.standard_normal((200, 300)), compute_uv=False) ** 2)] for _ in range(20)]
    )
    numbers = np.array([spacing_ratio(rng.random(200)) for _ in range(20)])
    for found, beta in ((weights, 1), (numbers, 0)):
        # 20 x 198 ratios of spread .27: standard error .0044, four of them.
        assert found[:, 0].mean() == pytest.approx(SPACING_RATIOS[beta], abs=0.018)
        # Each stated error is of its own mean.
        assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.5)
    for beta in (0, 2, 4):
        assert abs(weights[:, 0].mean() - SPACING_RATIOS[beta]) > 0.05


SHAPES = [(64, 64), (96, 32), (96, 32), (40, 200)]


def test_gaussian_cumulative_is_that_of_dense_matrices_on_both_scales():
    x = np.linspace(0, 9, 91)
    rng = np.random.default_rng(1)
    spectra = gaussian([shape for shape in SHAPES for _ in range(20)], rng)
    for scale in ("proper", "full"):
        found = gaussian_cumulative(SHAPES, x, scale)
        # Finite orders leave the law by O(1 / n) at the edges, n >= 32; counts of 80 matrices scatter by less.
        np.testing.assert_allclose(found, cumulative(spectra, x, scale), atol=0.012)
    assert np.abs(gaussian_cumulative(SHAPES, x, "full") - gaussian_cumulative(SHAPES, x)).max() > 0.1


def test_gaussian_cumulative_has_mean_1_and_counts_structural_zeros():
    x = np.linspace(0, 15, 30_001)
    for scale in ("proper", "full"):
        F = gaussian_cumulative(SHAPES, x, scale)
        assert np.trapezoid(1 - F, x) == pytest.approx(1, abs=1e-4)
    zeros = np.mean([1 - min(shape) / shape[0] for shape in SHAPES])
    assert gaussian_cumulative(SHAPES, [0.0], "full")[0] == pytest.approx(zeros)
    np.testing.assert_allclose(
        gaussian_cumulative(SHAPES, x), expected_cumulative(REFERENCES["wishart"], SHAPES, x), atol=1e-12
    )


def test_an_unknown_scale_is_refused():
    with pytest.raises(SpectrumError, match="proper or full"):
        gaussian_cumulative(SHAPES, [1.0], "half")
