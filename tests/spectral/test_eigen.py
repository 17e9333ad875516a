from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from registry.errors import SpectrumError
from registry.spectral import lapack
from registry.spectral.eigenvalues import layer_spectrum, spectral_entropy, spectrum
from tests.spectral.factory import layer

SHAPES = [(1, 1), (2, 2), (3, 40), (40, 3), (64, 64), (1, 7), (120, 80)]


def weights(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_singular_values_in_float64(shape, dtype):
    W = weights(shape, 1, dtype)
    mean, values = layer_spectrum(W)
    exact = np.sort(np.linalg.svd(W.astype(np.float64), compute_uv=False) ** 2)
    assert values.dtype == np.float32
    assert values.shape == (min(shape),)
    assert (np.diff(values) >= 0).all()
    assert mean == pytest.approx(exact.mean(), rel=1e-12)
    assert mean == pytest.approx((W.astype(np.float64) ** 2).sum() / min(shape), rel=1e-12)
    # Float32 rounds to 6e-8 relative, the Gram matrix errs by some 1e-16 of the largest eigenvalue.
    np.testing.assert_allclose(values, exact / exact.mean(), rtol=1.2e-7, atol=1e-14 * values[-1])
    assert values.astype(np.float64).mean() == pytest.approx(1, abs=1e-6)


def test_small_eigenvalues_are_right_where_single_precision_is_wrong():
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.standard_normal((64, 64)))[0] for _ in range(2))
    wanted = np.geomspace(1e-9, 1, 64)
    W = (left * np.sqrt(wanted)) @ right
    mean, values = layer_spectrum(W)
    np.testing.assert_allclose(values * mean, wanted, rtol=1e-6)
    single = np.linalg.eigvalsh(W.astype(np.float32) @ W.astype(np.float32).T)
    assert np.abs(single / wanted - 1).max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_layout_transposition_and_scale_change_no_bit(shape):
    W = weights(shape, 3)
    mean, values = layer_spectrum(W)
    padded = np.zeros(W.nbytes + 1, dtype=np.uint8)
    unaligned = padded[1:].view(np.float32).reshape(shape)
    unaligned[...] = W
    strided = np.zeros((2 * shape[0], 3 * shape[1]), dtype=np.float32)[::2, ::3]
    strided[...] = W
    for other in (np.asfortranarray(W), unaligned, strided, W[::-1][::-1], W.astype(np.float64)):
        again = layer_spectrum(other)
        assert again[0] == mean
        np.testing.assert_array_equal(again[1], values)
    turned = layer_spectrum(W.T)
    if shape[0] != shape[1]:
        assert turned[0] == mean
        np.testing.assert_array_equal(turned[1], values)
    else:
        # A square matrix has no smaller side: W^T W rounds otherwise than W W^T.
        np.testing.assert_allclose(turned[1], values, rtol=1.2e-7, atol=1e-13)
    for power in (-80, -3, 5, 100):
        scaled = layer_spectrum(W * np.float32(2.0**power))
        np.testing.assert_array_equal(scaled[1], values)
        assert scaled[0] == mean * 4.0**power
    if min(shape) > 1:
        assert (layer_spectrum(W * np.linspace(1, 2, shape[1], dtype=np.float32))[1] != values).any()


def test_permuted_units_change_nothing_beyond_the_last_bit():
    W = weights((30, 50), 4)
    rng = np.random.default_rng(5)
    _, values = layer_spectrum(W)
    _, permuted = layer_spectrum(W[rng.permutation(30)][:, rng.permutation(50)])
    np.testing.assert_allclose(permuted, values, rtol=2.5e-7, atol=1e-13)
    assert np.abs(layer_spectrum(rng.permuted(W, axis=1))[1] / values - 1).max() > 1e-3


@pytest.mark.parametrize("shape", [(40, 500), (500, 40)])
def test_blocks_of_columns_add_up(monkeypatch, shape):
    W = weights(shape, 6)
    whole = layer_spectrum(W)
    monkeypatch.setattr(lapack, "COLUMNS", 7)
    blocks = layer_spectrum(W)
    assert blocks[0] == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(blocks[1], whole[1], rtol=1.2e-7)


@pytest.mark.parametrize(("size", "dtype"), [(1e-30, np.float32), (1e30, np.float32), (1e-44, np.float32)])
def test_extreme_weights_neither_overflow_nor_vanish(size, dtype):
    W = (weights((20, 30), 7) * size).astype(dtype)
    mean, values = layer_spectrum(W)
    exact = np.sort(np.linalg.svd(W.astype(np.float64) / size, compute_uv=False) ** 2)
    np.testing.assert_allclose(values, exact / exact.mean(), rtol=1e-5)
    assert 0 < mean < np.inf


def test_extremes_of_double_precision():
    W = weights((5, 6), 8, np.float64)
    np.testing.assert_array_equal(layer_spectrum(W * 2.0**-500)[1], layer_spectrum(W)[1])
    for size in (1e200, 1e-200, 1e-318):
        with pytest.raises(SpectrumError, match="are outside the range of float64"):
            layer_spectrum(W * size)


