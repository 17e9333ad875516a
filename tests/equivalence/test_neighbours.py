from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.equivalence import DISTANCES, Distance, nearest, search


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30), st.integers(-1, 35), st.randoms(use_true_random=False))
def test_equals_a_full_sort(values: list[int], k: int, random) -> None:
    ids = list(range(10, 10 + len(values)))
    random.shuffle(ids)
    found = nearest(np.array(values, dtype=float), np.array(ids, dtype=np.int64), k)
    expected = sorted(range(len(values)), key=lambda row: (values[row], ids[row]))[: max(k, 0)]
    assert found.tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_ties_at_the_edge_go_to_the_smallest_ids(k: int) -> None:
    # argpartition alone would keep whichever of the equal ones it met first.
    distances, ids = np.array([2.0, 1.0, 2.0, 2.0]), np.array([9, 7, 1, 4])
    assert ids[nearest(distances, ids, k)].tolist() == [7, 1, 4, 9][:k]


SCALES = [1.0, 1e-3, 1e-30, 1e-42, 1e18, 3e37]


def brute(query, vectors, distance, ids, k, radius):  # type: ignore[no-untyped-def]
    """Differences in float64, no bounds; sorted by distance, then id."""
    apart = vectors.astype(np.float64) - query.astype(np.float64)
    found = {
        "l1": lambda: np.abs(apart).sum(axis=1),
        "l2": lambda: np.sqrt((apart**2).sum(axis=1)),
        "linf": lambda: np.abs(apart).max(axis=1),
    }[distance.name]()
    order = [row for row in np.lexsort((ids, found)) if radius is None or found[row] <= radius]
    return order[:k], found[order[:k]]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_search_is_exact(distance: Distance, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties, and neighbours that float32 cannot tell apart, from tiny numbers to where float32 overflows."""
    monkeypatch.setattr("registry.equivalence.distances.PLAIN", 0)
    rng = np.random.default_rng(5)
    base = rng.uniform(-1, 1, (40, 30))
    near = base[rng.integers(40, size=500)] * (1 + 1e-7 * rng.integers(-3, 4, size=(500, 30)))
    vectors = np.concatenate([base, near, base[:20], -base]).astype(np.float32) * np.float32(scale)
    ids = rng.permutation(len(vectors)).astype(np.int64)
    wide = vectors.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    for query in (vectors[3], vectors[100], (vectors[3] + vectors[4]) / np.float32(2), np.zeros(30, np.float32)):
        typical = float(np.median(distance.to_all(query, vectors)))
        for k, radius in ((1, None), (7, None), (None, typical), (60, typical), (5, 0.0), (None, None), (10_000, None)):
            for rows in (None, np.flatnonzero(ids % 3 == 0)):
                mine = np.arange(len(vectors)) if rows is None else rows
                found, apart = search(
                    query, vectors, distance, ids=ids, squares=lambda: squares, rows=rows, k=k, radius=radius
                )
                expected, exact = brute(query, vectors[mine], distance, ids[mine], k, radius)
                assert found.tolist() == mine[expected].tolist(), (k, radius)
                np.testing.assert_array_equal(apart, exact)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_bounds_hold_and_are_worth_it(distance: Distance) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((3_000, 457)).astype(np.float32)
    query = vectors[0] + np.float32(1e-4)
    squares = (vectors.astype(np.float64) ** 2).sum(axis=1)
    low, high = distance.bounds_to_all(query, vectors, squares)
    inner = np.array([distance.inner(value) for value in distance.to_all(query, vectors)])
    assert (low <= inner).all()
    assert (inner <= high).all()
    # All but a few are excluded, or the bounds would be for nothing.
    assert (low <= np.partition(high, 10)[10]).sum() <= 12


def test_bounds_without_their_margin_would_err() -> None:
    """The negative control: float32 sums alone take the wrong one of two that are nearly as near."""
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(200):
        pair = np.repeat(rng.uniform(-1, 1, (1, 457)), 2, axis=0).astype(np.float32)
        pair[1] += rng.uniform(-1e-7, 1e-7, 457).astype(np.float32)
        query = rng.uniform(-1, 1, 457).astype(np.float32)
        exact = np.abs(pair.astype(np.float64) - query).sum(axis=1)
        wrong += int((np.abs(pair - query).sum(axis=1).argmin() != exact.argmin()) and exact[0] != exact[1])
    assert wrong > 10


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_only_what_can_be_among_the_nearest_is_measured(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(8).standard_normal((1_000, 60)).astype(np.float32)
    query, ids = np.zeros(60, np.float32), np.arange(1_000)
    [fifth] = np.partition(distance.to_all(query, vectors), 4)[4:5]
    measured: list[int] = []
    bounded: list[int] = []
    squared: list[int] = []

    def rows(differences: Any) -> Any:
        measured.append(len(differences))
        return distance.rows(differences)

    def bounds(query: Any, block: Any, *room: Any) -> Any:
        bounded.append(len(block))
        return distance.bounds(query, block, *room)

    def squares() -> Any:
        squared.append(1)
        return (vectors.astype(np.float64) ** 2).sum(axis=1)

    def counted(**limits: Any) -> tuple[int, int, int]:
        counting = replace(distance, rows=rows, bounds=bounds)
        for calls in (measured, bounded, squared):
            calls.clear()
        search(query, vectors, counting, ids=ids, squares=squares, **limits)
        return sum(measured), sum(bounded), len(squared)

    monkeypatch.setattr("registry.equivalence.distances.PLAIN", 999)
    for limits in ({"k": 5}, {"radius": fifth}, {"k": 900, "radius": fifth}, {"k": 5, "radius": 1e6}):
        assert counted(**limits) == (5, 1_000, int(distance.name == "l2")), limits
    assert counted(k=0)[0] == 0
    # Bounds would be for nothing where all are asked for, and cost more than they spare where there are few.
    assert counted() == counted(k=1_000) == (1_000, 0, 0)
    assert counted(k=5, rows=np.arange(999)) == (999, 0, 0)
