"""The training class without spectra: that of spectra, or none."""

import numpy as np
import pytest

from registry.sources import expand, layer_matrix, open_ref, plan_weights
from registry.sources.matrix_rule import stored_dtypes
from registry.spectral import network_spectra, training_by_traces
from registry.spectral.permutation_moments import matrix_sums
from registry.spectral.training import FLAT, SINGLE, WeightReading, training
from registry.spectral.training_by_traces import judged_by_traces, layer_trace
from registry.types import LayerMatrix, VectorCounts

NONE = VectorCounts()
NORMALISED = VectorCounts(gains=4, statistics=8)


def layers_of(tensors):
    return tuple(LayerMatrix(at, f"{at}.weight", f"{at}.weight", W.shape, "linear") for at, W in enumerate(tensors))


def by_spectra(tensors, vectors=NONE):
    layers = layers_of(tensors)
    reading = WeightReading(layers, lambda layer: tensors[layer.position].reshape(layer.p, layer.q))
    return training(reading.figures(network_spectra(layers, reading, workers=1), vectors), layers)


def by_traces(tensors, vectors=NONE, **known):
    return judged_by_traces(
        layers_of(tensors), lambda layer: tensors[layer.position].reshape(layer.p, layer.q), (), vectors, **known
    )


def normal(rng, *shape):
    return (0.05 * rng.normal(size=shape)).astype(np.float32)


def orthogonal(rng, *shape):
    p, q = shape[0], int(np.prod(shape[1:]))
    Q, R = np.linalg.qr(rng.normal(size=(max(p, q), min(p, q))))
    Q *= np.sign(np.diagonal(R))
    return np.ascontiguousarray((Q if p >= q else Q.T).reshape(shape), np.float32)


def truncated(rng, *shape):
    return (0.02 * np.clip(rng.normal(size=shape), -2, 2)).astype(np.float32)


def uniform(rng, *shape):
    return rng.uniform(-0.1, 0.1, size=shape).astype(np.float32)


def trained(rng, *shape):
    """A random start to which an update of low rank was added."""
    W = normal(rng, *shape).reshape(shape[0], -1)
    return (
        (W + 0.05 * rng.normal(size=(len(W), 2)) @ rng.normal(size=(2, W.shape[1]))).reshape(shape).astype(np.float32)
    )


def nearly_orthogonal(rng, *shape):
    return orthogonal(rng, *shape) + (0.003 * rng.normal(size=shape)).astype(np.float32)


SHAPES = ((24, 16), (64, 3, 3, 3), (96, 64, 3, 3), (128, 96), (40, 128), (10, 40))


@pytest.mark.parametrize("vectors", [NONE, NORMALISED, VectorCounts(gains=4, gains_moved=1)])
@pytest.mark.parametrize("law", [normal, uniform, truncated, orthogonal, nearly_orthogonal, trained])
def test_the_class_is_that_of_spectra(law, vectors):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        tensors = [law(rng, *shape) for shape in SHAPES]
        exact, whole = by_spectra(tensors, vectors), by_traces(tensors, vectors)
        found = whole.training
        means = [float((W.astype(float) ** 2).sum()) / min(len(W), W[0].size) for W in tensors]
        assert whole.means == pytest.approx(means, rel=1e-5)
        assert (found.training_class, found.decided_by) == (exact.training_class, exact.decided_by)
        assert found.z == pytest.approx(exact.z, abs=1e-3)
        assert law is not trained or found.training_class == "trained" or vectors is NORMALISED
        assert found.layer == exact.layer
        assert found.layer_z == pytest.approx(exact.layer_z, abs=1e-3)


def test_published_networks_have_the_class_of_their_spectra(zoo):
    for file in [path for path in sorted(zoo.rglob("*.safetensors")) if path.parent.name != "broken"][::8]:
        with open_ref(expand(file)[0]) as checkpoint:
            plan = plan_weights(checkpoint)
            dtypes = stored_dtypes(checkpoint, plan.layers)

            def read(layer, checkpoint=checkpoint):
                return layer_matrix(checkpoint, layer)

            reading = WeightReading(plan.layers, read, dtypes)
            exact = training(reading.figures(network_spectra(plan.layers, reading), plan.vectors), plan.layers)
            found = judged_by_traces(plan.layers, read, dtypes, plan.vectors).training
        assert (found.training_class, found.decided_by) == (exact.training_class, exact.decided_by), file
        assert found.z == pytest.approx(exact.z, abs=1e-3), file


def test_neither_eigenvalues_of_a_layer_nor_of_a_network_are_computed(monkeypatch):
    def fail(*_given, **_known):
        raise AssertionError("spectra were computed")

    monkeypatch.setattr(training_by_traces, "network_spectra", fail)
    monkeypatch.setattr(training_by_traces, "layer_spectrum", fail)
    rng = np.random.default_rng(1)
    for law in (normal, uniform, truncated, orthogonal, trained):
        assert by_traces([law(rng, *shape) for shape in SHAPES]).training is not None


