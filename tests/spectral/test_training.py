from __future__ import annotations

import subprocess
import sys
from itertools import combinations, permutations
from math import isnan

import numpy as np
import pytest

from registry.spectral import network_spectra
from registry.spectral.conjugacy import conjugacy
from registry.spectral.permutation_moments import (
    alignment_moments,
    group_moments,
    normal_scale,
    rectangle_moments,
)
from registry.spectral.training import FIGURES_VERSION, WeightReading, training
from registry.types import Alignments, LayerMatrix, MatrixFigures, VectorCounts, WeightFigures

Z = MatrixFigures._fields[:6]
NONE = VectorCounts()


def layers_of(tensors):
    """Layers of tensors (out, in, *kernel) by name; of one input channel they are depthwise."""
    return [
        LayerMatrix(at, name, name, W.shape, "depthwise" if W.ndim > 2 and W.shape[1] == 1 else "linear", stop=len(W))
        for at, (name, W) in enumerate(tensors.items())
    ]


def measured(*tensors, vectors=NONE, dtypes=()):
    named = {f"layer{at}": np.asarray(W, np.float32) for at, W in enumerate(tensors)}
    layers = layers_of(named)
    reading = WeightReading(layers, lambda layer: named[layer.name].reshape(layer.p, layer.q), dtypes)
    spectra = network_spectra(layers, reading, workers=1)
    return layers, spectra, reading.figures(spectra, vectors)


def judged(*tensors, vectors=NONE):
    layers, _, figures = measured(*tensors, vectors=vectors)
    return training(figures, layers)


def rectangles(W):
    p, q = W.shape
    return sum(
        W[i, k] * W[i, m] * W[j, k] * W[j, m]
        for i, j in combinations(range(p), 2)
        for k, m in combinations(range(q), 2)
    )


def sums(values, order):
    return np.array([[float(values.size)], *([(values**power).sum()] for power in range(1, order + 1))])


ENTRIES = np.array([1.3, -0.7, 2.2, 0.1, -3.0, 0.4])


def test_moments_of_rectangles_and_groups_are_those_of_all_permutations():
    every = [ENTRIES[list(order)].reshape(2, 3) for order in permutations(range(6))]
    found = [rectangles(W) for W in every]
    moments = rectangle_moments(sums(ENTRIES, 8), np.array([2.0]), np.array([3.0]))
    assert moments.mean[0] == pytest.approx(np.mean(found), rel=1e-12)
    assert moments.variance[0] == pytest.approx(np.var(found), rel=1e-12)
    for axis, groups, size in ((1, 2.0, 3.0), (0, 3.0, 2.0)):
        found = [(W.sum(axis=axis) ** 2).sum() - (W**2).sum() for W in every]
        moments = group_moments(sums(ENTRIES, 4), np.array([groups]), np.array([size]))
        assert moments.mean[0] == pytest.approx(np.mean(found), rel=1e-12)
        assert moments.variance[0] == pytest.approx(np.var(found), rel=1e-12)


def test_moments_of_alignments_are_those_of_all_permutations():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 5)) + 0.5
    a, b = a + a.T, b + b.T
    off = ~np.eye(5, dtype=bool)
    found = [(a * b[np.ix_(order, order)])[off].sum() for order in permutations(range(5))]
    statistic, mean, variance = alignment_moments(a, b)
    assert statistic == pytest.approx(found[0], rel=1e-12)
    assert mean == pytest.approx(np.mean(found), rel=1e-12)
    assert variance == pytest.approx(np.var(found), rel=1e-12)


@pytest.mark.parametrize("mean", [0.0, 0.4])
def test_rectangles_of_a_layer_are_those_of_its_centred_entries(mean):
    # By the spectrum and the sums of one pass; with rows and columns of zeros, which are no entries.
    W = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32) + np.float32(mean)
    V = W.astype(np.float64) - W.mean(dtype=np.float64)
    moments = rectangle_moments(sums(V.ravel(), 8), np.array([5.0]), np.array([7.0]))
    z = (rectangles(V) - moments.mean) / np.sqrt(moments.variance)
    expected = normal_scale(z, 2 * (5 + 7 - 4) / np.sqrt(np.array([10.0 * 21.0])))[0]
    padded = np.zeros((7, 9))
    padded[np.ix_([0, 1, 3, 4, 6], [0, 1, 2, 4, 5, 6, 8])] = W
    for given in (W, W.T, 1e-12 * W, 1e12 * W, padded):
        [each] = measured(given)[2].layers
        assert each.rectangles == pytest.approx(expected, abs=2e-4)


def test_a_mean_far_above_the_scatter_does_not_drown_the_norms():
    W = (np.random.default_rng(4).standard_normal((256, 2)) + 50).astype(np.float32)
    V = W.astype(np.float64) - W.mean(dtype=np.float64)
    squares = V**2 / np.mean(V**2) - 1
    [each] = measured(W)[2].layers
    for name, axis, groups, size in (("rows", 1, 256.0, 2.0), ("columns", 0, 2.0, 256.0)):
        moments = group_moments(sums(squares, 4), np.array([groups]), np.array([size]))
        z = ((squares.sum(axis=axis) ** 2).sum() - (squares**2).sum() - moments.mean) / np.sqrt(moments.variance)
        expected = normal_scale(z, np.sqrt(8 / (np.array([groups]) - 1)))[0]
        assert getattr(each, name) == pytest.approx(expected, abs=1e-4)


