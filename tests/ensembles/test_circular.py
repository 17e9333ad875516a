from __future__ import annotations

import re
from math import pi

import numpy as np
import pytest
from scipy import stats

from registry.ensembles.circular import (
    SPACING_RATIOS,
    _bisect,
    _verblunsky,
    dense_phases,
    haar_unitary,
    mean_spacing_ratio,
    mixed_variance,
    number_variance,
    sample_counts,
    sample_phases,
)
from registry.ensembles.haar import circular_matrix
from registry.errors import SpectrumError

BETAS = (1, 2, 4)


def cmv_phases(alpha, eta):
    """Eigenphases of the dense CMV matrix L M of the coefficients alpha (N - 1,), closed by e^{i eta} (Simon 2005)."""
    n = len(alpha) + 1
    closed = np.append(alpha, np.exp(-2j * pi * eta))
    factors = [np.eye(n, dtype=complex), np.eye(n, dtype=complex)]
    for k, a in enumerate(closed):
        if k == n - 1:
            factors[k % 2][k, k] = np.conj(a)
            continue
        rho = np.sqrt(1 - abs(a) ** 2)
        factors[k % 2][k : k + 2, k : k + 2] = [[np.conj(a), rho], [rho, -a]]
    phases = np.angle(np.linalg.eigvals(factors[0] @ factors[1]))
    return np.sort(np.where(phases <= 0, phases + 2 * pi, phases))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("order", [1, 2, 3, 8, 64])
def test_counts_equal_the_dense_matrix_of_the_same_coefficients(order, beta):
    edges = np.linspace(0, 2 * pi, 48)
    counts = sample_counts(order, beta, edges, np.random.default_rng(order), draws=20)
    ((_, alpha, eta),) = _verblunsky(order, beta, np.random.default_rng(order), 20, edges.size)
    dense = np.array([np.histogram(cmv_phases(alpha[:, i], eta[i]), edges)[0] for i in range(20)])
    np.testing.assert_array_equal(counts, dense)
    # The oracle tells matrices apart: another closing phase is another spectrum.
    other = np.array([np.histogram(cmv_phases(alpha[:, i], eta[i] + 0.5), edges)[0] for i in range(20)])
    assert (counts != other).any()


@pytest.mark.parametrize("beta", [0.01, 0.5, 1, 2, 4, 100.0, 1e308])
@pytest.mark.parametrize("order", [1, 2, 7, 300])
def test_pruefer_phase_rises_by_all_phases_around_the_circle(order, beta):
    edges = [0.0, 1.0, 3.0, 2 * pi]
    counts = sample_counts(order, beta, edges, np.random.default_rng(3), draws=50)
    assert counts.shape == (50, 3)
    assert (counts >= 0).all()
    assert (counts.sum(axis=1) == order).all()
    # Short of the whole circle it is not all of them.
    assert (counts[:, :2].sum(axis=1) < order).any()


@pytest.mark.parametrize("beta", BETAS)
def test_phases_and_counts_are_of_one_matrix(beta):
    phases = sample_phases(50, beta, np.random.default_rng(9))
    edges = np.linspace(0, 2 * pi, 30)
    counts = sample_counts(50, beta, edges, np.random.default_rng(9))[0]
    assert phases.shape == (50,)
    assert (np.diff(phases) > 0).all()
    assert phases[0] > 0
    assert phases[-1] <= 2 * pi
    np.testing.assert_array_equal(np.histogram(phases, edges)[0], counts)
    ((_, alpha, eta),) = _verblunsky(50, beta, np.random.default_rng(9), 1, 50)
    np.testing.assert_allclose(phases, cmv_phases(alpha[:, 0], eta[0]), rtol=0, atol=1e-12)


def test_seed_decides_and_edges_and_blocks_do_not():
    coarse = sample_counts(40, 2, [0, 1, 2 * pi], np.random.default_rng(1), draws=5000)
    fine = sample_counts(40, 2, [0, 0.5, 1, 2, 2 * pi], np.random.default_rng(1), draws=5000)
    np.testing.assert_array_equal(coarse[:, 0], fine[:, :2].sum(axis=1))
    np.testing.assert_array_equal(coarse, sample_counts(40, 2, [0, 1, 2 * pi], np.random.default_rng(1), draws=5000))
    assert (coarse != sample_counts(40, 2, [0, 1, 2 * pi], np.random.default_rng(2), draws=5000)).any()


