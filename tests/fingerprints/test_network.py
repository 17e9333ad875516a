"""The layers of a network side by side."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from registry.errors import SpectrumError, WeightsError
from registry.spectral import eigenvalues, network_spectra
from registry.spectral.eigenvalues import spectra, spectrum
from tests.spectral.factory import layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.spectral.lapack import Solver
    from registry.types import LayerMatrix, Spectrum

SIDES = [(5, 9), (40, 200), (2, 2), (64, 64), (200, 40), (3, 300), (30, 30)] * 3
LAYERS = [layer(p, q, at) for at, (p, q) in enumerate(SIDES)]


def weights(wanted: LayerMatrix) -> np.ndarray:
    return np.random.default_rng(wanted.position).standard_normal((wanted.p, wanted.q), np.float32)


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("workers", [1, 2, 3, None])
def test_equal_bit_for_bit_to_one_after_the_other(workers: int | None) -> None:
    with threadpool_limits(limits=1, user_api="blas"):
        expected = [spectrum(each, weights(each)) for each in LAYERS]
    found = network_spectra(LAYERS, weights, workers=workers)
    assert [each.layer for each in found] == LAYERS
    for one, other in zip(found, expected, strict=True):
        assert one.mean == other.mean
        assert one.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_few_layers_are_in_memory_at_a_time(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, in_hand, most = Lock(), [0], [0]

    def read(wanted: LayerMatrix) -> np.ndarray:
        with lock:
            in_hand[0] += 1
            most[0] = max(most[0], in_hand[0])
        return weights(wanted)

    def slow(task: Sequence[LayerMatrix], matrices: Sequence[np.ndarray], solver: Solver) -> tuple[Spectrum, ...]:
        found = spectra(task, matrices, solver)
        time.sleep(0.005)
        with lock:
            in_hand[0] -= 1
        return found

    monkeypatch.setattr(eigenvalues, "LOCKED", 0)
    monkeypatch.setattr(eigenvalues, "spectra", slow)
    assert len(network_spectra(LAYERS, read, workers=workers)) == len(LAYERS)
    # Reading is much faster than this spectrum, so that the bound is also reached: layers do overlap.
    assert most[0] == (workers + 1 if workers > 1 else 1)  # one alone reads and computes by turns


def test_the_costly_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    def read(wanted: LayerMatrix) -> np.ndarray:
        small, large = sorted((wanted.p, wanted.q))
        order.append(small**2 * large + small**3)
        return weights(wanted)

    monkeypatch.setattr(eigenvalues, "LOCKED", 0)
    network_spectra(LAYERS[:7], read, workers=1)
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_out_and_name_the_layer(workers: int) -> None:
    def broken(wanted: LayerMatrix) -> np.ndarray:
        made = weights(wanted)
        made[0, 0] = np.nan if wanted.position == 9 else 1.0
        return made

    with pytest.raises(SpectrumError, match="layer layer9: 1 of") as refused:
        network_spectra(LAYERS, broken, workers=workers)
    assert refused.value.remedy

    def unreadable(wanted: LayerMatrix) -> np.ndarray:
        if wanted.position == 9:
            raise WeightsError("layer9 is damaged")
        return weights(wanted)

    with pytest.raises(WeightsError, match="layer9 is damaged"):
        network_spectra(LAYERS, unreadable, workers=workers)


def test_blas_is_limited_within_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    within: set[int] = set()

    def watched(task: Sequence[LayerMatrix], matrices: Sequence[np.ndarray], solver: Solver) -> tuple[Spectrum, ...]:
        if not all(np.isfinite(W).all() for W in matrices):
            raise SpectrumError("not finite")
        within.update(info["num_threads"] for info in threadpool_info() if "numpy" in info["filepath"])
        return spectra(task, matrices, solver)

    monkeypatch.setattr(eigenvalues, "spectra", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        network_spectra(LAYERS[:3], weights, workers=2)
        assert blas_threads() == before == {2}
        with pytest.raises(SpectrumError):
            network_spectra(LAYERS[:1], lambda each: np.full((each.p, each.q), np.nan), workers=2)
        assert blas_threads() == before
    assert within == {1}
