"""Approximate spectra against dense ones, at orders where both can be computed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.equivalence.calibration import shipped
from registry.errors import SpectrumError
from registry.spectral import (
    SPECS,
    conjugacy,
    decay,
    eigenvalues,
    fingerprint,
    layer_spectrum,
    needs_spectra,
    network_spectra,
)
from registry.spectral.eigenvalues import spectrum
from registry.spectral.lanczos import FOUND, Lanczos, scatter_of
from registry.types import Spectrum
from tests.spectral.factory import layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.types import LayerMatrix

ALL = Lanczos(above=1)
KINDS = ("gaussian", "thin", "heavy", "power", "spikes", "rows")
# Eigenvalues below it are zero to rounding, exactly or not.
ZERO = 1e-6


@cache
def weights(kind: str, order: int = 700) -> NDArray[np.float32]:
    """A matrix of that order: bulks, heavy tails, low rank and noise, units of different scales, low rank alone."""
    rng = np.random.default_rng([order, len(kind)])
    W = rng.standard_normal((order, 2 * order if kind == "thin" else order + 50))
    low = rng.standard_normal((order, 40)) @ rng.standard_normal((40, W.shape[1]))
    match kind:
        case "heavy":
            W = rng.standard_t(3, W.shape)
        case "power":
            left, right = np.linalg.qr(W.T @ W)[0][:order], np.linalg.qr(W[:, :order])[0]
            W = (right * (np.arange(1, order + 1) / order) ** -0.4) @ left
        case "spikes":
            W = W + 3 * low
        case "rows":
            W *= np.exp(rng.standard_normal((order, 1)))
        case "low":
            W = low
    return W.astype(np.float32)


@cache
def exact(kind: str, order: int = 700) -> Spectrum:
    W = weights(kind, order)
    return spectrum(layer(*W.shape), W)


def approximate(kind: str, order: int = 700, solver: Lanczos = ALL) -> Spectrum:
    W = weights(kind, order)
    return spectrum(layer(*W.shape), W, solver)


def distance(one: Spectrum, other: Spectrum) -> float:
    """Sup of |F - F'|, from 1e-6 of the mean on."""
    x = np.concatenate([[ZERO], one.values, other.values])
    x = np.sort(x[x >= ZERO])
    a, b = (np.searchsorted(each.values, x, side="right") for each in (one, other))
    return float(np.abs(a - b).max()) / one.values.size


@pytest.mark.parametrize("kind", KINDS)
def test_cumulative_is_within_the_bound(kind: str) -> None:
    found, right = approximate(kind), exact(kind)
    assert (found.method, right.method) == ("lanczos", "")
    assert found.values.shape == right.values.shape
    assert found.values.dtype == np.float32
    assert (np.diff(found.values) >= 0).all()
    assert (found.values >= 0).all()
    # The trace is exact.
    assert found.mean == pytest.approx(right.mean, rel=1e-9)
    assert found.values.astype(float).mean() == pytest.approx(1, abs=1e-6)
    assert distance(found, right) <= scatter_of([found])


@pytest.mark.parametrize("order", [600, 1500])
def test_the_bound_holds_as_orders_grow(order: int) -> None:
    found = approximate("spikes", order)
    assert distance(found, exact("spikes", order)) <= scatter_of([found])
    assert scatter_of([found]) == pytest.approx(1.63 * np.sqrt(2 / (24 * (order + 2))) + 0.25 / 48)


@pytest.mark.parametrize("few", [Lanczos(above=1, probes=1, deflating=0), Lanczos(above=1, steps=2, deflating=0)])
def test_too_few_vectors_or_products_break_it(few: Lanczos) -> None:
    beyond = [distance(approximate(kind, solver=few), exact(kind)) > scatter_of([approximate(kind)]) for kind in KINDS]
    assert sum(beyond) >= len(KINDS) / 2


