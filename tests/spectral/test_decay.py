from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import import_module

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from registry.errors import SpectrumError
from registry.spectral.conjugacy import conjugacy
from registry.spectral.decay import MIN_EXCEEDANCES, MIN_LAYERS, decay, tail_threshold
from registry.types import Decay
from tests.spectral.factory import by_hand, gaussian, published_models

# The package's attribute of that name is the function.
module = import_module("registry.spectral.decay")

# Of aspect 1 / 9, so that Marchenko-Pastur ends below 2 and the tail begins at the end of the circular support.
EDGE, WIDE = 2.0, 9
ORDERS = (64, 128, 256, 512)
SHARE = 0.05


def draw(law, parameter, order, count, rng):
    """Values of a law on (EDGE, order], by inversion or by rejection."""
    u = rng.random(count)
    if law == "exponential":
        return EDGE - np.log1p(u * np.expm1(-parameter * (order - EDGE))) / parameter
    if law == "power":
        tail = parameter - 1
        return EDGE * (1 + u * np.expm1(-tail * np.log(order / EDGE))) ** (-1 / tail)
    if law == "lognormal":
        values = np.exp(parameter * rng.standard_normal(60 * count))
    elif law == "generalised":
        shape, scale = parameter
        values = EDGE + scale * np.expm1(-shape * np.log(rng.random(30 * count))) / shape
    return values[(values > EDGE) & (values < order)][:count]


def network(law, parameter, layers, seed):
    """Layers of mixed orders; on average a twentieth of each one's values follow the law, the others lie at 0.5."""
    rng = np.random.default_rng([seed, layers])
    spectra = []
    for i, order in enumerate(rng.choice(ORDERS, layers).tolist()):
        tail = np.sort(draw(law, parameter, order, rng.binomial(order, SHARE), rng))
        values = np.concatenate((np.full(order - tail.size, 0.5), tail))
        spectra.append(by_hand(values, order, WIDE * order, i))
    return spectra


@cache
def found(law, parameter, layers, networks=100):
    return [decay(network(law, parameter, layers, seed)) for seed in range(networks)]


def laws(decays):
    counted = Counter(d.law for d in decays)
    assert set(counted) <= {"exponential", "power", "undecided"}
    return {law: count / len(decays) for law, count in counted.items()}


@pytest.mark.parametrize(
    ("law", "parameter", "layers", "power"),
    [
        ("exponential", 0.5, 40, 0.75),
        ("exponential", 0.5, 20, 0.5),
        ("power", 3.0, 40, 0.7),
        ("power", 2.5, 40, 0.8),
        ("power", 2.5, 20, 0.65),
    ],
)
def test_laws_are_told_apart(law, parameter, layers, power):
    # Over more networks 0.88, 0.67, 0.86, 0.95 and 0.84; the bounds lie three deviations of 100 networks below.
    rates = laws(found(law, parameter, layers))
    assert rates[law] >= power
    other = {"exponential": "power", "power": "exponential"}[law]
    assert rates.get(other, 0) <= 0.02
    assert all((d.statistic > 1.96) == (law == "power") for d in found(law, parameter, layers) if d.law == law)


@pytest.mark.parametrize(("law", "field", "parameter"), [("exponential", "rate", 0.5), ("power", "exponent", 2.5)])
def test_scales_are_recovered(law, field, parameter):
    values = np.array([getattr(d, field) for d in found(law, parameter, 40)])
    # 490 exceedances, weighted 1 to 8, count as some 310: one network errs by 1 / sqrt(310) of the rate, or of the
    # exponent less 1, that is 0.028 or 0.085; the mean of a hundred by a tenth of that, and maximum likelihood's bias.
    scale = parameter if law == "exponential" else parameter - 1
    assert values.mean() == pytest.approx(parameter, abs=scale * (4 / np.sqrt(310 * 100) + 2 / 310))
    assert values.std() == pytest.approx(scale / np.sqrt(310), rel=0.3)


def test_without_the_bound_on_eigenvalues_a_power_law_would_be_off(monkeypatch):
    spectra = [network("power", 1.5, 40, seed) for seed in range(10)]
    bounded = np.mean([decay(s).exponent for s in spectra])
    original = module._fitted
    monkeypatch.setattr(module, "_fitted", lambda values, orders, ranges: original(values, orders, ranges * 1e6))
    free = np.mean([decay(s).exponent for s in spectra])
    assert bounded == pytest.approx(1.5, abs=0.05)
    assert free > 1.6


# Generalised Pareto tails of these shapes and scales are as near to the exponential as to the power law.
NULLS = [(0.171, 1.0), (0.254, 2.0)]


@pytest.mark.parametrize("parameter", NULLS)
def test_the_null_is_one(parameter):
    assert abs(decay(network("generalised", parameter, 3000, 1)).statistic) < 3
    assert decay(network("exponential", 0.5, 3000, 1)).statistic < -12
    assert decay(network("power", 2.5, 3000, 1)).statistic > 12