@pytest.mark.parametrize("scale", [1.0, 1e-12, 3e15])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_traces_are_those_of_the_eigenvalues(dtype, scale):
    rng = np.random.default_rng(2)
    rows_of_zeros = normal(rng, 48, 40)
    rows_of_zeros[:5] = 0
    one = normal(rng, 30, 1) @ normal(rng, 1, 50)
    cases = [normal(rng, 33, 70), orthogonal(rng, 64, 48), rows_of_zeros, one, one + 1e-3 * normal(rng, 30, 50)]
    cases += [1.0 + normal(rng, 64, 64), nearly_orthogonal(rng, 128, 128), normal(rng, 1, 9), normal(rng, 9, 1)]
    for W in cases:
        W = np.ascontiguousarray(W * scale, dtype)
        sums = matrix_sums(W)
        scaled = np.ldexp(W.astype(np.float64), -sums.exponent)
        values = np.linalg.eigvalsh(scaled @ scaled.T)
        values = np.sort(values)[-min(W.shape) :]
        some = max(1, min(sums.rows, sums.columns))
        found = layer_trace(W, sums)
        assert found.squared == pytest.approx((values**2).sum(), rel=1e-6)
        assert found.flat == (values[-1] < FLAT * values[-some])
        assert found.single == (some > 1 and values[-1] > SINGLE * values.sum())


def test_what_bounds_leave_open_is_decomposed():
    rng = np.random.default_rng(3)
    opened = 0
    for spread in np.linspace(0.0, 0.12, 40):
        Q, R = orthogonal(rng, 64, 64).astype(np.float64), orthogonal(rng, 64, 64).astype(np.float64)
        W = (Q * np.sqrt(np.linspace(1, 1 + spread, 64)) @ R).astype(np.float32)
        values = np.linalg.eigvalsh(W.astype(np.float64) @ W.T.astype(np.float64))
        assert layer_trace(W, matrix_sums(W)).flat == (values[-1] < FLAT * values[0])
        opened += values[-1] < FLAT * values[0]
    assert 0 < opened < 40


def test_costly_layers_are_left_out_where_the_rest_tells(monkeypatch):
    rng = np.random.default_rng(4)
    monkeypatch.setattr(training_by_traces, "QUICK", 100_000)
    random = [normal(rng, *shape) for shape in SHAPES]
    exact = by_spectra(random)
    whole = by_traces(random)
    assert (whole.training.training_class, whole.training.z) == ("untrained", pytest.approx(exact.z, abs=1e-3))
    by_vectors = by_traces(random, VectorCounts(gains=3, gains_moved=3))
    assert by_vectors.training.training_class == "trained"
    assert np.isnan(by_vectors.figures.layers[2].rectangles)
    assert not np.isnan(by_vectors.figures.layers[0].rectangles)
    one = [trained(rng, 32, 32), *random[2:]]
    by_one = by_traces(one)
    assert (by_one.training.training_class, by_spectra(one).training_class) == ("trained", "trained")
    assert np.isnan(by_one.figures.layers[1].rectangles)
    monkeypatch.setattr(training_by_traces, "MOST", 200_000)
    unsure = by_traces(random)
    assert unsure.training is None
    assert "without spectra" in unsure.reason


def test_near_a_threshold_spectra_decide(monkeypatch):
    rng = np.random.default_rng(5)
    tensors = [normal(rng, *shape) for shape in SHAPES]
    z = by_spectra(tensors).z
    calls = []
    exact = training_by_traces.network_spectra
    monkeypatch.setattr(training_by_traces, "network_spectra", lambda *a, **k: calls.append(1) or exact(*a, **k))
    monkeypatch.setattr(training_by_traces, "TRAINED_BEYOND", z + 0.01)
    assert by_traces(tensors).training.z == z
    assert calls == [1]
    monkeypatch.setattr(training_by_traces, "MOST_CUBES", 0)
    assert by_traces(tensors).training is None


def test_layers_are_read_in_one_thread_and_seen_once():
    rng = np.random.default_rng(6)
    tensors = [normal(rng, *shape) for shape in SHAPES]
    layers, read, seen = layers_of(tensors), [], []

    def reading(layer):
        read.append(layer.position)
        return tensors[layer.position].reshape(layer.p, layer.q)

    judged_by_traces(layers, reading, (), NONE, also=lambda layer, W: seen.append((layer.position, W.shape)), threads=2)
    assert sorted(read) == list(range(len(SHAPES)))
    assert sorted(seen) == [(layer.position, (layer.p, layer.q)) for layer in layers]
