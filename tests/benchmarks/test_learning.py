"""Numbers learned on labelled networks: what they are learned from, and what they are worth elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.retrieval import folds
from benchmarks.retrieval.architectures import gaussian_values, plan_of
from benchmarks.retrieval.learning import SHIPPED, Sample, learned, neutral, sample_of
from benchmarks.retrieval.models import Models
from benchmarks.retrieval.scores import retrieval
from registry.errors import WeightsError
from registry.sources import open_module, plan_weights
from registry.spectral import layer_spectrum
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
from registry.types import LayerMatrix, Spectrum

BLOCKS = list(LAYERED_BLOCKS)


def network(family: int, seed: int) -> tuple[Spectrum, ...]:
    """Twelve families told by how widths change along four layers; width, kernels and depth are each network's own."""
    rng = np.random.default_rng([family, seed])
    steps = np.random.default_rng(family).choice([0.25, 0.5, 1, 2, 4], 4)
    width, kernel = int(rng.choice([16, 24, 32, 48])), int(rng.choice([1, 3, 5]))
    layers, c = [], 3
    for at in range(4 * int(rng.integers(1, 4))):
        p = max(2, int(width * steps[at % 4]))
        layers.append(LayerMatrix(at, f"{at}", f"{at}", (p, c, kernel, kernel), "conv"))
        c = p
    return tuple(Spectrum(layer, 1.0, gaussian_values(layer.p, layer.q)) for layer in layers)


def made(families: int = 12, each: int = 4) -> Sample:
    pairs = [(family, seed) for family in range(families) for seed in range(each)]
    names = [f"{family:02d}-{seed}" for family, seed in pairs]
    spectra = [network(*pair) for pair in pairs]
    topology = np.array(["x".join(f"{s.layer.p},{s.layer.q}" for s in network) for network in spectra])
    return sample_of(Models(names, np.array([name[:2] for name in names]), topology, spectra, []))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_start_looks_at_no_label() -> None:
    sample = made()
    start = neutral(sample, BLOCKS)
    shuffled = Sample(np.random.default_rng(0).permutation(sample.family), sample.topology, sample.points, sample.fixed)
    assert neutral(shuffled, BLOCKS) == start
    means = [sample.distances(start, [block]).mean() for block in BLOCKS]
    np.testing.assert_allclose(means, 1 / len(BLOCKS), rtol=1e-4)
    # Columns that never differ count for what the least deviation allows, and not for infinitely much.
    assert start["pairs", "kind"] == pytest.approx(0.5 / 0.15 / 6**0.5)


def test_learning_finds_what_tells_families_apart_on_families_it_has_not_seen() -> None:
    sample = made()
    found = folds.held_out(sample, folds.fitted([sample], BLOCKS, 1), BLOCKS, sample)
    assert found.everything.query.tolist() == list(range(48))
    before = retrieval(sample.distances(neutral(sample, BLOCKS)), sample.family).mean()[1]
    assert found.everything.mean()[1] > before + 0.05
    # Where labels mean nothing there is nothing to be learned for others.
    mixed = Sample(np.random.default_rng(1).permutation(sample.family), sample.topology, sample.points, sample.fixed)
    chance = folds.held_out(mixed, folds.fitted([mixed], BLOCKS, 1), BLOCKS, mixed)
    assert chance.everything.mean()[1] < before - 0.05


def test_families_left_out_do_not_choose_their_numbers() -> None:
    sample = made(10, 3)
    fold = folds.fold_of(sample.family)
    assert sorted({int(fold[sample.family == name].min()) for name in sample.family}) == [0, 1, 2, 3, 4]
    assert all(len(set(fold[sample.family == name].tolist())) == 1 for name in sample.family)
    out = fold == 2
    points = {
        name: (torch.where(torch.from_numpy(out)[model][:, None], columns + 3.0, columns), model, weights)
        for name, (columns, model, weights) in sample.points.items()
    }
    other = Sample(sample.family, sample.topology, points, sample.fixed)
    (plain,), (moved,) = (folds.fitted([each], BLOCKS, 1) for each in (sample, other))
    assert moved[2] == plain[2]
    assert moved[0] != plain[0]
    assert learned([sample.of(~out)], BLOCKS) == plain[2]