@pytest.mark.parametrize("parameter", NULLS)
@pytest.mark.parametrize("layers", [10, 40])
def test_false_decisions_are_rare(parameter, layers):
    # Nominally 0.05; measured 0.02 to 0.08 over 300 networks of 6 to 40 layers.
    rates = laws(found("generalised", parameter, layers, 200))
    assert 1 - rates["undecided"] <= 0.12
    # The normal quantile alone is freer.
    beyond = [abs(d.statistic) > 1.96 for d in found("generalised", parameter, layers, 200)]
    assert 1 - rates["undecided"] <= np.mean(beyond)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.2])
def test_lognormal_tails_are_undecided(sigma):
    assert laws(found("lognormal", sigma, 40))["undecided"] >= 0.85


@pytest.mark.parametrize(
    "shapes", [[(64, 64)] * 40, [(8, 8)] * 300, [(16, 400), (400, 16), (5, 5)] * 50, [(3, 3)] * 50]
)
def test_gaussian_weights_have_no_tail(shapes):
    rng = np.random.default_rng(5)
    for _ in range(5):
        spectra = gaussian(shapes, rng)
        answer = decay(spectra)
        assert answer == Decay("undecided", tail_threshold(shapes), answer.exceedances)
        # One layer in a hundred at most, and three deviations of that.
        assert answer.exceedances <= 0.01 * len(shapes) + 3 * np.sqrt(0.01 * len(shapes))


def test_threshold():
    # Johnstone (2001): n = 10, m = 40 gives (sqrt 39 + sqrt 10)^2 = 88.5 and a scale of 7.36.
    mu, sigma = 88.4968, 9.40728 * (1 / np.sqrt(39) + 1 / np.sqrt(10)) ** (1 / 3)
    assert tail_threshold([(40, 10)]) == pytest.approx((mu + 2.0234 * sigma) / 40, rel=1e-4)
    assert tail_threshold([(40, 10), (10, 40)]) == tail_threshold([(10, 40)])
    # The largest of the layers; never below the end of the circular support; for large squares, Bai and Yin's 4.
    assert tail_threshold([(64, 64), (10, 40)]) == tail_threshold([(64, 64)])
    assert tail_threshold([(10, 4000)]) == tail_threshold([(1, 1)]) == 2
    assert tail_threshold([(10**7, 10**7)]) == pytest.approx(4, abs=1e-3)
    # No eigenvalue of three whose mean is 1 exceeds 3.
    assert tail_threshold([(3, 3)]) == 3
    rng = np.random.default_rng(6)
    for shape in ((16, 16), (32, 288), (100, 100)):
        largest = np.array([gaussian([shape], rng)[0].values[-1] for _ in range(600)])
        # More than one in a hundred, by three deviations, would be too many; the edge itself is passed by far more.
        assert np.mean(largest > tail_threshold([shape])) <= 0.022
        aspect = min(shape) / max(shape)
        assert np.mean(largest > (1 + np.sqrt(aspect)) ** 2) > 0.03


@pytest.mark.parametrize("law", ["exponential", "power"])
def test_fit_equals_a_direct_maximisation(law):
    spectra = network(law, 0.7 if law == "exponential" else 2.2, 12, 3)
    tails = [s.values[s.values > EDGE].astype(np.float64) for s in spectra]
    orders = np.array([s.values.size for s in spectra])
    weights = np.concatenate([np.full(t.size, 1 / n) for t, n in zip(tails, orders, strict=True)])
    bounds = np.concatenate([np.full(t.size, float(n)) for t, n in zip(tails, orders, strict=True)])
    x = np.concatenate(tails)

    def exponential(rate):
        return weights @ np.log(rate * np.exp(-rate * (x - EDGE)) / (1 - np.exp(-rate * (bounds - EDGE))))

    def power(exponent):
        tail = exponent - 1
        density = tail / EDGE * (x / EDGE) ** -exponent / (1 - (bounds / EDGE) ** -tail)
        return weights @ np.log(density)

    rate = minimize_scalar(lambda r: -exponential(r), bounds=(0.01, 5), method="bounded", options={"xatol": 1e-10}).x
    exponent = minimize_scalar(lambda a: -power(a), bounds=(1.01, 9), method="bounded", options={"xatol": 1e-10}).x
    answer = decay(spectra)
    assert answer.rate == pytest.approx(rate, rel=1e-6)
    assert answer.exponent == pytest.approx(exponent, rel=1e-6)
    # Vuong's ratio, and its error over layers, by their definitions.
    ratios = weights * np.log(
        ((exponent - 1) / EDGE * (x / EDGE) ** -exponent / (1 - (bounds / EDGE) ** (1 - exponent)))
        / (rate * np.exp(-rate * (x - EDGE)) / (1 - np.exp(-rate * (bounds - EDGE))))
    )
    ratio = ratios.sum() / weights.sum()
    ends = np.cumsum([t.size for t in tails])[:-1]
    layers = np.array([part.sum() for part in np.split(ratios - ratio * weights, ends)])
    error = np.sqrt(12 / 11 * np.sum(layers**2)) / weights.sum()
    assert answer.statistic == pytest.approx(ratio / error, rel=1e-5)
    assert answer.exceedances == x.size


