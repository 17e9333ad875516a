"""Relations of many models at once: the same as one by one, and what signs alone tell of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from registry.equivalence import relations
from registry.equivalence.relations import (
    SketchedLayers,
    judged_all,
    judged_by_signs,
    matched,
    related_layers,
)

LAYERS, BUCKETS = 32, 64
SHAPES = np.array([[64, 64, 9]] * LAYERS)


def of(values: np.ndarray, shapes: np.ndarray = SHAPES, prefix: str = "l") -> SketchedLayers:
    """Layers with these sketches; those of zeros have none."""
    has = values.any(axis=1) & (shapes.prod(axis=1) >= 64)
    names = tuple(f"{prefix}{at}" for at in range(len(shapes)))
    return SketchedLayers(
        tuple(itertools.compress(names, has)),
        shapes[has],
        values[has].astype(np.float32),
        int(shapes.prod(axis=1).sum()),
    )


def drawn(count: int, r: float, seed: int, shape: tuple[int, int] = (LAYERS, BUCKETS)) -> tuple[np.ndarray, np.ndarray]:
    """Sketches of a model, and of others (count, layers, buckets) whose layers correlate by r with its own."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal(shape) / np.sqrt(shape[1])
    noise = rng.standard_normal((count, *shape)) / np.sqrt(shape[1])
    return own.astype(np.float16), (r * own + np.sqrt(1 - r**2) * noise).astype(np.float16)


def test_many_at_once_are_told_as_one_by_one() -> None:
    shapes = np.array([[64, 64, 9], [64, 64, 1], [7, 9, 1], [32, 64, 1], [64, 32, 9], [10, 64, 1]])
    for r in (0.0, 0.12, 0.3, 0.9):
        own, others = drawn(40, r, 3, (6, 256))
        others[::3, 1] = 0  # constant layers
        one = of(own, shapes)
        told = judged_all(one, others, matched(one, shapes, 256))
        for at, values in enumerate(others):
            expected = related_layers(one, of(values, shapes))
            assert told.r[at] == pytest.approx(expected.correlation, abs=1e-5) or told.r[at] > 1
            assert expected.correlation is not None
            assert told.s[at] * np.sqrt(1 + expected.correlation**2) == pytest.approx(expected.error)
            assert told.Z[at] == pytest.approx(expected.score, abs=1e-4)
            assert told.layers[at] == expected.layers
            assert told.share[at] == pytest.approx(expected.share)
            assert told.related[at] == (expected.verdict == "related")


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_are_related_by_the_same_rule(layers: int) -> None:
    for r in (0.2, 0.5, 0.8):
        own, others = drawn(60, r, 5, (layers, 1024))
        one = of(own, SHAPES[:layers])
        told = judged_all(one, others, matched(one, SHAPES[:layers], 1024))
        expected = [related_layers(one, of(values, SHAPES[:layers])).verdict == "related" for values in others]
        assert told.related.tolist() == expected
        assert any(expected) == (r > 0.2)


def test_sketches_of_more_buckets_are_folded() -> None:
    own, others = drawn(20, 0.6, 7, (3, 256))
    coarse = own.astype(np.float64).reshape(3, 4, 64).sum(axis=1).astype(np.float16)
    pairs = matched(of(coarse, SHAPES[:3]), SHAPES[:3], 256)
    assert pairs.buckets == 64
    told = judged_all(of(coarse, SHAPES[:3]), others, pairs)
    expected = [related_layers(of(coarse, SHAPES[:3]), of(values, SHAPES[:3])).score for values in others]
    assert pytest.approx(expected, abs=2e-3) == told.Z


def packed(values: np.ndarray) -> np.ndarray:
    return np.packbits(values.reshape(len(values), -1) > 0, axis=1)


@pytest.mark.parametrize(("r", "least", "most"), [(0.0, 0.0, 0.002), (0.11, 0.45, 0.56), (0.19, 0.98, 0.995)])
def test_what_signs_find(r: float, least: float, most: float) -> None:
    """The estimate is of r, with pi / 2 times the error; docs/method.md states how often it exceeds five errors."""
    own, others = drawn(4_000, r, 11)
    one = of(own)
    pairs = matched(one, SHAPES, BUCKETS)
    error = 1 / np.sqrt((1 / pairs.v).sum())
    found = judged_by_signs(one, packed(others), pairs)
    assert error == pytest.approx(0.022, abs=5e-4)
    assert found.mean() == pytest.approx(r, abs=0.004)
    assert found.std() == pytest.approx(np.pi / 2 * error, rel=0.05)
    assert least <= (found / error >= 5).mean() <= most


def test_signs_of_matched_layers_alone_count() -> None:
    own, others = drawn(50, 0.9, 13)
    wider = np.concatenate((others[:, :3], -others[:, :1], others[:, 3:]), axis=1)  # a layer that the model lacks
    shapes = np.insert(SHAPES, 3, [[99, 99, 1]], axis=0)
    one = of(own)
    pairs = matched(one, shapes, BUCKETS)
    assert pairs.theirs.tolist() == [at for at in range(LAYERS + 1) if at != 3]
    assert judged_by_signs(one, packed(wider), pairs) == pytest.approx(
        judged_by_signs(one, packed(others), matched(one, SHAPES, BUCKETS))
    )


@pytest.mark.parametrize("word", [np.uint16, np.uint32, np.uint64])
def test_bits_are_counted_alike_before_numpy_2(word: type, monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(1).integers(0, np.iinfo(word).max, (50, 3), dtype=word, endpoint=True)
    expected = [[int(value).bit_count() for value in row] for row in words.tolist()]
    assert relations._ones(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert relations._ones(words).tolist() == expected


def by_table(one: list[int], other: list[int]) -> int:
    """Length of the longest common subsequence, from the textbook."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, j in itertools.product(range(len(one)), range(len(other))):
        table[i + 1][j + 1] = table[i][j] + 1 if one[i] == other[j] else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_the_common_subsequence_is_the_longest() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        kinds, lengths = int(rng.integers(1, 6)), rng.integers(0, 90, 2)
        one, other = (rng.integers(0, kinds, length) for length in lengths)
        pairs = relations._common(*(np.stack((each, each + 1, each + 2), axis=1) for each in (one, other)))
        assert len(pairs) == by_table(one.tolist(), other.tolist())
        assert all(one[i] == other[j] for i, j in pairs)
        assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))


def test_of_several_subsequences_the_earliest_is_taken() -> None:
    shapes = np.array([[5, 5, 5], [6, 6, 6], [5, 5, 5]])
    assert relations._common(shapes[:1], shapes) == [(0, 0)]
    assert relations._common(shapes, shapes) == [(0, 0), (1, 1), (2, 2)]
    assert relations._common(shapes[[0, 0]], shapes) == [(0, 0), (1, 2)]