def test_families_left_out_do_not_choose_their_transform() -> None:
    sample = made(10, 3)
    found = folds.held_out(sample, folds.as_shipped(1), BLOCKS, sample)
    fold = folds.fold_of(sample.family)
    for left in range(folds.FOLDS):
        transform = sample.of(fold != left).transform(SHIPPED)
        own = fold == left
        np.testing.assert_array_equal(found.distances[own], sample.distances(SHIPPED, BLOCKS, transform)[own])
        assert (found.distances[~own] != sample.distances(SHIPPED, BLOCKS, transform)[~own]).any()
    assert found.means.shape == (1, 2, 3)
    scores = retrieval(found.distances, sample.family, sample.topology)
    np.testing.assert_array_equal(found.across.figures, scores.figures)
    # Without a teacher there is no transform; one of other families is divided as they are.
    plain = folds.held_out(sample, folds.as_shipped(1), BLOCKS, None)
    np.testing.assert_array_equal(plain.distances, sample.distances(SHIPPED))
    teacher = made(7, 3)
    taught = folds.held_out(sample, folds.as_shipped(1), BLOCKS, teacher)
    transform = teacher.of(folds.fold_of(teacher.family) != 1).transform(SHIPPED)
    np.testing.assert_array_equal(taught.distances[fold == 1], sample.distances(SHIPPED, BLOCKS, transform)[fold == 1])


def test_blocks_that_are_left_out_stay_as_they_began() -> None:
    sample = made(6, 3)
    names = [block for block in BLOCKS if block not in ("spectra", "depths")]
    start, found = neutral(sample, names), learned([sample], names)
    assert {key for key in found if found[key] != start[key]} <= {key for key in found if key[0] in names}
    assert found["pairs", "step"] != start["pairs", "step"]


@pytest.mark.parametrize("shape", [(200, 900), (900, 200), (300, 300)])
def test_eigenvalues_of_gaussian_shapes(shape: tuple[int, int]) -> None:
    found = gaussian_values(*shape)
    assert found.shape == (min(shape),)
    assert found.mean() == pytest.approx(1.0, abs=1e-6)
    drawn = layer_spectrum(np.random.default_rng(0).standard_normal(shape))[1]
    # Eigenvalues are rigid: they stray from their places by some log n / n of the whole.
    apart = np.abs(
        np.searchsorted(np.sort(drawn), found, side="right") / min(shape) - (np.arange(len(found)) + 1) / len(found)
    )
    assert apart.max() < 3 * np.log(min(shape)) / min(shape)
    other = gaussian_values(min(shape), 3 * max(shape))
    assert np.abs(np.searchsorted(drawn, other) / min(shape) - (np.arange(len(other)) + 0.5) / len(other)).max() > 0.05


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(8, 16)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.embedding.weight


def test_shapes_alone_give_the_plan_that_weights_give() -> None:
    with torch.device("meta"):
        bare = plan_of(Tied(), "tied")
    torch.manual_seed(0)
    with open_module(Tied()) as checkpoint:
        full = plan_weights(checkpoint)
    assert bare.layers == full.layers
    assert (bare.topology, bare.parameters) == (full.topology, full.parameters)
    assert [each.name for each in bare.skipped if "tied" in each.reason] == ["head.weight"]


def test_shapes_hold_no_data() -> None:
    from benchmarks.retrieval.architectures import _Shapes

    with _Shapes(nn.Linear(3, 4), "bare") as checkpoint, pytest.raises(WeightsError, match="holds no data"):
        checkpoint.read("weight")
