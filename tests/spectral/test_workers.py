"""Cores kept busy: a costly layer neither holds the others up nor, where its product divides, waits for one core."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import SpectrumError
from registry.spectral import eigenvalues, lapack, layer_spectrum, network_spectra
from registry.spectral.eigenvalues import _exponent, spectra
from registry.spectral.lapack import column_blocks
from tests.spectral.factory import layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.spectral.lapack import Solver
    from registry.types import LayerMatrix, Spectrum


def weights(wanted: LayerMatrix) -> np.ndarray:
    return np.random.default_rng(wanted.position).standard_normal((wanted.p, wanted.q), np.float32)


def test_the_costliest_layer_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer(40, 50, 0), *(layer(3, 4, at) for at in range(1, 9))]
    others, ended, lock = Event(), [0], Lock()

    def watched(task: Sequence[LayerMatrix], matrices: Sequence[np.ndarray], solver: Solver) -> tuple[Spectrum, ...]:
        if task[0].position == 0:
            # One worker is here until the other has done all the rest; holding them up would end in the timeout.
            assert others.wait(10), "the other layers wait for the costliest"
        else:
            with lock:
                ended[0] += 1
                if ended[0] == len(layers) - 1:
                    others.set()
        return spectra(task, matrices, solver)

    monkeypatch.setattr(eigenvalues, "LOCKED", 0)
    monkeypatch.setattr(eigenvalues, "spectra", watched)
    assert len(network_spectra(layers, weights, workers=2)) == len(layers)


SMALL = [
    layer(*shape, at) for at, shape in enumerate([(8, 20), (20, 8), (8, 8), (9, 30), (8, 3000), (40, 9), (600, 8)])
]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_layers_of_one_order_go_together_to_the_same_bits(
    workers: int, precision: lapack.Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    real = np.linalg.eigvalsh

    def noted(matrices: np.ndarray) -> np.ndarray:
        shapes.append(matrices.shape)
        return np.asarray(real(matrices))

    monkeypatch.setattr(np.linalg, "eigvalsh", noted)
    monkeypatch.setattr(eigenvalues, "LOCKED", 30)
    found = network_spectra(SMALL, weights, workers=workers, precision=precision)
    # Four of order 8 are more than 30 values; the fifth and those of order 9 are what is left.
    assert sorted(shapes) == [(2, 9, 9), (4, 8, 8), (8, 8)]
    monkeypatch.setattr(eigenvalues, "TOGETHER", 0)
    alone = network_spectra(SMALL, weights, workers=workers, precision=precision)
    assert sorted(shapes[3:]) == [(8, 8)] * 5 + [(9, 9)] * 2
    for one, other, wanted in zip(found, alone, SMALL, strict=True):
        assert one.layer == wanted
        assert (one.mean, one.values.tobytes()) == (other.mean, other.values.tobytes())


def test_one_of_a_group_that_does_not_converge_is_found_by_another_driver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = network_spectra(SMALL, weights, workers=1)
    bad = SMALL[2]
    real = np.linalg.eigvalsh
    bad_trace = float(np.trace(_gram(weights(bad))))

    def diverges(matrices: np.ndarray) -> np.ndarray:
        if np.isclose(np.trace(matrices, axis1=-2, axis2=-1), bad_trace).any():
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return np.asarray(real(matrices))

    monkeypatch.setattr(np.linalg, "eigvalsh", diverges)
    found = network_spectra(SMALL, weights, workers=2)
    assert caplog.text.count("eigvalsh failed on a matrix of order 8") == 1
    for one, other in zip(found, expected, strict=True):
        if one.layer == bad:
            np.testing.assert_allclose(one.values, other.values, rtol=1e-6)
        else:
            assert one.values.tobytes() == other.values.tobytes()
    monkeypatch.setattr("scipy.linalg.eigh", lambda *_, **__: diverges(_gram(weights(bad))))
    with pytest.raises(SpectrumError, match="layer layer2: no LAPACK driver"):
        network_spectra(SMALL, weights, workers=2)


def _gram(W: np.ndarray) -> np.ndarray:
    return lapack.Lapack("float64").begin(W, _exponent(W))


def test_blocks_cover_the_longer_side_whatever_the_orientation() -> None:
    assert list(column_blocks(5, 8192)) == [0]
    assert list(column_blocks(20000, 5)) == list(column_blocks(5, 20000)) == [0, 5000, 10000, 15000]
    assert list(column_blocks(4096, 25088)) == [0, 6272, 12544, 18816]
    for shape in ((7, 8193), (9000, 9001), (3, 100_001), (10_000, 40_000)):
        small, large = sorted(shape)
        starts = column_blocks(*shape)
        assert len(starts) % 2 == 0
        assert starts.step <= max(8192, small)
        assert large - 2 * len(starts) < starts[-1] + starts.step - len(starts) <= large


@pytest.mark.parametrize("shape", [(12, 30000), (30000, 12)])
def test_bits_do_not_depend_on_the_threads_within_a_layer(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    real = eigenvalues._side_by_side

    def noted(pool: Any, threads: int, *rest: Any) -> Any:
        shared.append(threads)
        return real(pool, threads, *rest)

    monkeypatch.setattr(eigenvalues, "_side_by_side", noted)
    wanted = layer(*shape, 0)
    mean, values = layer_spectrum(weights(wanted))
    for workers in (1, 2, 3):
        (found,) = network_spectra([wanted], weights, workers=workers)
        assert (found.mean, found.values.tobytes()) == (mean, values.tobytes())
    assert shared == [2, 3]
    # Sums of 30,000 products in float64 are good to some 1e-13, what float32 keeps of them to 6e-8.
    W = weights(wanted).astype(np.float64)
    dense = np.linalg.eigvalsh(W.T @ W if shape[0] > shape[1] else W @ W.T)
    assert mean * values == pytest.approx(dense, rel=1e-6)


def test_terms_of_a_product_are_not_piled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapack, "COLUMNS", 16)
    wanted = layer(200, 20_000, 0)
    assert len(column_blocks(wanted.p, wanted.q)) == 100
    W = weights(wanted)

    def most(workers: int) -> int:
        tracemalloc.start()
        try:
            network_spectra([wanted], lambda _: W, workers=workers)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    gram = 8 * 200 * 200
    # The sum, a term a thread and those being added, blocks of as many columns as rows, and LAPACK's copy: a hundred
    # terms would be a hundred.
    assert most(2) < 12 * gram
    monkeypatch.setattr(eigenvalues, "islice", lambda left, _: islice(left, 100))
    assert most(2) > 90 * gram


def test_of_several_broken_layers_the_costliest_is_named() -> None:
    layers = [layer(4, 5, 0), layer(20, 30, 1), layer(8, 9, 2)]

    def zeros(wanted: LayerMatrix) -> np.ndarray:
        return np.zeros((wanted.p, wanted.q), np.float32)

    for _ in range(20):
        with pytest.raises(SpectrumError, match="layer layer1: "):
            network_spectra(layers, zeros, workers=3)


def test_a_broken_layer_whose_product_is_shared_is_named() -> None:
    layers = [layer(12, 30_000, 0), layer(4, 5, 1)]
    with pytest.raises(SpectrumError, match="layer layer0: all weights are zero"):
        network_spectra(layers, lambda wanted: np.zeros((wanted.p, wanted.q), np.float32), workers=2)


def test_a_network_without_layers() -> None:
    with pytest.raises(SpectrumError, match="no layers"):
        network_spectra([], weights)


@pytest.mark.parametrize(
    ("workers", "words"), [(0, "workers must be at least 1, not 0"), (-1, "not -1"), (1.5, "must be an integer")]
)
def test_workers_that_can_do_nothing(workers: Any, words: str) -> None:
    with pytest.raises(SpectrumError, match=words):
        network_spectra([layer(2, 3)], weights, workers=workers)