def test_order_twenty_thousand_to_a_billionth():
    order, ranks = 20_000, np.array([0, 777, 19_999])
    ((_, alpha, eta),) = _verblunsky(order, 2, np.random.default_rng(4), 1, order)
    phases = _bisect(alpha, eta, ranks)
    # The unit number's own recurrence, in extended precision, meets e^{i eta} there: psi' is about N.
    z = np.exp(1j * phases.astype(np.longdouble))
    u = z.copy()
    for a in alpha[:, 0].astype(np.clongdouble):
        w = 1 - a * u
        u = z * u * np.conj(w) / w
    missed = np.angle((u * np.exp(-2j * np.longdouble(pi) * eta)).astype(complex))
    assert np.abs(missed).max() < 1e-9 * order
    edges = np.sort(np.concatenate((phases - 1e-9, phases + 1e-9)))
    counts = sample_counts(order, 2, edges, np.random.default_rng(4))[0]
    np.testing.assert_array_equal(counts[::2], 1)
    np.testing.assert_array_equal(counts[1::2], np.diff(ranks) - 1)
    # The billionth is what is tested: three of them away, there are none.
    beside = sample_counts(order, 2, edges + 3e-9, np.random.default_rng(4))[0]
    np.testing.assert_array_equal(beside[::2], 0)


@pytest.mark.parametrize("beta", [1, 2, 4, 3.3])
def test_one_phase_a_draw_is_uniform(beta):
    rng = np.random.default_rng(5)
    draws = np.array([sample_phases(3, beta, rng) for _ in range(300)])
    any_of_them = draws[np.arange(300), rng.integers(3, size=300)]
    assert stats.kstest(any_of_them, "uniform", args=(0, 2 * pi)).pvalue > 1e-3
    assert stats.kstest(draws[:, 0], "uniform", args=(0, 2 * pi)).pvalue < 1e-6


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("order", [1, 2, 5, 12, 60])
def test_number_variance_matches_simulation(order, beta):
    rng = np.random.default_rng(order)
    for arc in (0.4, pi / 2, pi, 5.0):
        counts = sample_counts(order, beta, [0, arc], rng, draws=8000)[:, 0].astype(float)
        fourth = np.mean((counts - counts.mean()) ** 4)
        error = np.sqrt(max(fourth - counts.var() ** 2, 1e-12) / counts.size)
        assert abs(counts.var() - number_variance(order, beta, arc)) < 4.5 * error + 1e-3
        assert abs(counts.mean() - order * arc / 2 / pi) < 4.5 * counts.std() / np.sqrt(counts.size)
        if order == 60 and arc == pi:
            for other in set(BETAS) - {beta}:
                assert abs(counts.var() - number_variance(order, other, arc)) > 5 * error


@pytest.mark.parametrize("beta", BETAS)
def test_number_variance_limits(beta):
    assert number_variance(1, beta, pi) == pytest.approx(0.25, abs=1e-6)
    np.testing.assert_allclose(number_variance(30, beta, [0.0, 2 * pi]), 0, atol=1e-7)
    arcs = np.array([0.3, 1.1, 2.5])
    # Outside and inside of an arc hold N together. The COE's sum is cut off at 2e-8.
    np.testing.assert_allclose(
        number_variance(17, beta, arcs), number_variance(17, beta, 2 * pi - arcs), rtol=1e-9, atol=1e-9
    )
    # Dyson & Mehta: (2 / (beta pi^2)) (ln 2 pi nu + const), nu phases in the arc: the slope in ln nu.
    slope = np.diff(number_variance(4000, beta, [0.02 * pi, 0.2 * pi]))[0] / np.log(10)
    assert slope == pytest.approx(2 / (beta * pi**2), rel=0.06)


