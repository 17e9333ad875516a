from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.equivalence import nearest


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
