"""Cores kept busy: a costly layer neither holds the others up nor, where its product divides, waits for one core."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import SpectrumError
from registry.spectral import eigen, layer_spectrum, network, network_spectra
from registry.spectral.eigen import column_blocks, spectrum
from tests.spectral.factory import layer

if TYPE_CHECKING:
    from registry.types import LayerMatrix, Spectrum


def weights(wanted: LayerMatrix) -> np.ndarray:
    return np.random.default_rng(wanted.position).standard_normal((wanted.p, wanted.q), np.float32)


def test_the_costliest_layer_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer(40, 50, 0), *(layer(3, 4, at) for at in range(1, 9))]
    others, ended, lock = Event(), [0], Lock()

    def watched(wanted: LayerMatrix, W: np.ndarray) -> Spectrum:
        if wanted.position == 0:
            # One worker is here until the other has done all the rest; holding them up would end in the timeout.
            assert others.wait(10), "the other layers wait for the costliest"
        else:
            with lock:
                ended[0] += 1
                if ended[0] == len(layers) - 1:
                    others.set()
        return spectrum(wanted, W)

    monkeypatch.setattr(network, "spectrum", watched)
    assert len(network_spectra(layers, weights, workers=2)) == len(layers)


def test_blocks_cover_the_longer_side_whatever_the_orientation() -> None:
    assert list(column_blocks(5, 8192)) == [0]
    assert list(column_blocks(20000, 5)) == list(column_blocks(5, 20000)) == [0, 8192, 16384]
    assert list(column_blocks(4096, 25088)) == [0, 16384]


@pytest.mark.parametrize("shape", [(12, 30000), (30000, 12)])
def test_bits_do_not_depend_on_the_threads_within_a_layer(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []

    def noted(threads: int) -> ThreadPoolExecutor:
        pools.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(eigen, "ThreadPoolExecutor", noted)
    wanted = layer(*shape, 0)
    mean, values = layer_spectrum(weights(wanted))
    for workers in (1, 2, 3):
        (found,) = network_spectra([wanted], weights, workers=workers)
        assert (found.mean, found.values.tobytes()) == (mean, values.tobytes())
    assert pools == [2, 3]
    # Sums of 30,000 products in float64 are good to some 1e-13, what float32 keeps of them to 6e-8.
    W = weights(wanted).astype(np.float64)
    dense = np.linalg.eigvalsh(W.T @ W if shape[0] > shape[1] else W @ W.T)
    assert mean * values == pytest.approx(dense, rel=1e-6)


def test_of_several_broken_layers_the_costliest_is_named() -> None:
    layers = [layer(4, 5, 0), layer(20, 30, 1), layer(8, 9, 2)]

    def zeros(wanted: LayerMatrix) -> np.ndarray:
        return np.zeros((wanted.p, wanted.q), np.float32)

    for _ in range(20):
        with pytest.raises(SpectrumError, match="layer layer1: "):
            network_spectra(layers, zeros, workers=3)