@pytest.mark.parametrize("beta", BETAS)
def test_spacing_ratio(beta):
    rng = np.random.default_rng(11)
    ratios = np.array([mean_spacing_ratio(sample_phases(200, beta, rng)) for _ in range(16)])
    error = ratios.std(ddof=1) / np.sqrt(ratios.size)
    assert abs(ratios.mean() - SPACING_RATIOS[beta]) < 3 * error + 2e-4
    for other in {0, *BETAS} - {beta}:
        assert abs(ratios.mean() - SPACING_RATIOS[other]) > 3 * error + 2e-4


def test_traces_of_powers():
    rng, order = np.random.default_rng(6), 3
    draws = np.array([sample_phases(order, 2, rng) for _ in range(600)])
    for n in (1, 2, 3, 7):
        power = np.abs(np.exp(1j * n * draws).sum(axis=1)) ** 2
        error = power.std() / np.sqrt(power.size)
        assert abs(power.mean() - min(n, order)) < 4 * error
        assert abs(power.mean() - (min(n, order) + 1)) > 4 * error


@pytest.mark.parametrize("beta", BETAS)
def test_dense_members_are_unitary_and_of_their_class(beta):
    rng = np.random.default_rng(7)
    matrix = circular_matrix(40, beta, rng)
    assert np.linalg.norm(matrix @ matrix.conj().T - np.eye(len(matrix))) < 1e-12 * len(matrix)
    assert np.allclose(matrix, matrix.T, rtol=0, atol=1e-12) == (beta == 1)
    ratios = np.array([mean_spacing_ratio(dense_phases(40, beta, rng)) for _ in range(16)])
    error = ratios.std(ddof=1) / np.sqrt(ratios.size)
    assert abs(ratios.mean() - SPACING_RATIOS[beta]) < 3.5 * error + 2e-3
    counts = np.array([np.count_nonzero(dense_phases(6, beta, rng) <= 2.0) for _ in range(1200)])
    fourth = np.mean((counts - counts.mean()) ** 4)
    assert abs(counts.var() - number_variance(6, beta, 2.0)) < 4.5 * np.sqrt((fourth - counts.var() ** 2) / 1200)


def test_collapsed_pairs_stay_pairs_at_the_cut():
    rng = np.random.default_rng(8)
    for _ in range(200):
        phases = dense_phases(3, 4, rng)
        assert phases.shape == (3,)
        assert np.diff(phases).min() > 1e-9


def test_elementwise_product_is_rejected():
    rng, order = np.random.default_rng(9), 100
    unitary = haar_unitary(order, rng)
    wrong = unitary.T * unitary
    assert np.linalg.norm(wrong @ wrong.conj().T - np.eye(order)) > 0.9 * np.sqrt(order)
    ratios = [
        mean_spacing_ratio(np.angle(np.linalg.eigvals(u.T * u))) for u in (haar_unitary(100, rng) for _ in range(6))
    ]
    assert abs(np.mean(ratios) - SPACING_RATIOS[0]) < 0.03
    assert abs(np.mean(ratios) - SPACING_RATIOS[1]) > 0.1


def test_haar_needs_the_phases_of_the_diagonal():
    rng = np.random.default_rng(10)

    def phases(fixed):
        for _ in range(300):
            ginibre = rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4))
            unitary = haar_unitary(4, rng) if fixed else np.linalg.qr(ginibre)[0]
            yield from np.angle(np.linalg.eigvals(unitary))

    # Repelling phases scatter less than independent ones, so that the test of independent ones is lenient.
    assert stats.kstest(list(phases(True)), "uniform", args=(-pi, 2 * pi)).pvalue > 1e-3
    assert stats.kstest(list(phases(False)), "uniform", args=(-pi, 2 * pi)).pvalue < 1e-6


