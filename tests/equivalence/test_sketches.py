"""Weight sketches: unbiased, of the stated variance, folded exactly, and the same however a layer is given."""

from __future__ import annotations

import numpy as np
import pytest

from registry.equivalence import sketches
from registry.equivalence.sketches import FEWEST, MOST, buckets_for, centred, folded, sketch_of, variances

SHAPES = [((64, 128), ()), ((48, 27), (3, 3)), ((20, 9), (3, 3)), ((96, 64), ()), ((10, 7), ())]


def shape_of(shape: tuple[int, int], kernel: tuple[int, ...]) -> np.ndarray:
    positions = int(np.prod(kernel, dtype=int))
    return np.array([[shape[0], shape[1] // positions, positions]], np.int64)


def dense(matrix: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """Centring in float64, a mean at a time."""
    layer = matrix.astype(np.float64).reshape(len(matrix), -1, int(np.prod(kernel, dtype=int)))
    layer = layer - layer.mean(axis=0)
    return layer - layer.mean(axis=1, keepdims=True) if layer.shape[1] > 1 else layer


def cosine(one: np.ndarray, other: np.ndarray, kernel: tuple[int, ...]) -> float:
    a, b = dense(one, kernel), dense(other, kernel)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def estimate(one: np.ndarray, other: np.ndarray, kernel: tuple[int, ...], buckets: int) -> float:
    a, b = sketch_of(one, kernel, buckets), sketch_of(other, kernel, buckets)
    assert a is not None
    assert b is not None
    return float(a.astype(np.float64) @ b.astype(np.float64))


@pytest.mark.parametrize(("shape", "kernel"), SHAPES)
@pytest.mark.parametrize("buckets", [FEWEST, 128])
@pytest.mark.parametrize("mixed", [0.0, 0.6])
def test_the_estimate_is_unbiased_and_of_the_stated_variance(
    shape: tuple[int, int], kernel: tuple[int, ...], buckets: int, mixed: float
) -> None:
    """Signs and buckets are fixed by the shape, so that the weights are what is drawn."""
    rng = np.random.default_rng([*shape, buckets])
    errors = []
    for _ in range(400):
        one = rng.standard_normal(shape)
        other = mixed * one + np.sqrt(1 - mixed**2) * rng.standard_normal(shape)
        errors.append(estimate(one, other, kernel, buckets) - cosine(one, other, kernel))
    # Of two directions of correlation c the collisions have the variance 1 + c^2 times that of unrelated ones.
    [whole] = variances(shape_of(shape, kernel), buckets)
    outputs, inputs, positions = shape_of(shape, kernel)[0].tolist()
    collisions = whole - 1 / ((outputs - 1) * max(1, inputs - 1) * positions)
    stated = collisions * (1 + mixed**2)
    rounding = 1e-8  # of float16, all that there is where no two elements share a bucket
    assert abs(np.mean(errors)) < 4 * np.sqrt((stated + rounding) / 400)
    assert np.var(errors) == pytest.approx(stated, rel=0.3, abs=rounding)


@pytest.mark.parametrize(("shape", "kernel"), SHAPES)
def test_unrelated_layers_have_the_stated_variance_in_all(shape: tuple[int, int], kernel: tuple[int, ...]) -> None:
    rng = np.random.default_rng(shape)
    found = [estimate(rng.standard_normal(shape), rng.standard_normal(shape), kernel, FEWEST) for _ in range(600)]
    [stated] = variances(shape_of(shape, kernel), FEWEST)
    assert abs(np.mean(found)) < 4 * np.sqrt(stated / 600)
    assert np.var(found) == pytest.approx(stated, rel=0.25)


@pytest.mark.parametrize(("shape", "kernel"), [*SHAPES, ((300, 900), (3, 3)), ((512, 512), ())])
def test_folding_gives_what_fewer_buckets_would_have_given(shape: tuple[int, int], kernel: tuple[int, ...]) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    most = sketch_of(matrix, kernel, MOST)
    assert most is not None
    for buckets in (16, 64, 512):
        fewer = sketch_of(matrix, kernel, buckets)
        assert fewer is not None
        assert np.allclose(folded(most, buckets), fewer, atol=2e-3)  # both rounded to float16


@pytest.mark.parametrize("buckets", [16, 64, MOST])
@pytest.mark.parametrize(("shape", "kernel"), [((9, 8), ()), ((50, 90), (3, 3)), ((128, 128), ())])
def test_factors_give_the_bits_of_flipped_signs(
    shape: tuple[int, int], kernel: tuple[int, ...], buckets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert matrix.size <= sketches._SMALL
    found = sketch_of(matrix, kernel, buckets)
    monkeypatch.setattr(sketches, "_SMALL", 0)
    flipped = sketch_of(matrix, kernel, buckets)
    assert found is not None
    assert flipped is not None
    assert found.any()
    assert found.tobytes() == flipped.tobytes()


@pytest.mark.parametrize(("shape", "kernel"), [((300, 900), (3, 3)), ((64, 8192), ()), ((700, 300), ())])
def test_a_sketch_does_not_depend_on_the_chunks_it_is_made_of(
    shape: tuple[int, int], kernel: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the definition, one element after the other, in float64."""
    matrix = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    found = sketch_of(matrix, kernel, 64)
    layer = dense(matrix, kernel)
    bits = sketches._signs(layer.shape)
    signs = 1 - 2 * np.unpackbits(bits, count=layer.size, bitorder="little").astype(int)
    buckets = np.resize(sketches._places(MOST), layer.size) % 64
    expected = np.bincount(buckets, signs * layer.reshape(-1), 64) / np.linalg.norm(layer)
    assert np.allclose(found, expected, atol=1e-3)
    monkeypatch.setattr(sketches, "_REMEMBERED", 1 << 30)
    again = sketch_of(matrix, kernel, 64)
    assert found is not None
    assert again is not None
    assert found.tobytes() == again.tobytes()


def test_signs_are_even_and_each_block_fills_the_buckets_equally() -> None:
    one, other = (np.unpackbits(sketches._signs(shape)) for shape in ((200, 100, 9), (100, 200, 9)))
    assert one.mean() == pytest.approx(0.5, abs=0.01)
    assert (one == other).mean() == pytest.approx(0.5, abs=0.01)
    blocks = sketches._places(MOST).reshape(-1, MOST)
    for block in blocks:
        assert sorted(block.tolist()) == list(range(MOST))
    assert len({block[0] for block in blocks}) > 50


def test_permuted_units_and_constants_are_unrelated() -> None:
    rng = np.random.default_rng(3)
    one = rng.standard_normal((128, 64)) + 3
    permuted = one[rng.permutation(128)][:, rng.permutation(64)]
    assert abs(estimate(one, permuted, (), 512)) < 0.15
    assert estimate(one, one, (), 512) == pytest.approx(1, abs=0.15)
    assert sketch_of(np.full((20, 20), 0.1, np.float32), (), 16) is None
    assert sketch_of(np.zeros((20, 20), np.float32), (), 16) is None
    assert sketch_of(np.ones((1, 900)), (), 16) is None  # nothing is left beside the mean over outputs
    assert sketch_of(np.eye(7), (), 16) is None  # 49 elements


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30, 1e300])
def test_the_scale_of_a_layer_does_not_matter(scale: float) -> None:
    matrix = np.random.default_rng(4).standard_normal((40, 50))
    one, other = sketch_of(matrix, (), 64), sketch_of(matrix * scale, (), 64)
    assert one is not None
    assert other is not None
    assert np.allclose(one, other, atol=1e-3)


def test_centring_takes_the_means_away() -> None:
    layer, norm = centred(np.random.default_rng(5).standard_normal((30, 45)) + 2, (3, 3))
    assert np.abs(layer.mean(axis=0)).max() < 1e-6
    assert np.abs(layer.mean(axis=1)).max() < 1e-6
    assert 0 < float(np.linalg.norm(layer)) < norm


@pytest.mark.parametrize(("layers", "buckets"), [(1, 1024), (2, 1024), (3, 512), (20, 64), (128, 16), (9000, 16)])
def test_a_model_has_some_2048_numbers_and_16_a_layer_at_least(layers: int, buckets: int) -> None:
    assert buckets_for(layers) == buckets
