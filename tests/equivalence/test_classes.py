from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist

from registry.equivalence import DISTANCES, RULES, Distance, Group, rule_for, sorted_into_groups
from registry.equivalence.classes import EXACT_UP_TO, groups, linkage_rules, pair_screen
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

every_distance = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES.keys())
every_rule = pytest.mark.parametrize("rule", RULES)
L1, L2 = DISTANCES["l1"], DISTANCES["l2"]
ONE_KIND = ["trained"]


def random_vectors(n: int, seed: int = 0, d: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, d), np.float32)


def clustered(n: int, seed: int = 0, d: int = 90) -> NDArray[np.float32]:
    """Vectors around a few centres, as families are, with coordinates that go together; more than there are sums."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((12, d))
    centres, own = rng.standard_normal((9, 12)), rng.standard_normal((n, 12))
    spread = np.exp(rng.uniform(-3.0, 0.5, (n, 1)))
    return ((centres[rng.integers(9, size=n)] + spread * own) @ mixing).astype(np.float32)


def square(vectors: NDArray[np.float32], distance: Distance) -> NDArray[np.float64]:
    return np.asarray(cdist(vectors.astype(float), vectors.astype(float), distance.scipy_name))


def sort(rule: str, vectors: NDArray[np.float32], distance: Distance, tolerance: float, kinds: Any = None) -> Any:
    return sorted_into_groups(vectors, kinds or ONE_KIND * len(vectors), distance, tolerance, RULES[rule])


def members(found: Sequence[Group]) -> list[tuple[int, ...]]:
    return sorted(group.members for group in found)


def by_label(labels: Any) -> list[tuple[int, ...]]:
    return sorted(tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels))


def breaks_the_promise(group: Group, vectors: NDArray[np.float32], distance: Distance, tolerance: float) -> bool:
    left, right = np.array(list(combinations(group.members, 2)), np.intp).reshape(-1, 2).T
    return bool((distance.between(vectors[left], vectors[right]) > tolerance).any())


def covered_by_hand(vectors: NDArray[np.float32], distance: Distance, tolerance: float) -> list[tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for row in range(len(vectors)):
        near = distance.between(vectors, np.broadcast_to(vectors[row], vectors.shape)) <= 0.5 * tolerance * (
            1.0 - 1e-12
        )
        found.setdefault(next((first for first in found if near[first]), row), []).append(row)
    return sorted(map(tuple, found.values()))


@every_rule
@every_distance
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 1.0])
def test_what_every_rule_keeps(distance: Distance, rule: str, share: float) -> None:
    vectors = random_vectors(60)
    vectors[17] = vectors[3]
    kinds = ["trained", "untrained", ""] * 20
    distances = square(vectors, distance)
    tolerance = share * float(distances.max())
    found = sort(rule, vectors, distance, tolerance, kinds)
    assert sorted(row for group in found for row in group.members) == list(range(60))
    for group in found:
        assert len({kinds[row] for row in group.members}) == 1
        assert list(group.members) == sorted(group.members)
        block = distances[np.ix_(group.members, group.members)]
        assert group.diameter == pytest.approx(block.max(), rel=1e-12)
        assert not group.bounded
        # The medoid: the smallest summed distance to the others.
        assert block[group.members.index(group.medoid)].sum() == pytest.approx(block.sum(axis=1).min(), rel=1e-12)
        if RULES[rule].keeps_within:
            assert group.diameter <= tolerance
            assert not breaks_the_promise(group, vectors, distance, tolerance)
    sizes = [(-len(group.members), group.members[0]) for group in found]
    assert sizes == sorted(sizes)
    if share == 1.0 and rule != "cover":
        assert [len(group.members) for group in found] == [20, 20, 20]


@every_distance
@pytest.mark.parametrize("seed", range(5))
def test_equals_complete_linkage_by_hand(distance: Distance, seed: int) -> None:
    vectors = random_vectors(12, seed)
    distances = square(vectors, distance)
    tolerance = float(np.quantile(distances, 0.4))
    clusters = [[row] for row in range(12)]
    while len(clusters) > 1:
        # Merge the two whose farthest members are nearest; random distances have no ties.
        farthest = {
            (i, j): max(distances[pair] for pair in product(clusters[i], clusters[j]))
            for i, j in combinations(range(len(clusters)), 2)
        }
        (i, j), height = min(farthest.items(), key=lambda item: item[1])
        if height > tolerance:
            break
        clusters[i] += clusters.pop(j)
    found = sort("complete", vectors, distance, tolerance)
    assert members(found) == sorted(tuple(sorted(cluster)) for cluster in clusters)


@every_distance
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.1, 0.3, 1.0])
def test_pruned_and_whole_are_the_same(
    distance: Distance, seed: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Components, sums, cells, tiles and threads change nothing: SciPy over all pairs, and the cover by its words."""
    # Several tiles, blocks and cells, at a size where everything can be measured.
    for module, name, value in (
        (pair_screen, "_ROWS", 64), (pair_screen, "_COLUMNS", 32), (pair_screen, "_AT_ONCE", 16),
        (linkage_rules, "_BLOCK", 100),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    vectors = clustered(500, seed)
    condensed = pdist(vectors.astype(float), distance.scipy_name)
    tolerance = float(np.quantile(condensed, share))
    for rule in ("complete", "single"):
        whole = by_label(fcluster(linkage(condensed, rule), tolerance * (1.0 + 1e-12), "distance"))
        assert members(sort(rule, vectors, distance, tolerance * (1.0 + 1e-12))) == whole
    assert members(sort("cover", vectors, distance, tolerance)) == covered_by_hand(vectors, distance, tolerance)


def test_most_pairs_are_not_measured() -> None:
    vectors, measured = clustered(1_500), []

    class Counting:
        scipy_name, order = L1.scipy_name, L1.order

        def rows(self, differences: NDArray[np.float32]) -> NDArray[np.float64]:
            measured.append(len(differences))
            return L1.rows(differences)

        between = L1.between

    tolerance = float(np.quantile(pdist(vectors.astype(float), "cityblock"), 0.01))
    counting: Any = Counting()
    found = linkage_rules.greedy_cover(vectors, counting, tolerance)
    assert sum(map(len, found)) == 1_500
    assert 0 < sum(measured) < 0.05 * 1_500 * len(found) / 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_promise(data: st.DataObject) -> None:
    """Small whole numbers: distances tie all the time, with each other and with the tolerance; some are 0."""
    distance = DISTANCES[data.draw(st.sampled_from(sorted(DISTANCES)))]
    count, length = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    numbers = data.draw(st.lists(st.integers(0, 3), min_size=count * length, max_size=count * length))
    # By a third, so that nothing is exact in binary.
    vectors = (np.array(numbers, float).reshape(count, length) / 3.0).astype(np.float32)
    distances = square(vectors, distance)
    tolerance = float(data.draw(st.sampled_from(sorted({0.0, *distances.ravel().tolist()}))))
    for rule in ("complete", "cover"):
        found = sort(rule, vectors, distance, tolerance)
        assert sorted(row for group in found for row in group.members) == list(range(count))
        assert not any(breaks_the_promise(group, vectors, distance, tolerance) for group in found)
        assert all(group.diameter <= tolerance for group in found)
    # Complete linkage stops only where the promise would break: no two classes could be one.
    for a, b in combinations(sort("complete", vectors, distance, tolerance), 2):
        left, right = np.array(list(product(a.members, b.members))).T
        assert distance.between(vectors[left], vectors[right]).max() > tolerance
    left, right = np.triu_indices(count, 1)
    near = distance.between(vectors[left], vectors[right]) <= tolerance
    linked = np.where(near, 0.0, 1.0) if count > 1 else np.empty(0)
    chains = by_label(fcluster(linkage(linked, "single"), 0.5, "distance")) if count > 1 else [(0,)]
    assert members(sort("single", vectors, distance, tolerance)) == chains


@every_distance
@every_rule
def test_float64_decides_at_the_tolerance(distance: Distance, rule: str) -> None:
    """Where a sum in float32 falls on the other side of the tolerance than the sum in float64."""
    pairs = random_vectors(400, d=60).reshape(200, 2, 60)
    exact = distance.between(pairs[:, 0], pairs[:, 1])
    in_float32 = distance.rows(pairs[:, 1] - pairs[:, 0])
    above, below = np.flatnonzero(in_float32 > exact)[:25], np.flatnonzero(in_float32 < exact)[:25]
    assert len(above) == len(below) == 25  # the control: float32 would have put these apart, or together
    for at in (*above, *below):
        pair, width = pairs[at], float(exact[at])
        tolerance = width if rule != "cover" else 2.0 * width
        assert distance.to_all(pair[0], pair[1:])[0] == width  # what verdicts go by
        assert len(sort(rule, pair, distance, tolerance * (1.0 + 2e-12))) == 1
        assert len(sort(rule, pair, distance, tolerance * (1.0 - 1e-9))) == 2
        if rule != "cover":
            assert len(sort(rule, pair, distance, tolerance)) == 1
            assert len(sort(rule, pair, distance, np.nextafter(tolerance, 0.0))) == 2


@pytest.mark.parametrize("block", [1, 3, 4_096])
def test_complete_linkage_sums_as_verdicts_do(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy sums in another order, which puts a distance at the tolerance on either side of it."""
    monkeypatch.setattr(linkage_rules, "_BLOCK", block)
    left, right = np.triu_indices(4, 1)
    above = below = 0
    for seed in range(60):
        vectors = random_vectors(4, seed, d=60)
        exact = L2.between(vectors[left], vectors[right])
        farthest, tolerance = int(exact.argmax()), float(exact.max())
        assert members(sort("complete", vectors, L2, tolerance)) == [(0, 1, 2, 3)]
        assert len(sort("complete", vectors, L2, np.nextafter(tolerance, 0.0))) > 1
        by_scipy = float(pdist(vectors.astype(float), "euclidean")[farthest])
        above, below = above + (by_scipy > tolerance), below + (by_scipy < tolerance)
    assert min(above, below) > 3  # the control


def test_a_cover_leaves_off_a_rounding_of_half_the_tolerance() -> None:
    pair = np.array([[0.0], [0.5]], np.float32)
    assert len(sort("cover", pair, L1, 1.0)) == 2
    assert len(sort("cover", pair, L1, 1.0 + 4e-12)) == 1


@every_distance
def test_more_models_at_the_end_move_none(distance: Distance) -> None:
    vectors = clustered(900)
    tolerance = float(np.quantile(square(vectors[:200], distance), 0.1))
    before = members(sort("cover", vectors[:600], distance, tolerance))
    after = members(sort("cover", vectors, distance, tolerance))
    grown = [tuple(row for row in group if row < 600) for group in after]
    assert [group for group in grown if group] == before
    assert len(after) > len(before)
    assert after != [*before, *((row,) for row in range(600, 900))]


def test_a_chain_is_one_class_by_single_linkage_alone() -> None:
    chain = np.arange(10, dtype=np.float32)[:, None]
    [whole] = sort("single", chain, L1, 2.0)
    assert (len(whole.members), whole.diameter) == (10, 9.0)
    assert breaks_the_promise(whole, chain, L1, 2.0)  # the control of what the other rules are held to
    for rule in ("complete", "cover"):
        found = sort(rule, chain, L1, 2.0)
        assert not any(breaks_the_promise(group, chain, L1, 2.0) for group in found)
        assert {len(group.members) for group in found} <= {1, 2, 3}


@every_rule
def test_small_cases(rule: str) -> None:
    assert sort(rule, np.empty((0, 5), np.float32), L1, 1.0) == ()
    assert sort(rule, random_vectors(1), L1, 0.0) == (Group((0,), 0, 0.0),)
    same = np.repeat(random_vectors(1), 4, axis=0)
    apart = [("a", ""), ("b", ""), ("a", ""), ("a", "")]
    assert sort(rule, same, L1, 0.0, apart) == (Group((0, 2, 3), 0, 0.0), Group((1,), 1, 0.0))
    assert sort(rule, np.zeros((3, 2), np.float32), L1, 0.0) == (Group((0, 1, 2), 0, 0.0),)
    pair = np.array([[0.0], [1.0]], np.float32)
    assert sort(rule, pair, L1, 2.5) == (Group((0, 1), 0, 1.0),)
    assert sort(rule, pair, L1, 0.5) == (Group((0,), 0, 0.0), Group((1,), 1, 0.0))


@every_distance
def test_a_large_group_is_bounded(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_vectors(50)
    width = float(square(vectors, distance).max())
    [exact] = sort("single", vectors, distance, width)
    monkeypatch.setattr(groups, "MEASURED_UP_TO", 49)
    [bounded] = sort("single", vectors, distance, width)
    assert (exact.bounded, bounded.bounded) == (False, True)
    assert exact.diameter <= bounded.diameter <= 2.0 * exact.diameter
    assert square(vectors, distance)[bounded.medoid].max() == pytest.approx(bounded.diameter / 2.0, rel=1e-12)
    middle = np.broadcast_to(np.median(vectors, axis=0), vectors.shape)
    assert bounded.medoid == distance.between(middle, vectors).argmin()
    assert bounded.members == exact.members
    # 49 of a kind are still measured; of rows further on, the medoid is one of those.
    kinds = ["trained"] * 49 + ["untrained"]
    assert [group.bounded for group in sort("single", vectors, distance, width, kinds)] == [False, False]
    [_, late] = sort("single", np.concatenate([vectors, vectors]), distance, 1e6, [("a", "")] * 50 + [("b", "")] * 50)
    assert (late.medoid, late.members[0]) == (50 + bounded.medoid, 50)
    # Where the rule promises the tolerance, the bound is no worse.
    [promised] = sort("complete", vectors, distance, width * (1.0 + 1e-12))
    assert promised.diameter <= width * (1.0 + 1e-12)


def test_too_many_that_hang_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linkage_rules, "MAX_COMPLETE", 5)
    assert len(sort("complete", random_vectors(10), L1, 0.0)) == 10  # each apart from all others
    with pytest.raises(UsageError, match="complete linkage of 6 connected models is too large") as refused:
        sort("complete", random_vectors(6), L1, 1e6)
    assert refused.value.message == "complete linkage of 6 connected models is too large (limit 5)"
    assert refused.value.remedy == "use the rule cover, or a filter such as --family or --max-params"
    assert len(sort("complete", random_vectors(5), L1, 1e6)) == 1


def test_the_rule_follows_from_the_number_of_models() -> None:
    assert rule_for(None, EXACT_UP_TO).name == "complete"
    assert rule_for(None, EXACT_UP_TO + 1).name == "cover"
    assert rule_for("single", 10**6).name == "single"
    with pytest.raises(UsageError, match="unknown rule 'ward'") as refused:
        rule_for("ward", 1)
    assert refused.value.remedy == "known: complete, cover, single"
    assert rule_for("Single", 1) is rule_for("single", 1)