@pytest.mark.parametrize("beta", BETAS)
def test_mixed_variance_is_of_the_mean_over_layers(beta):
    locations = np.array([0.3, 1.0, 1.7, 2.0, 3.0])
    orders = [3, 3, 12, 40]
    rng = np.random.default_rng(12)
    edges = np.concatenate(([0.0], pi * locations[:3]))
    members = sum(np.cumsum(sample_counts(p, beta, edges, rng, 8000), axis=1) / p for p in orders) / len(orders)
    found = mixed_variance(orders, beta, locations)
    np.testing.assert_allclose(members.var(axis=0), found[:3], rtol=0.08)
    np.testing.assert_allclose(found[3:], 0, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rng: sample_counts(0, 2, [0, 1], rng), "order must be at least 1, not 0"),
        (lambda rng: sample_phases(-3, 2, rng), "order must be at least 1, not -3"),
        (lambda rng: sample_phases(3, -0.5, rng), "beta must be finite and positive, not -0.5"),
        (lambda rng: sample_phases(3, float("inf"), rng), "beta must be finite and positive, not inf"),
        (lambda rng: sample_phases(3, "two", rng), "beta must be finite and positive, not 'two'"),
        (lambda rng: sample_counts(3, 2, [0, 1, 0.5], rng), "edges must increase: 0.5 follows 1"),
        (lambda rng: sample_counts(3, 2, [0, 7.5], rng), "edges must lie within [0, 2 pi], not 7.5"),
        (lambda rng: sample_counts(3, 2, ["a", "b"], rng), "edges must be numbers, not ['a', 'b']"),
        (lambda rng: sample_counts(3, 2, np.array([0, 1 + 1j]), rng), "edges must be numbers, not array("),
        (lambda _: sample_counts(3, 2, [0, 1], 7), "rng must be a numpy.random.Generator, not 7"),
        (lambda _: sample_phases(3, 2, None), "rng must be a numpy.random.Generator, not None"),
        (lambda _: dense_phases(3, 2, 7), "rng must be a numpy.random.Generator, not 7"),
        (lambda _: haar_unitary(3, 7), "rng must be a numpy.random.Generator, not 7"),
        (lambda _: mean_spacing_ratio([1.0, 2.0]), "at least three phases, not one of shape (2,)"),
        (lambda _: mean_spacing_ratio([1.0, 2.0, np.nan]), "phases must be finite, not nan"),
        (lambda _: mean_spacing_ratio("abc"), "phases must be numbers, not 'abc'"),
        (lambda _: number_variance(4, 2, -1.5), "arcs must lie within [0, 2 pi], not -1.5"),
        (lambda _: mixed_variance([3, 0], 2, [1.0]), "order must be at least 1, not 0"),
        (lambda _: mixed_variance([3], 2, ["x"]), "locations must be numbers, not ['x']"),
    ],
)
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(SpectrumError, match=re.escape(words)):
        call(np.random.default_rng(0))


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: sample_counts(0, 2, [0, 1], rng),
        lambda rng: sample_counts(2.5, 2, [0, 1], rng),
        lambda rng: sample_counts(3, 0, [0, 1], rng),
        lambda rng: sample_counts(3, -1, [0, 1], rng),
        lambda rng: sample_counts(3, float("nan"), [0, 1], rng),
        lambda rng: sample_counts(3, 2, [0, 1], rng, draws=0),
        lambda rng: sample_counts(3, 2, [1], rng),
        lambda rng: sample_counts(3, 2, [1, 0.5], rng),
        lambda rng: sample_counts(3, 2, [0, 1, 1], rng),
        lambda rng: sample_counts(3, 2, [-0.1, 1], rng),
        lambda rng: sample_counts(3, 2, [0, 6.3], rng),
        lambda rng: sample_counts(3, 2, [0, float("nan")], rng),
        lambda rng: sample_phases(0, 2, rng),
        lambda rng: sample_phases(4, 0, rng),
        lambda _: number_variance(4, 3, 1.0),
        lambda _: number_variance(4, 2, 7.0),
        lambda _: mixed_variance([], 2, [1.0]),
        lambda rng: haar_unitary(0, rng),
        lambda rng: dense_phases(4, 3, rng),
    ],
)
def test_bad_input(call):
    with pytest.raises(SpectrumError):
        call(np.random.default_rng(0))


def test_equal_phases_have_ratio_zero():
    assert mean_spacing_ratio([1.0, 1.0, 1.0]) == 0.0
    assert mean_spacing_ratio([0.0, 2 * pi / 3, 4 * pi / 3]) == pytest.approx(1.0)