def test_rank_deficient_matrices_have_no_negative_values():
    W = np.outer(np.arange(1, 30.0), np.ones(40))
    mean, values = layer_spectrum(W)
    assert (values >= 0).all()
    assert values[-1] == pytest.approx(29)
    assert (values[:-1] < 1e-12).all()
    assert mean == pytest.approx((W**2).sum() / 29)


def test_repeated_eigenvalues():
    mean, values = layer_spectrum(np.eye(200, dtype=np.float32) * 3)
    np.testing.assert_array_equal(values, 1)
    assert mean == 9


def test_another_driver_takes_over(monkeypatch, caplog):
    W = weights((20, 30), 9)
    _, values = layer_spectrum(W)

    def diverges(_):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigvalsh", diverges)
    with caplog.at_level(logging.WARNING):
        _, rescued = layer_spectrum(W)
    assert "order 20" in caplog.text
    np.testing.assert_allclose(rescued, values, rtol=1e-6)
    monkeypatch.setattr("scipy.linalg.eigh", lambda *_, **__: diverges(_))
    with pytest.raises(SpectrumError, match="no LAPACK driver"):
        layer_spectrum(W)


@pytest.mark.parametrize(
    ("W", "words"),
    [
        (np.array([[1.0, np.nan], [0, 1]]), "1 of 4 weights is NaN or infinite"),
        (np.array([[1.0, np.inf], [-np.inf, 1]], dtype=np.float32), "2 of 4 weights"),
        (np.zeros((3, 4)), "all weights are zero"),
        (np.zeros((0, 4)), "shape \\(0, 4\\)"),
        (np.ones(3), "shape \\(3,\\)"),
        (np.ones((2, 2, 2)), "shape \\(2, 2, 2\\)"),
        (np.ones((2, 2), dtype=complex), "complex128"),
        (np.array([["a"]]), "real numbers"),
    ],
)
def test_bad_input(W, words):
    with pytest.raises(SpectrumError, match=words):
        layer_spectrum(W)


def test_spectrum_of_a_named_layer():
    W = weights((4, 3, 2, 2))
    place = layer(4, 12)
    found = spectrum(place, W.reshape(4, 12))
    assert found.layer is place
    assert (found.mean, found.values.tolist()) == (layer_spectrum(W.reshape(4, 12))[0], found.values.tolist())
    with pytest.raises(SpectrumError, match="layer layer0 has shape"):
        spectrum(place, W)
    with pytest.raises(SpectrumError, match="layer layer0: all weights are zero"):
        spectrum(place, np.zeros((4, 12)))


def test_published_weights_with_nan(zoo):
    tensors = load_file(zoo / "broken" / "nan-weights.safetensors")
    matrices = [t.reshape(len(t), -1) for t in tensors.values() if t.ndim > 1 and t.dtype.kind == "f"]
    broken = [W for W in matrices if not np.isfinite(W).all()]
    assert broken
    for W in broken:
        with pytest.raises(SpectrumError, match="NaN or infinite"):
            layer_spectrum(W)


def test_entropy():
    assert spectral_entropy([3.0, 3.0, 3.0]) == pytest.approx(1)
    found = [spectral_entropy(np.full(n, 0.1)) for n in range(2, 200)]
    assert min(found) > 1 - 1e-12
    assert max(found) == 1  # rounding would make it a little more
    assert {type(value) for value in found} == {float}
    assert spectral_entropy([0.0, 0.0, 3.0]) == 0
    assert spectral_entropy([5.0]) == 0
    assert spectral_entropy([1.0, 3.0]) == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)))
    for values in ([], [0.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(SpectrumError):
            spectral_entropy(values)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_of_torch(dtype):
    torch = pytest.importorskip("torch")
    trained = torch.nn.Linear(40, 30).to(getattr(torch, dtype)).weight
    assert trained.requires_grad
    mean, values = layer_spectrum(trained)
    exact, wanted = layer_spectrum(trained.detach().double().numpy())
    # Casting up to float32 loses nothing, so that the numbers are the very ones.
    assert mean == exact
    np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(spectrum(layer(30, 40), trained).values, wanted)


def test_what_is_no_matrix_of_numbers_is_named():
    torch = pytest.importorskip("torch")
    for wrong in ([[1.0, 2.0], [3.0]], torch.eye(3).to_sparse(), torch.empty(3, 3, device="meta")):
        with pytest.raises(SpectrumError, match="must be a matrix of numbers"):
            layer_spectrum(wrong)
    with pytest.raises(SpectrumError, match=r"not of shape \(4, 3, 2, 2\) \(reshape a kernel"):
        layer_spectrum(np.ones((4, 3, 2, 2)))


def test_importing_spectra_loads_neither_scipy_nor_torch():
    code = "import sys, registry.spectral, registry.ensembles; print({'scipy', 'torch'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
