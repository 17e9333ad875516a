from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from registry.ensembles.wishart import (
    _chi_squares,
    _counts_below,
    largest_score,
    marchenko_pastur_cumulative,
    marchenko_pastur_density,
    marchenko_pastur_edges,
    sample_cumulative,
    wishart_cumulative,
)
from registry.errors import SpectrumError


def gaussian_cumulative(p, q, locations, rng):
    """F of one Gaussian matrix by dense diagonalisation, over eigenvalues that are not structural zeros."""
    weights = rng.standard_normal((p, q))
    values = np.linalg.svd(weights, compute_uv=False) ** 2
    return np.searchsorted(np.sort(values / values.mean()), locations, side="right") / values.size


@pytest.mark.parametrize("aspect", [1e-3, 0.1, 0.5, 1.0])
def test_cumulative_is_the_integral_of_the_density(aspect):
    low, high = marchenko_pastur_edges(aspect)
    for x in np.linspace(low, high, 7)[1:]:
        # y = sqrt x takes the hard edge's x^{-1/2} out of the integral at c = 1.
        integral, error = integrate.quad(
            lambda y: 2 * y * float(marchenko_pastur_density(aspect, y * y)), np.sqrt(low), np.sqrt(x), limit=200
        )
        assert abs(integral - marchenko_pastur_cumulative(aspect, x)) < 1e-7 + error
    mean, _ = integrate.quad(lambda x: x * float(marchenko_pastur_density(aspect, x)), low, high, limit=200)
    square, _ = integrate.quad(lambda x: x * x * float(marchenko_pastur_density(aspect, x)), low, high, limit=200)
    assert mean == pytest.approx(1, abs=1e-6)
    assert square - mean**2 == pytest.approx(aspect, abs=1e-6)


def test_limits_of_the_law():
    x = np.array([0.0, 0.2, 3.9, 4.0, 50.0])
    np.testing.assert_array_equal(marchenko_pastur_cumulative(1.0, x)[[0, 3, 4]], [0, 1, 1])
    np.testing.assert_array_equal(marchenko_pastur_density(0.25, [0.0, 0.2, 2.3, 9.0]), 0)
    grid = marchenko_pastur_cumulative(np.array([[0.01], [0.5], [1.0]]), np.linspace(0, 5, 400))
    assert grid.shape == (3, 400)
    assert (np.diff(grid, axis=1) >= -1e-13).all()


@pytest.mark.parametrize(("p", "q"), [(150, 1500), (300, 600), (400, 400), (1200, 150)])
def test_gaussian_matrices_follow_it(p, q):
    x = np.linspace(0.01, 5, 200)
    aspect = min(p, q) / max(p, q)
    found = gaussian_cumulative(p, q, x, np.random.default_rng(p))
    # Counts of n eigenvalues stray by O(1), whatever n: 4 of them is beyond any draw.
    assert np.abs(found - marchenko_pastur_cumulative(aspect, x)).max() < 4 / min(p, q)
    assert np.abs(found - marchenko_pastur_cumulative(aspect * 0.8, x)).max() > 4 / min(p, q)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (2, 2), (3, 40), (50, 50), (300, 320)])
def test_counts_equal_the_dense_tridiagonal_matrix(n, m):
    rng = np.random.default_rng(n * m)
    diagonal, below = _chi_squares(n, m, rng, 6)
    x = np.sort(rng.random((6, 64)) * 4 * m, axis=1)
    counts = _counts_below(diagonal, below, x)
    for i in range(6):
        bidiagonal = np.diag(np.sqrt(diagonal[i])) + np.diag(np.sqrt(below[i]), -1)
        values = np.linalg.eigvalsh(bidiagonal @ bidiagonal.T)
        np.testing.assert_array_equal(counts[i], np.searchsorted(values, x[i]))


def test_a_pivot_of_exactly_zero():
    # B B^T = [[1, 1], [1, 2]]: at x = 1 the first pivot is 0, and one eigenvalue, 0.38, lies below.
    counts = _counts_below(np.ones((1, 2)), np.ones((1, 1)), np.array([[0.0, 1.0, 2.7]]))
    np.testing.assert_array_equal(counts, [[0, 1, 2]])