def test_score_of_the_curvature_vanishes_for_the_law_alone():
    exponential = network("exponential", 0.5, 3000, 4)
    for law, spectra in (("exponential", exponential), ("curved", network("generalised", (0.254, 2.0), 3000, 4))):
        tails = [s.values[s.values > EDGE].astype(np.float64) - EDGE for s in spectra]
        orders = np.array([s.values.size for s in spectra])[[tail.size > 0 for tail in tails]]
        fit = module._fitted([tail for tail in tails if tail.size], orders, orders - EDGE)
        z = fit.curvatures.sum() / np.sqrt(np.sum(fit.curvatures**2))
        assert (abs(z) < 3) == (law == "exponential")


def test_layers_count_alike_and_their_order_not_at_all():
    spectra = network("power", 2.5, 20, 7)
    answer = decay(spectra)
    assert answer == decay(spectra)
    turned = decay(spectra[::-1])
    assert (turned.law, turned.exceedances) == (answer.law, answer.exceedances)
    np.testing.assert_allclose(
        [turned.rate, turned.exponent, turned.statistic], [answer.rate, answer.exponent, answer.statistic], rtol=1e-9
    )
    # Each layer twice is the same mixture, and its error, were the copies independent, smaller by sqrt 2.
    twice = decay([*spectra, *spectra])
    assert twice.exponent == pytest.approx(answer.exponent, rel=1e-9)
    assert twice.statistic == pytest.approx(answer.statistic * np.sqrt(39 / 40 / (19 / 20) * 2), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_layers_changes_no_bit_of_a_networks_figures(seed):
    spectra = network("power", 2.5, 20, seed)
    turned = np.random.default_rng(seed).permutation(len(spectra))
    assert conjugacy([spectra[at] for at in turned]) == conjugacy(spectra)


def test_too_little_is_undecided():
    tail = np.linspace(2.5, 9, MIN_EXCEEDANCES)
    values = np.sort(np.concatenate((np.full(200 - MIN_EXCEEDANCES, 0.5), tail)))
    few = [by_hand(values, 200, 1800, i) for i in range(MIN_LAYERS - 1)]
    assert decay(few) == Decay("undecided", 2.0, MIN_EXCEEDANCES * (MIN_LAYERS - 1))
    single = np.sort(np.append(np.full(199, 0.5), 5.0))
    many = [by_hand(single, 200, 1800, i) for i in range(MIN_EXCEEDANCES - 1)]
    assert decay(many) == Decay("undecided", 2.0, MIN_EXCEEDANCES - 1)


def test_layers_that_repeat_each_other_decide_nothing():
    [spectrum] = network("power", 2.5, 1, 8)
    values, order = spectrum.values, spectrum.values.size
    copies = [by_hand(values, order, WIDE * order, i) for i in range(30)]
    answer = decay(copies)
    assert (answer.law, answer.statistic) == ("undecided", 0.0)


def test_rising_tails_do_not_decay():
    # All beyond the threshold near the bound n = 16 itself.
    values = np.concatenate((np.full(14, 0.1), [15.0, 15.5]))
    spectra = [by_hand(values + i * 1e-3, 16, 160, i) for i in range(20)]
    answer = decay(spectra)
    assert (answer.law, answer.exceedances, answer.rate) == ("undecided", 40, None)


def test_conjugacy_carries_it():
    spectra = network("power", 2.5, 20, 9)
    assert conjugacy(spectra).decay == decay(spectra)


def test_published_models():
    answers = {name: decay(spectra) for name, spectra in published_models().items()}
    assert all(2 <= a.threshold <= 6 for a in answers.values())
    fitted = [a for a in answers.values() if a.statistic is not None]
    # These are small networks: a third have something to fit, and few of them enough to tell.
    assert 45 <= len(fitted) <= 80
    assert all(a.law == "undecided" for a in answers.values() if a.statistic is None)
    decided = [a for a in fitted if a.law != "undecided"]
    assert 4 <= len(decided) <= 20
    # Trained tails are longer than exponential, by far the more of them.
    assert np.mean([a.law == "power" for a in decided]) > 0.6
    assert all(1 < a.exponent < 12 and a.rate > 0 for a in fitted)


@pytest.mark.parametrize("spectra", [[], [by_hand([0.5, np.nan], 2, 2)], [by_hand([1.0], 2, 2)]])
def test_bad_spectra(spectra):
    with pytest.raises(SpectrumError):
        decay(spectra)
    with pytest.raises(SpectrumError, match="must be at least 1"):
        tail_threshold([(0, 3)])
    with pytest.raises(SpectrumError, match="seed must be at least 0, not -1"):
        decay([by_hand([0.5, 1.5], 2, 2)], seed=-1)
