"""Spectra in float32: how far they stray from those in float64, by decade, on published networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from registry.errors import SpectrumError
from registry.spectral import layer_spectrum, network_spectra
from tests.spectral.factory import layer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DECADES = [(10.0**k, 10.0 ** (k + 1)) for k in range(-6, 3)]
# Of the largest eigenvalue: 16 times half a unit in the last place of float32.
STRAY = 16 * 2.0**-24

Pair = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def fractions(values: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.searchsorted(values, x, side="right") / values.size


def decade(low: float, high: float) -> NDArray[np.float64]:
    return np.geomspace(low, high, 64, endpoint=False)


@pytest.fixture(scope="module")
def published(zoo: Path) -> list[list[Pair]]:
    """Eigenvalues in float64 and in float32, by layer, of every model."""
    found = []
    for line in (zoo / "manifest.jsonl").read_text().splitlines():
        tensors = load_file(zoo / json.loads(line)["path"]).values()
        matrices = [t.reshape(len(t), -1) for t in tensors if t.ndim > 1 and t.dtype.kind == "f"]
        found.append(
            [
                (layer_spectrum(W)[1].astype(float), layer_spectrum(W, precision="float32")[1].astype(float))
                for W in matrices
                if min(W.shape) > 1 and W.any()
            ]
        )
    return found


def test_error_of_a_layers_cumulative_by_decade(published: list[list[Pair]]) -> None:
    def worst(low: float, high: float) -> float:
        x = decade(low, high)
        return max(float(np.abs(fractions(a, x) - fractions(b, x)).max()) for model in published for a, b in model)

    by_decade = {low: worst(low, high) for low, high in DECADES}
    assert all(error <= 0.12 for low, error in by_decade.items() if low >= 9e-7)
    assert by_decade[DECADES[3][0]] <= 0.02
    assert all(by_decade[low] == 0 for low, _ in DECADES[4:])
    # The bounds that hold above do not hold below: something is lost there.
    assert max(by_decade[low] for low, _ in DECADES[:3]) > 0.02


def test_error_of_a_models_cumulative_by_decade(published: list[list[Pair]]) -> None:
    def worst(low: float, high: float) -> float:
        x = decade(low, high)
        means = [np.mean([fractions(a, x) - fractions(b, x) for a, b in model], axis=0) for model in published]
        return max(float(np.abs(mean).max()) for mean in means)

    assert worst(1e-3, 1e-2) <= 4e-4
    assert all(worst(low, high) == 0 for low, high in DECADES[4:])
    assert 1e-3 < max(worst(low, high) for low, high in DECADES[:3]) <= 0.02


def test_eigenvalues_stray_by_a_part_of_the_largest(published: list[list[Pair]]) -> None:
    stray = np.array([np.abs(a - b).max() / a[-1] for model in published for a, b in model])
    assert stray.max() < STRAY
    assert stray.max() > STRAY / 4
    # So F32(x) lies between F64(x - stray) and F64(x + stray): the small eigenvalues alone can be lost.
    for a, b in published[0]:
        x = np.geomspace(1e-7, 10, 500)
        assert (fractions(a, x - STRAY * a[-1]) <= fractions(b, x)).all()
        assert (fractions(b, x) <= fractions(a, x + STRAY * a[-1])).all()


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 30), (9000, 3), (1, 1)])
def test_single_precision_covers_the_range_of_the_weights(
    size: float, dtype: type[np.floating], shape: tuple[int, int]
) -> None:
    W = (np.random.default_rng(1).standard_normal(shape) * size).astype(dtype)
    mean, values = layer_spectrum(W, precision="float32")
    exact_mean, exact = layer_spectrum(W)
    assert mean == pytest.approx(exact_mean, rel=2e-6)
    assert (values.dtype, values.shape) == (np.float32, exact.shape)
    np.testing.assert_allclose(values, exact, rtol=0, atol=STRAY * exact[-1])


def test_large_double_weights_fit_in_single_precision() -> None:
    W = np.random.default_rng(2).standard_normal((5, 6)) * 1e100
    np.testing.assert_allclose(layer_spectrum(W, precision="float32")[1], layer_spectrum(W)[1], rtol=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_networks_in_single_precision(workers: int) -> None:
    rng = np.random.default_rng(3)
    matrices = [rng.standard_normal(shape, dtype=np.float32) for shape in ((40, 20_000), (30, 30), (8, 5))]
    layers = [layer(*W.shape, at) for at, W in enumerate(matrices)]
    found = network_spectra(layers, lambda one: matrices[one.position], workers=workers, precision="float32")
    for one, W in zip(found, matrices, strict=True):
        mean, values = layer_spectrum(W, precision="float32")
        assert (one.mean, one.values.tobytes()) == (mean, values.tobytes())
        assert one.values.tobytes() != layer_spectrum(W)[1].tobytes()


def test_unknown_precisions() -> None:
    for wanted in ("half", "float16", ""):
        with pytest.raises(SpectrumError, match=f"precision must be float64 or float32, not '{wanted}'"):
            layer_spectrum(np.eye(3), precision=wanted)  # type: ignore[arg-type]
        with pytest.raises(SpectrumError, match="precision must be"):
            network_spectra([layer(3, 3)], lambda _: np.eye(3), precision=wanted)  # type: ignore[arg-type]
