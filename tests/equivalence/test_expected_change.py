"""Intervals of the expected change: their coverage on simulated pairs, and where none is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.equivalence.expected_change import (
    LEAST_PAIRS,
    ChangeRule,
    ScoredPairs,
    features_of,
    learned,
    pairs_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRESH = 1_000


def simulated(count: int, families: int, seed: int, *, apart: float = 0.0) -> ScoredPairs:
    """Pairs whose change falls with distance and size, in noise that grows with distance.

    ``apart``: standard deviation of the families' own changes; at 0 the pairs are exchangeable.
    """
    random = np.random.default_rng(seed)
    first = random.integers(families, size=count)
    second = np.where(random.random(count) < 0.5, first, random.integers(families, size=count))
    distance, ratio = random.gamma(2.0, 0.1, count), random.exponential(1.0, count)
    metric = random.normal(80.0, 5.0, count)
    noise = (0.2 + 5.0 * distance) * random.standard_t(5, count) + apart * random.standard_normal(families)[second]
    changes = -3.0 * ratio - 10.0 * distance + 0.3 * (80.0 - metric) + noise
    return ScoredPairs(features_of(distance, np.exp(ratio), 1.0, metric), changes, np.stack([first, second], axis=1))


def parted(pairs: ScoredPairs, count: int) -> tuple[ScoredPairs, ScoredPairs]:
    return tuple(  # type: ignore[return-value]
        ScoredPairs(pairs.features[some], pairs.changes[some], pairs.families[some])
        for some in (slice(count), slice(count, None))
    )


def rule_of(pairs: ScoredPairs) -> ChangeRule:
    rule = learned(pairs)
    assert rule is not None
    return rule


def covered(rule: ChangeRule, pairs: ScoredPairs, widened: float = 1.0) -> float:
    """Fraction of the changes within the intervals, scaled around the median by ``widened``."""
    value, low, high = rule.expected(pairs.features).T
    low, high = value + widened * (low - value), value + widened * (high - value)
    known = ~np.isnan(value)
    assert known.mean() > 0.8
    return float(((pairs.changes >= low) & (pairs.changes <= high))[known].mean())


@pytest.mark.parametrize(("count", "families"), [(150, 5), (400, 9), (1_000, 30)])
def test_coverage(count: int, families: int) -> None:
    measured, said, narrow, wide = [], [], [], []
    for seed in range(12):
        known, fresh = parted(simulated(count + FRESH, families, seed), count)
        rule = rule_of(known)
        measured.append(covered(rule, fresh))
        said.append(rule.coverage)
        narrow.append(covered(rule, fresh, 0.75))
        wide.append(covered(rule, fresh, 1.4))
    # Of 12 rules, each with the standard error of its ends: 0.3 / sqrt(12 * 150) = 0.007 from the smallest. Few
    # families make the intervals wide, because fits without two of them have few pairs.
    assert 0.88 <= np.mean(measured) <= 0.93
    assert abs(np.mean(said) - np.mean(measured)) <= 0.02
    # The bounds tell intervals that are a little too narrow or too wide.
    assert np.mean(narrow) < 0.87
    assert np.mean(wide) > 0.935


def test_each_end_is_passed_alike() -> None:
    below, above = [], []
    for seed in range(12):
        known, fresh = parted(simulated(400 + FRESH, 9, seed), 400)
        _, low, high = rule_of(known).expected(fresh.features).T
        below.append(np.mean(fresh.changes < low))
        above.append(np.mean(fresh.changes > high))
    assert 0.03 <= np.mean(below) <= 0.07
    assert 0.03 <= np.mean(above) <= 0.07


def test_families_apart_widen_the_interval() -> None:
    # Each family has its own change, so that a family left out tells what another may do.
    wide, narrow = [], []
    for seed in range(6):
        for apart, widths in ((6.0, wide), (0.0, narrow)):
            known, fresh = parted(simulated(600 + FRESH, 12, seed, apart=apart), 600)
            rule = learned(known)
            if rule is not None:
                _, low, high = rule.expected(fresh.features).T
                widths.append(np.nanmedian(high - low))
                assert rule.coverage >= 0.85
    assert len(narrow) == 6
    assert wide
    assert np.mean(wide) > 2.0 * np.mean(narrow)


def test_no_rule_without_coverage() -> None:
    # One family in three falls by 50, and no other family shows by how much: a third of the pairs left out is missed.
    pairs = simulated(300, 3, 0)
    lost = (pairs.families == 2).any(axis=1)
    assert learned(pairs) is not None
    assert learned(ScoredPairs(pairs.features, pairs.changes - 50.0 * lost, pairs.families)) is None


@pytest.mark.parametrize("families", [1, 2])
def test_no_rule_from_few_families(families: int) -> None:
    assert learned(simulated(500, families, 0)) is None


def test_no_rule_from_few_pairs() -> None:
    few, _ = parted(simulated(500, 5, 0), LEAST_PAIRS - 1)
    assert learned(few) is None
    assert learned(simulated(200, 5, 0)) is not None


def test_no_claim_beyond_the_pairs() -> None:
    pairs = simulated(300, 6, 0)
    found = rule_of(pairs).expected(
        [
            pairs.features[0],
            pairs.features.max(axis=0),
            [2.0 * pairs.features[:, 0].max(), *pairs.features[0, 1:]],
            [pairs.features[0, 0], -0.1, *pairs.features[0, 2:]],
            [*pairs.features[0, :2], np.nan, np.nan],
        ]
    )
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()


def test_the_median_lies_within() -> None:
    value, low, high = rule_of(simulated(80, 4, 1)).expected(simulated(500, 4, 2).features).T
    known = ~np.isnan(value)
    assert (low[known] <= value[known]).all()
    assert (value[known] <= high[known]).all()


def test_the_unit_does_not_matter() -> None:
    pairs = simulated(300, 6, 0)
    scale = np.array([1.0, 1.0, 0.01, 0.01])
    whole = rule_of(pairs).expected(pairs.features)
    small = rule_of(ScoredPairs(pairs.features * scale, pairs.changes * 0.01, pairs.families))
    np.testing.assert_allclose(small.expected(pairs.features * scale), 0.01 * whole, rtol=1e-6, atol=1e-9)


def test_equal_changes() -> None:
    pairs = simulated(300, 6, 0)
    rule = rule_of(ScoredPairs(pairs.features, np.full(300, -2.0), pairs.families))
    np.testing.assert_allclose(rule.expected(pairs.features), -2.0, atol=1e-9)
    assert rule.coverage == 1.0
    assert rule.pairs == 300


def test_a_feature_that_never_varies() -> None:
    pairs = simulated(300, 6, 0)
    pairs.features[:, 0] = pairs.features[:, 3] = 0.0
    found = rule_of(pairs).expected(pairs.features)
    assert np.isfinite(found).all()


def _gallery(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(0)
    points = random.standard_normal((count, 3))
    distances = np.abs(points[:, None] - points[None]).sum(axis=2)
    return distances, random.integers(1, 20, count), random.random(count)


def test_pairs() -> None:
    distances, sizes, metrics = _gallery(40)
    pairs = pairs_of(distances, sizes, metrics, ["a", "b"] * 20)
    assert len(pairs.changes) == sum(min(8, int((sizes < size).sum())) for size in sizes)
    assert (pairs.features[:, 1] > 0).all()
    largest = int(sizes.argmax())
    below = np.flatnonzero(sizes < sizes[largest])
    own = pairs.features[:, 2] == metrics[largest]
    nearest = np.sort(distances[largest, below])[:4]
    np.testing.assert_array_equal(np.sort(pairs.features[own, 0])[:4], nearest)
    # Each pair once, and its change is that of the models of this distance.
    assert len(np.unique(pairs.features[own, 0])) == 8
    for (distance, ratio, metric, product), change in zip(pairs.features[own], pairs.changes[own], strict=True):
        other = int(np.flatnonzero(distances[largest] == distance)[0])
        assert ratio == pytest.approx(np.log(sizes[largest] / sizes[other]))
        assert change == metrics[other] - metric
        assert product == distance * metric
    again = pairs_of(distances, sizes, metrics, ["a", "b"] * 20)
    np.testing.assert_array_equal(again.features, pairs.features)


def test_no_pairs() -> None:
    distances, _, metrics = _gallery(5)
    assert len(pairs_of(distances, np.full(5, 7), metrics, ["a"] * 5).changes) == 0
    nothing = pairs_of(np.empty((0, 0)), [], [], [])
    assert nothing.features.shape == (0, 4)
    assert learned(nothing) is None
