from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.equivalence import direction, pareto
from registry.types import Metric


def by_definition(costs: np.ndarray) -> list[int]:
    """Rows that no other is at most as large as in every column and less in one, each against all others."""
    return [
        row
        for row, mine in enumerate(costs)
        if not any((other <= mine).all() and (other < mine).any() for other in costs)
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_front_is_that_of_the_definition(rows: int, columns: int, values: int, seed: int) -> None:
    costs = np.random.default_rng(seed).integers(0, values, (rows, columns)).astype(float)
    assert pareto(costs).tolist() == by_definition(costs)


def test_equal_rows_stay_together() -> None:
    assert pareto(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [0.0, 9.0]])).tolist() == [0, 1, 3]


def test_a_front_of_many() -> None:
    places = np.random.default_rng(0).permutation(2_000).astype(float)
    costs = np.stack([places, -places], axis=1)
    assert pareto(costs).tolist() == list(range(2_000))
    # Among a hundred thousand that are all worse by one.
    worse = np.random.default_rng(1).uniform(1, 2, (100_000, 2)) + np.array([2_000.0, 0.0])
    assert pareto(np.concatenate([costs, worse])).tolist() == list(range(2_000))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([Metric("top1", 90.0)], True),
        ([Metric("Mean-Absolute Error", 1.0)], False),
        ([Metric("top1", 90.0, higher_is_better=False)], False),  # a record goes before the name
        ([Metric("score", 1.0)], None),
        ([Metric("score", 1.0), Metric("score", 2.0, higher_is_better=True)], True),
        ([Metric("score", 1.0, higher_is_better=False), Metric("score", 2.0, higher_is_better=True)], None),
        ([Metric("top1", 1.0, higher_is_better=False), Metric("top1", 2.0, higher_is_better=True)], None),
        ([], None),
    ],
)
def test_which_way_is_good(records: list[Metric], expected: bool | None) -> None:
    assert direction(*records) is expected


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("accuracy", True), ("Balanced accuracy", True), ("acc", True), ("top5", True), ("mean-IoU", True),
        ("loss", False), ("Top1 error", False), ("WER", False), ("perplexity", False),
        ("tolerance", None), ("accuracy of sorts", None), ("", None),
    ],
)  # fmt: skip
def test_the_direction_of_usual_metrics_is_known_by_name(name: str, better: bool | None) -> None:
    assert direction(Metric(name, 1.0)) is better