def test_the_bound_is_no_wider_than_it_must_be() -> None:
    """Independent of the shape's own random vectors: permuted and turned signs are as good as new ones."""
    rng = np.random.default_rng(1)
    W, right = weights("gaussian", 300), exact("gaussian", 300)
    plain = Lanczos(above=1, deflating=0, probes=4)
    ratios = []
    for _ in range(30):
        turned = W[rng.permutation(300)] * rng.choice([-1, 1], (300, 1)).astype(np.float32)
        found = spectrum(layer(*W.shape), turned, plain)
        ratios.append(distance(found, right) / (1.63 * np.sqrt(2 / (4 * 302))))
    assert max(ratios) <= 1
    assert np.median(ratios) > 0.2


@pytest.mark.parametrize("kind", ["spikes", "power", "heavy", "rows"])
def test_the_tail_is_made_of_eigenvalues(kind: str) -> None:
    found, right = approximate(kind).values[::-1], exact(kind).values[::-1]
    count = {"spikes": 40, "power": 60, "heavy": 25, "rows": 60}[kind]
    np.testing.assert_allclose(found[:count], right[:count], rtol=FOUND)
    plain = approximate(kind, solver=Lanczos(above=1, deflating=0)).values[::-1]
    assert np.abs(plain[:count] / right[:count] - 1).max() > 3 * FOUND


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_the_tail(kind: str) -> None:
    found, right = conjugacy([approximate(kind)]), conjugacy([exact(kind)])
    for (_, here), (_, there) in zip(found.tail, right.tail, strict=True):
        assert here == pytest.approx(there, rel=0.02)
    assert found.tail_class == right.tail_class


def test_the_law_of_decay() -> None:
    shapes = [(400 + 10 * at, 450) for at in range(8)]
    rng = np.random.default_rng(4)
    matrices = [
        (rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0], 1)))).astype(np.float32) for shape in shapes
    ]
    laws = [decay([spectrum(layer(*W.shape), W, solver) for W in matrices]) for solver in (ALL, eigenvalues.DOUBLE)]
    assert laws[0].law == laws[1].law
    assert laws[0].exceedances == pytest.approx(laws[1].exceedances, rel=0.03)
    assert (laws[0].rate, laws[0].exponent) == pytest.approx((laws[1].rate, laws[1].exponent), rel=0.05)


def test_gaussian_networks_stay_untrained() -> None:
    """Spectra of Gaussian matrices are so rigid that the scatter of random vectors alone would leave their band."""
    found = approximate("gaussian")
    taken_for_exact = Spectrum(found.layer, found.mean, found.values)
    assert conjugacy([found]).training_class == "untrained"
    assert conjugacy([taken_for_exact]).training_class == "trained"
    assert conjugacy([approximate("rows")]).training_class == "trained"
    assert conjugacy([exact("gaussian")]).training_class == "untrained"


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if needs_spectra(spec)])
def test_fingerprints_of_approximate_spectra(name: str) -> None:
    """Of one layer, in L1; what networks scatter by is less, and it falls with the root of the order."""
    tolerance = shipped(SPECS[name], "l1").tolerance

    def errors(solver: Lanczos) -> list[float]:
        return [
            float(np.abs(vector(approximate(kind, solver=solver)) - vector(exact(kind))).sum()) / tolerance
            for kind in KINDS
        ]

    def vector(one: Spectrum) -> NDArray[np.float32]:
        return fingerprint([one], SPECS[name]).vector

    assert max(errors(ALL)) < 0.25
    assert max(errors(Lanczos(above=1, probes=1, steps=4))) > 0.25


def test_low_rank_and_equal_eigenvalues_are_exact() -> None:
    found, right = approximate("low"), exact("low")
    np.testing.assert_allclose(found.values[-40:], right.values[-40:], rtol=1e-5)
    assert (found.values[:-40] < ZERO).all()
    for shape in ((500, 500), (500, 900)):
        _, values = approximated(3 * np.eye(*shape, dtype=np.float32))
        np.testing.assert_allclose(values, 1, rtol=1e-6)


