from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist

from registry.equivalence import DISTANCES, Distance, Group, classes, complete_linkage
from registry.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

every_distance = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES.keys())
L1 = DISTANCES["l1"]


def random_vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, 5), np.float32)


def square(vectors: NDArray[np.float32], distance: Distance) -> NDArray[np.float64]:
    return np.asarray(cdist(vectors.astype(float), vectors.astype(float), distance.scipy_name))


def keeps_the_promise(group: Group, distances: NDArray[np.float64], accuracy: float) -> bool:
    return all(distances[pair] <= accuracy for pair in combinations(group.members, 2))


@every_distance
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 1.0])
def test_within_a_class_every_two_are_within_the_accuracy(distance: Distance, share: float) -> None:
    vectors = random_vectors(60)
    vectors[17] = vectors[3]
    kinds = [("long", "trained"), ("edge", "trained"), ("long", "untrained")] * 20
    distances = square(vectors, distance)
    accuracy = share * float(distances.max())
    groups = complete_linkage(vectors, kinds, distance, accuracy)
    assert sorted(row for group in groups for row in group.members) == list(range(60))
    for group in groups:
        assert keeps_the_promise(group, distances, accuracy)
        block = distances[np.ix_(group.members, group.members)]
        assert group.diameter == pytest.approx(block.max(), rel=1e-12)
        assert len({kinds[row] for row in group.members}) == 1
        assert list(group.members) == sorted(group.members)
        # The medoid: the smallest summed distance to the others.
        assert block[group.members.index(group.medoid)].sum() == pytest.approx(block.sum(axis=1).min(), rel=1e-12)
    sizes = [(-len(group.members), group.members[0]) for group in groups]
    assert sizes == sorted(sizes)
    if share == 1.0:
        assert [len(group.members) for group in groups] == [20, 20, 20]
    # No two classes of a kind could be one: complete linkage stops only where the promise would break.
    for a, b in combinations(groups, 2):
        if kinds[a.medoid] == kinds[b.medoid]:
            assert max(distances[pair] for pair in product(a.members, b.members)) > accuracy


@every_distance
@pytest.mark.parametrize("seed", range(5))
def test_equals_complete_linkage_by_hand(distance: Distance, seed: int) -> None:
    vectors = random_vectors(12, seed)
    distances = square(vectors, distance)
    accuracy = float(np.quantile(distances, 0.4))
    clusters = [[row] for row in range(12)]
    while len(clusters) > 1:
        # Merge the two whose farthest members are nearest; random distances have no ties.
        farthest = {
            (i, j): max(distances[pair] for pair in product(clusters[i], clusters[j]))
            for i, j in combinations(range(len(clusters)), 2)
        }
        (i, j), height = min(farthest.items(), key=lambda item: item[1])
        if height > accuracy:
            break
        clusters[i] += clusters.pop(j)
    groups = complete_linkage(vectors, ["one"] * 12, distance, accuracy)
    assert sorted(group.members for group in groups) == sorted(tuple(sorted(cluster)) for cluster in clusters)


def test_a_chain_is_cut_where_single_linkage_would_join_it() -> None:
    chain = np.arange(10, dtype=np.float32)[:, None]
    joined = fcluster(linkage(pdist(chain.astype(float)), "single"), 2.0, "distance")
    assert len(set(joined)) == 1  # its ends are 9 apart
    assert not keeps_the_promise(Group(tuple(range(10)), 0, 9.0), square(chain, L1), 2.0)
    groups = complete_linkage(chain, [0] * 10, L1, 2.0)
    assert all(keeps_the_promise(group, square(chain, L1), 2.0) for group in groups)
    assert {len(group.members) for group in groups} <= {1, 2, 3}


def test_the_accuracy_itself_is_within() -> None:
    pair = np.array([[0.0], [0.5]], np.float32)
    assert len(complete_linkage(pair, [0, 0], L1, 0.5)) == 1
    assert len(complete_linkage(pair, [0, 0], L1, np.nextafter(0.5, 0.0))) == 2


def test_small_cases() -> None:
    assert complete_linkage(np.empty((0, 5), np.float32), [], L1, 1.0) == ()
    assert complete_linkage(random_vectors(1), [("", "")], L1, 0.0) == (Group((0,), 0, 0.0),)
    same = np.repeat(random_vectors(1), 4, axis=0)
    assert complete_linkage(same, ["a", "b", "a", "a"], L1, 0.0) == (Group((0, 2, 3), 0, 0.0), Group((1,), 1, 0.0))


def test_too_many_of_a_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "MAX_COMPLETE", 5)
    assert len(complete_linkage(random_vectors(10), [0, 1] * 5, L1, 0.0)) == 10
    with pytest.raises(UsageError, match="6 models are too many") as refused:
        complete_linkage(random_vectors(6), [0] * 6, L1, 0.0)
    assert "--family" in (refused.value.remedy or "")
