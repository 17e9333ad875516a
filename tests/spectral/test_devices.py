"""The spectra of torch, on the processor, against those of LAPACK; and what is said where there is no device.

What runs on a CUDA device is this code with another device: no test here needs one.
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from registry.errors import RegistryError, SpectrumError, UsageError
from registry.spectral import devices, eigenvalues, lapack, layer_spectrum, network_spectra
from registry.spectral.devices import TorchSolver, device_at_hand
from registry.spectral.eigenvalues import spectrum
from tests.spectral.factory import layer

SHAPES = [(1, 1), (2, 2), (3, 40), (40, 3), (64, 64), (120, 80), (30, 20_000), (20_000, 30)]


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(shape: tuple[int, int], dtype: Any = np.float32, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(shape) * size).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1), (np.float64, 1), (np.float32, 1e-40), (np.float32, 1e37)])
def test_equal_to_lapack_in_double_precision(shape: tuple[int, int], dtype: Any, size: float) -> None:
    W = weights(shape, dtype, size)
    mean, values = layer_spectrum(W)
    found = spectrum(layer(*shape), W, TorchSolver("float64", "cpu"))
    assert found.mean == pytest.approx(mean, rel=1e-13)
    assert (found.values.dtype, found.values.shape) == (np.float32, values.shape)
    # One unit in the last place of float32, and what the Gram matrix rounds.
    np.testing.assert_allclose(found.values, values, rtol=1.2e-7, atol=1e-14 * values[-1])
    # Were it single precision, some value would show it.
    if min(shape) > 10:
        single = spectrum(layer(*shape), W, TorchSolver("float32", "cpu"))
        assert np.abs(single.values / values - 1).max() > 2.4e-7
        np.testing.assert_allclose(single.values, values, rtol=0, atol=1e-6 * values[-1])


def test_views_and_read_only_weights() -> None:
    W = weights((50, 70))
    expected = spectrum(layer(50, 70), W, TorchSolver("float64", "cpu"))
    W.flags.writeable = False
    for other in (W, np.asfortranarray(W), W[::-1][::-1]):
        assert (
            spectrum(layer(50, 70), other, TorchSolver("float64", "cpu")).values.tobytes() == expected.values.tobytes()
        )


@pytest.mark.parametrize("where", ["addmm_", "eigvalsh"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_processor_takes_over(
    where: str, precision: lapack.Precision, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    W = weights((40, 20_000))
    expected = layer_spectrum(W, precision=precision)[1]

    def fails(*_: Any) -> None:
        if where == "addmm_":
            raise torch.OutOfMemoryError("CUDA out of memory.\nOf the allocated memory ...")
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(*((torch.Tensor, "addmm_") if where == "addmm_" else (torch.linalg, "eigvalsh")), fails)
    with caplog.at_level(logging.WARNING):
        found = spectrum(layer(*W.shape), W, TorchSolver(precision, "cpu"))
    assert found.values.tobytes() == expected.tobytes()
    assert "cpu failed on a matrix of order 40 (" in caplog.text
    assert "computing it on the processor" in caplog.text
    assert "allocated" not in caplog.text


def test_other_failures_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        spectrum(layer(4, 5), weights((4, 5)), TorchSolver("float64", "cpu"))


def test_bad_weights_are_named_alike() -> None:
    for W, words in ((np.full((3, 4), np.nan), "12 of 12 weights"), (np.zeros((3, 4)), "all weights are zero")):
        with pytest.raises(SpectrumError, match=f"layer layer0: {words}"):
            spectrum(layer(3, 4), W, TorchSolver("float64", "cpu"))
    with pytest.raises(SpectrumError, match="precision must be"):
        TorchSolver("half", "cpu")  # type: ignore[arg-type]


def test_a_network_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`network_spectra` with the device's solver, which here computes on the processor."""
    matrices = [weights(shape) for shape in SHAPES]
    layers = [layer(*W.shape, at) for at, W in enumerate(matrices)]
    expected = network_spectra(layers, lambda one: matrices[one.position])
    orders: list[int] = []

    class Noted(TorchSolver):
        def begin(self, wide: Any, exponent: int, each: Any = map) -> Any:
            orders.append(len(wide))
            return super().begin(wide, exponent, each)

    monkeypatch.setattr(eigenvalues, "solver_on", lambda device, precision: (Noted(precision, "cpu"), device == "cuda"))
    found = network_spectra(layers, lambda one: matrices[one.position], device="cuda", workers=3)
    assert len(orders) == len(layers)
    for one, W in zip(found, matrices, strict=True):
        assert one.values.tobytes() == spectrum(one.layer, W, TorchSolver("float64", "cpu")).values.tobytes()
        np.testing.assert_allclose(one.values, expected[one.layer.position].values, rtol=1.2e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("driver", "cuda", "available", "reason"),
    [
        (False, "13.0", True, "NVIDIA's driver is not installed"),
        (True, None, False, "this torch is built without CUDA"),
        (True, "13.0", False, "torch finds no device that it can use"),
        (True, "13.0", True, ""),
    ],
)
def test_which_device_is_at_hand(
    driver: bool, cuda: str | None, available: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        assert name == devices.DRIVER
        if not driver:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert device_at_hand("cpu") == "cpu"
    if not reason:
        assert device_at_hand("auto") == device_at_hand("cuda") == "cuda"
        return
    assert device_at_hand("auto") == "cpu"
    with pytest.raises(RegistryError, match=f"no CUDA device is available: {reason}") as missing:
        device_at_hand("cuda")
    assert missing.value.remedy == "use the device auto or cpu"
    with pytest.raises(RegistryError, match="no CUDA device"):
        network_spectra([layer(3, 3)], lambda _: np.eye(3), device="cuda")


def test_unknown_devices() -> None:
    for wanted in ("gpu", "", "cuda:0"):
        with pytest.raises(UsageError, match=f"device must be one of auto, cpu, cuda, not '{wanted}'"):
            network_spectra([layer(3, 3)], lambda _: np.eye(3), device=wanted)  # type: ignore[arg-type]


def test_asking_for_a_device_without_a_driver_does_not_load_torch() -> None:
    code = (
        "import ctypes, sys\n"
        "def none(name): raise OSError(name)\n"
        "ctypes.CDLL = none\n"
        "from registry.spectral.devices import device_at_hand\n"
        "print(device_at_hand('auto'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "False"]