def test_of_three_distinct_eigenvalues_only_the_weights_are_random() -> None:
    levels, W = np.array([0.0, 1.0, 25.0]), np.diag(np.repeat([0.0, 1.0, 5.0], 200))

    def moved(solver: Lanczos) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The nearest level of each value, how far the value is from it, and the bound of the cumulative."""
        found = spectrum(layer(*W.shape), W, solver)
        values = found.values.astype(np.float64) * found.mean
        nearest = levels[np.abs(values[:, None] - levels).argmin(axis=1)]
        return nearest, values - nearest, scatter_of([found])

    nearest, away, bound = moved(ALL)
    # Which directions count as found, and how many values each level gets, differs with the rounding of the processor.
    numbers = np.array([(nearest <= level).sum() for level in levels])
    assert np.abs(numbers - [200, 400, 600]).max() <= 600 * bound
    # Values are eigenvalues found, or x + s x^2 of one s that the exact mean asks for. 1e-6: rounding to float32.
    s = away[np.abs(away).argmax()] / 25**2
    apart = np.minimum(np.abs(away), np.abs(away - s * nearest**2))
    assert (apart <= 1e-6 * np.maximum(nearest, 1)).all()
    # At a jump the number of values is off by half a one at most: (1 - 0) / 2 + (25 - 1) / 2 in their sum.
    assert abs(away.sum()) <= 12.5
    # Two products leave two nodes, which cannot be three eigenvalues.
    assert np.abs(moved(Lanczos(above=1, steps=2, deflating=0))[1]).max() > 0.1


def approximated(W: NDArray[np.floating]) -> tuple[float, NDArray[np.float32]]:
    found = spectrum(layer(*W.shape), W, ALL)
    return found.mean, found.values


def test_layout_transposition_scale_and_time_change_no_bit() -> None:
    W = weights("thin", 200)
    mean, values = approximated(W)
    for other in (W.T, np.asfortranarray(W), W.astype(np.float64)):
        assert approximated(other)[0] == mean
        np.testing.assert_array_equal(approximated(other)[1], values)
    for power in (-80, 5, 100):
        assert approximated(W * np.float32(2.0**power))[0] == mean * 4.0**power
        np.testing.assert_array_equal(approximated(W * np.float32(2.0**power))[1], values)


def test_on_request_and_beyond_the_order_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    W = weights("gaussian", 300)
    right = layer_spectrum(W)
    np.testing.assert_array_equal(layer_spectrum(W, approximate=True)[1], right[1])
    monkeypatch.setattr(eigenvalues, "LARGE", 299)
    np.testing.assert_array_equal(layer_spectrum(W)[1], right[1])
    found = layer_spectrum(W, approximate=True)
    assert (found[1] != right[1]).any()
    matrices = [W, weights("thin", 200), W[:299]]
    layers = [layer(*each.shape, at) for at, each in enumerate(matrices)]

    def read(one: LayerMatrix) -> NDArray[np.float32]:
        return matrices[one.position]

    for workers in (1, 2):
        spectra = network_spectra(layers, read, approximate=True, workers=workers)
        assert [each.method for each in spectra] == ["lanczos", "", ""]
        np.testing.assert_array_equal(spectra[0].values, found[1])
        np.testing.assert_array_equal(spectra[1].values, layer_spectrum(matrices[1])[1])
        assert [each.method for each in network_spectra(layers, read, workers=workers)] == ["", "", ""]
    assert scatter_of(spectra) == pytest.approx(scatter_of(spectra[:1]) / 3)
    assert scatter_of(spectra[1:]) == 0


def test_bad_input_is_told_as_ever() -> None:
    for W, words in ((np.full((30, 30), np.nan), "NaN"), (np.zeros((30, 30)), "all weights are zero")):
        with pytest.raises(SpectrumError, match=words):
            spectrum(layer(30, 30), W, ALL)