def test_coefficients_of_expectations_are_worked_out_once():
    """Each process that measures imports them: the recursion without memory took two seconds."""
    code = (
        "import sys, numpy, registry.types\n"
        "calls = [0]\n"
        "def count(frame, event, _):\n"
        "    calls[0] += event == 'call' and frame.f_code.co_name == '_augmented'\n"
        "sys.setprofile(count)\n"
        "import registry.spectral.permutation_moments\n"
        "sys.setprofile(None)\n"
        "print(calls[0])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 0 < int(found.stdout) < 200


def test_kernels_are_a_matrix_of_their_own():
    W = np.random.default_rng(2).standard_normal((4, 3, 2, 2)).astype(np.float32)
    [each] = measured(W)[2].layers
    flat = W.reshape(12, 4).astype(np.float64)
    twelve, four = np.array([12.0]), np.array([4.0])
    squares = flat**2 / np.mean(flat**2) - 1
    for name, statistic, moments, skewness in (
        ("kernels", rectangles(flat), rectangle_moments(sums(flat.ravel(), 8), twelve, four), 24 / np.sqrt(66 * 6)),
        (
            "kernel_sums",
            (flat.sum(1) ** 2).sum() - (flat**2).sum(),
            group_moments(sums(flat.ravel(), 4), twelve, four),
            np.sqrt(8 / 11),
        ),
        (
            "kernel_norms",
            (squares.sum(1) ** 2).sum() - (squares**2).sum(),
            group_moments(sums(squares.ravel(), 4), twelve, four),
            np.sqrt(8 / 11),
        ),
    ):
        z = (statistic - moments.mean) / np.sqrt(moments.variance)
        assert getattr(each, name) == pytest.approx(normal_scale(z, np.array([skewness]))[0], abs=1e-5)


DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),  # its mean is not zero
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.6),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", [(8, 8), (10, 64), (24, 6), (6, 4, 3, 3)])
def test_independent_entries_have_standard_normal_z(draw, shape):
    rng = np.random.default_rng(3)
    drawn = [DRAWS[draw](rng, shape) for _ in range(400)]
    # One network of all of them would be slow to align: figures are by layer, whatever the network.
    figures = [measured(W)[2].layers[0] for W in drawn]
    for name in Z:
        z = np.array([getattr(each, name) for each in figures])
        if np.isnan(z).all():
            continue
        # Standard errors of a mean and of a standard deviation of 400: 0.05 and 0.035; five of each. The skewness that
        # is taken out is that of dense entries, so that the left tail of others is longer, which is never training.
        assert abs(np.nanmean(z)) < 0.25, name
        assert 0.82 < np.nanstd(z) < 1.35, name
        assert np.nanmean(z > 2.33) < 0.035, name  # 1 % and five standard errors
        assert np.nanmax(z) < 5, name


def test_networks_of_independent_layers_are_never_trained():
    rng = np.random.default_rng(4)
    found = [
        judged(rng.standard_normal((48, 64)), rng.standard_normal((48, 48)), rng.standard_normal((10, 48)))
        for _ in range(100)
    ]
    z = np.array([each.z for each in found])
    assert {each.training_class for each in found} == {"untrained"}
    assert abs(z.mean()) < 0.5
    assert 0.75 < z.std() < 1.25


def test_orthogonal_starts_are_silent_and_not_trained():
    rng = np.random.default_rng(5)
    made = [np.linalg.qr(rng.standard_normal((64, n)))[0] for n in (64, 40)]
    layers, _, figures = measured(made[0], made[1].T)
    assert all(each.flat and each.silent for each in figures.layers)
    assert training(figures, layers).training_class == "untrained"


def test_a_change_of_low_rank_is_training():
    rng = np.random.default_rng(6)
    W = rng.standard_normal((64, 48))
    u, v = rng.standard_normal((64, 2)), rng.standard_normal((48, 2))
    assert judged(W).training_class == "untrained"
    found = judged(W + 0.4 * u @ v.T)
    assert (found.training_class, found.layer) == ("trained", "layer0")
    assert found.z > 3.3


def test_what_layers_have_in_common_is_training():
    # Each layer alone is Gaussian; the second reads what the first writes.
    rng = np.random.default_rng(7)
    first = rng.standard_normal((24, 40))
    second = rng.standard_normal((24, 40)) @ first.T
    of_pair, apart = judged(first, second), judged(first, rng.permutation(second, axis=1))
    assert dict(of_pair.evidence)["chain"] > dict(apart.evidence)["chain"] + 3


def test_one_layer_in_many_is_enough():
    rng = np.random.default_rng(8)
    frozen = rng.standard_normal((64, 64)) + np.outer(rng.standard_normal(64), rng.standard_normal(64))
    found = judged(frozen, *(rng.standard_normal((300, 300)) for _ in range(3)), vectors=VectorCounts(4, 0, 8, 0))
    assert found.training_class == "trained"
    assert found.layer == "layer0"


