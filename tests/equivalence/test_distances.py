from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist, pdist, squareform

from registry.equivalence import DEFAULT_DISTANCE, DISTANCES, Distance, distance_named
from registry.errors import SpecMismatchError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fingerprints are of order one; the distances are summed in float64, so d terms err by at most d times its epsilon.
LENGTH = 7
EPSILON = float(np.finfo(np.float64).eps)
VECTORS = arrays(np.float32, (3, LENGTH), elements=st.floats(-8, 8, width=32))
every_distance = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES.keys())


def one(distance: Distance, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(distance.to_all(a, b[None])[0])


@every_distance
@settings(max_examples=60, deadline=None)
@given(vectors=VECTORS)
def test_each_is_a_metric(distance: Distance, vectors: NDArray[np.float32]) -> None:
    a, b, c = vectors
    assert one(distance, a, a) == 0.0
    assert one(distance, a, b) == one(distance, b, a)
    assert (one(distance, a, b) == 0.0) == bool((a == b).all())
    slack = 4 * LENGTH * EPSILON * 16 * LENGTH
    assert one(distance, a, c) <= one(distance, a, b) + one(distance, b, c) + slack


@every_distance
@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 1025])
def test_block_by_block_is_all_at_once(distance: Distance, n: int) -> None:
    rng = np.random.default_rng(n)
    gallery, query = rng.standard_normal((n, 33), np.float32), rng.standard_normal(33, np.float32)
    kept = gallery.copy()
    found = distance.to_all(query, gallery)
    assert (found.shape, found.dtype) == ((n,), np.float64)
    expected = cdist(query[None].astype(float), gallery.astype(float), distance.scipy_name)[0]
    np.testing.assert_allclose(found, expected, rtol=33 * EPSILON)
    np.testing.assert_array_equal(gallery, kept)  # the differences are worked on in place, the gallery is not


@every_distance
def test_pairs_equal_scipy_and_the_search(distance: Distance) -> None:
    vectors = np.random.default_rng(1).standard_normal((40, 33), np.float32)
    pairs = squareform(distance.between_all(vectors))
    assert pairs.dtype == np.float64
    np.testing.assert_allclose(pairs, cdist(vectors, vectors, distance.scipy_name), rtol=1e-12)
    np.testing.assert_allclose(pairs[7], distance.to_all(vectors[7], vectors), rtol=33 * EPSILON)
    others = [
        name for name, other in DISTANCES.items() if not np.allclose(squareform(other.between_all(vectors)), pairs)
    ]
    assert set(others) == DISTANCES.keys() - {distance.name}


@every_distance
def test_distances_by_tiles_are_scipys(distance: Distance) -> None:
    for count in (0, 1, 2, 255, 256, 257, 600):
        vectors = np.random.default_rng(0).standard_normal((count, 5), np.float32)
        expected = pdist(vectors.astype(float), distance.scipy_name) if count > 1 else np.empty(0)
        np.testing.assert_allclose(distance.between_all(vectors), expected, rtol=1e-15)
    left, right = np.triu_indices(600, 1)
    np.testing.assert_allclose(distance.between(vectors[left], vectors[right]), expected, rtol=1e-14)
    assert squareform(distance.between_all(vectors)).shape == (600, 600)


def test_vectors_of_two_specs_are_refused() -> None:
    with pytest.raises(SpecMismatchError, match=r"\(3,\) cannot be compared with vectors of shape \(4,\)") as refused:
        DISTANCES["l1"].to_all(np.zeros(3, np.float32), np.zeros((2, 4), np.float32))
    assert refused.value.remedy


def test_names() -> None:
    assert distance_named(None).name == DEFAULT_DISTANCE == "l1"
    assert distance_named("LInf") is DISTANCES["linf"]
    with pytest.raises(UsageError, match="'cosine'") as refused:
        distance_named("cosine")
    assert refused.value.remedy == "known: l1, l2, linf"