@pytest.mark.parametrize(("p", "q"), [(2, 2), (3, 9), (9, 32), (16, 16)])
def test_samples_are_distributed_as_gaussian_matrices(p, q):
    x = np.array([0.1, 0.4, 0.9, 1.3, 2.0])
    sampled = sample_cumulative(p, q, x, np.random.default_rng(1), draws=3000)
    rng = np.random.default_rng(2)
    dense = np.array([gaussian_cumulative(p, q, x, rng) for _ in range(3000)])
    error = np.sqrt((sampled.var(axis=0) + dense.var(axis=0)) / 3000) + 1e-4
    assert (np.abs(sampled.mean(axis=0) - dense.mean(axis=0)) < 4.5 * error).all()
    np.testing.assert_allclose(sampled.std(axis=0), dense.std(axis=0), rtol=0.12, atol=0.01)
    other = sample_cumulative(p, q + 4, x, np.random.default_rng(3), draws=3000)
    assert (np.abs(other.mean(axis=0) - dense.mean(axis=0)) > 4.5 * error).any()


def test_seed_decides_and_side_locations_and_blocks_do_not():
    x = np.linspace(0.05, 4, 50)
    first = sample_cumulative(8, 30, x, np.random.default_rng(1), draws=700)
    np.testing.assert_array_equal(first, sample_cumulative(30, 8, x, np.random.default_rng(1), draws=700))
    np.testing.assert_array_equal(first[:, ::7], sample_cumulative(8, 30, x[::7], np.random.default_rng(1), draws=700))
    assert (first != sample_cumulative(8, 30, x, np.random.default_rng(2), draws=700)).any()
    assert first.shape == (700, 50)
    assert (first[:, -1] == 1).mean() > 0.9


def test_mixture_is_the_mean_over_layers():
    x = np.linspace(0, 4, 30)
    laws = [marchenko_pastur_cumulative(c, x) for c in (0.5, 0.5, 1.0)]
    np.testing.assert_allclose(wishart_cumulative([(10, 20), (40, 20), (7, 7)], x), np.mean(laws, axis=0), atol=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda _: marchenko_pastur_edges(0.0),
        lambda _: marchenko_pastur_cumulative([0.5, 1.5], 1.0),
        lambda _: marchenko_pastur_density(float("nan"), 1.0),
        lambda _: marchenko_pastur_density("a", 1.0),
        lambda _: marchenko_pastur_density(0.5, [1.0, float("nan")]),
        lambda _: marchenko_pastur_cumulative(0.5, float("nan")),
        lambda _: marchenko_pastur_cumulative(0.5, "a"),
        lambda rng: sample_cumulative(0, 3, [1.0], rng),
        lambda rng: sample_cumulative(3, 3, [1.0], rng, draws=0),
        lambda rng: sample_cumulative(3, 3, [], rng),
        lambda rng: sample_cumulative(3, 3, [2.0, 1.0], rng),
        lambda rng: sample_cumulative(3, 3, [-1.0], rng),
        lambda _: sample_cumulative(3, 3, [1.0], 7),
        lambda _: wishart_cumulative([], [1.0]),
        lambda _: wishart_cumulative((3, 4), [1.0]),
        lambda _: wishart_cumulative([(3, 4, 5)], [1.0]),
        lambda _: wishart_cumulative([(3, 0)], [1.0]),
        lambda _: wishart_cumulative([(3, 3)], [float("inf")]),
    ],
)
def test_bad_input(call):
    with pytest.raises(SpectrumError):
        call(np.random.default_rng(0))


@pytest.mark.parametrize(("p", "q"), [(64, 64), (100, 400), (400, 100)])
def test_scores_of_largest_eigenvalues_are_standard(p, q):
    """Of Gaussian and of uniform entries; the mean's own fluctuation takes a little of the spread away."""
    rng = np.random.default_rng(p)
    draws = [rng.standard_normal((p, q)) for _ in range(60)] + [rng.uniform(-1, 1, (p, q)) for _ in range(60)]
    scores = []
    for W in draws:
        values = np.linalg.svd(W, compute_uv=False) ** 2
        scores.append(largest_score(p, q, values.max() / values.mean()))
    assert abs(np.mean(scores)) < 0.4
    assert 0.7 < np.std(scores) < 1.2
    assert max(scores) < 3 + 1
    spike = rng.standard_normal((p, q)) + 0.5
    values = np.linalg.svd(spike, compute_uv=False) ** 2
    assert largest_score(p, q, values.max() / values.mean()) > 20


def test_scores_of_no_matrix():
    with pytest.raises(SpectrumError):
        largest_score(0, 3, 1.0)