def test_a_repeated_kernel_is_silent():
    blur = np.tile(np.outer([1, 2, 1], [1, 2, 1]) / 16, (32, 1, 1, 1))
    layers, _, figures = measured(blur, np.random.default_rng(9).standard_normal((40, 32)))
    assert figures.layers[0].single
    assert training(figures, layers).training_class == "untrained"


QUIET = np.random.default_rng(10).standard_normal((8, 8))


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        (VectorCounts(), "undetermined"),
        (VectorCounts(biases=2), "undetermined"),
        (VectorCounts(gains=2), "untrained"),
        (VectorCounts(gains=2, gains_moved=1), "trained"),
        (VectorCounts(gains=2, gains_moved=2, statistics=4), "untrained"),  # gains that start at random
        (VectorCounts(gains=2, statistics=4, statistics_moved=4), "untrained"),  # it has only seen data
        (VectorCounts(gains=2, gains_moved=2, statistics=4, statistics_moved=4), "trained"),
        (VectorCounts(statistics=4, statistics_moved=4), "trained"),
        (VectorCounts(statistics=4), "untrained"),
    ],
)
def test_normalisation_decides_where_matrices_tell_nothing(vectors, expected):
    found = judged(QUIET, vectors=vectors)
    assert found.z < 3.3
    assert found.training_class == expected
    assert found.decided_by


def test_matrices_decide_where_they_tell_something():
    tall = np.outer(np.arange(1, 33), np.arange(1, 33)) + 30 * np.random.default_rng(11).standard_normal((32, 32))
    found = judged(tall, vectors=VectorCounts(gains=2, statistics=4))
    assert found.training_class == "trained"


def test_counts_of_an_audit():
    W = np.random.default_rng(12).standard_normal((6, 5))
    W[1] = 0
    W[2] = 0.25
    W[3, 2:4] = 65504, -65504
    figures = measured(W, W, dtypes=("float16", "float32"))[2]
    assert [(each.zero_rows, each.constant_rows, each.saturated) for each in figures.layers] == [(1, 1, 2), (1, 1, 0)]


def test_tiny_and_constant_layers_have_no_z():
    for W in (np.ones((4, 4)), np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])):
        layers, _, figures = measured(W)
        assert training(figures, layers).training_class == "undetermined"
    assert all(isnan(getattr(measured(np.ones((4, 4)))[2].layers[0], name)) for name in Z)


def test_conjugacy_takes_the_class_of_the_figures():
    rng = np.random.default_rng(13)
    _, spectra, figures = measured(rng.standard_normal((40, 40)), vectors=VectorCounts(gains=1, gains_moved=1))
    assert conjugacy(spectra).training_class == "untrained"
    assert conjugacy(spectra, figures).training_class == "trained"
    assert conjugacy(spectra, figures._replace(version=FIGURES_VERSION + 1)).training_class == "untrained"


def test_evidence_that_is_not_there_does_not_count():
    figures = WeightFigures((MatrixFigures(),), Alignments(), VectorCounts(), FIGURES_VERSION)
    found = training(figures, layers_of({"only": np.ones((40, 40))}))
    assert (found.training_class, found.evidence, found.layer) == ("untrained", (), "")
    assert (found.z, found.layer_z) == (None, None)


@pytest.mark.parametrize(
    ("draw", "kurtosis", "extreme"),
    [
        (lambda rng, shape: rng.uniform(-0.1, 0.1, shape), 1.8, 3**0.5),
        (lambda rng, shape: 3 * rng.standard_normal(shape), 3.0, None),
    ],
)
def test_the_law_of_the_entries(draw, kurtosis, extreme):
    """Mean, kurtosis and largest entry, by hand; rows of zeros are no entries."""
    W = draw(np.random.default_rng(0), (100, 80)).astype(np.float32)
    [plain] = measured(W)[2].layers
    entries = W.astype(np.float64).ravel()
    square = np.mean(entries**2)
    assert plain.mean == pytest.approx(entries.sum() / np.sqrt((entries**2).sum()), abs=1e-6)
    assert plain.kurtosis == pytest.approx(np.mean(entries**4) / square**2, rel=1e-6)
    assert plain.extreme == pytest.approx(np.abs(entries).max() / np.sqrt(square), rel=1e-6)
    assert plain.kurtosis == pytest.approx(kurtosis, abs=0.25)
    assert abs(plain.mean) < 4
    if extreme is not None:
        assert plain.extreme == pytest.approx(extreme, rel=0.02)
    [padded] = measured(np.concatenate((W, np.zeros((20, 80), np.float32))))[2].layers
    assert padded[6:9] == pytest.approx(plain[6:9], rel=1e-6)


def test_rows_of_tiny_weights_are_no_rows_of_zeros():
    """Their squares are below the smallest float32; weight decay makes such rows."""
    W = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    W[:3] *= 1e-30
    W[5] = 0
    [figures] = measured(W)[2].layers
    assert figures.zero_rows == 1
