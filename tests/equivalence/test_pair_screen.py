"""The search for pairs within a radius: all of them, each once; and the bounds that spare measuring."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.equivalence import DISTANCES
from registry.equivalence.classes import pair_screen
from registry.equivalence.classes.pair_screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from registry.equivalence import Distance
    from registry.equivalence.classes.pair_screen import Pairs, Rows

L1, L2 = DISTANCES["l1"], DISTANCES["l2"]
every_distance = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES.keys())


def families(count: int, d: int = 70) -> NDArray[np.float32]:
    """Vectors around nine centres, of which some are equal."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((9, d)) * 4.0
    vectors = centres[rng.integers(9, size=count)] + rng.standard_normal((count, d)) * rng.uniform(0.05, 1, (count, 1))
    vectors[count // 2] = vectors[count // 3]
    return vectors.astype(np.float32)


def pairs_of(found: Iterable[Pairs]) -> Counter[frozenset[int]]:
    """How often each pair was given, whichever way round; a row with itself is a set of one."""
    return Counter(frozenset(pair) for left, right in found for pair in zip(left.tolist(), right.tolist(), strict=True))


def near(vectors: NDArray[np.float32], distance: Distance, radius: float) -> set[frozenset[int]]:
    left, right = np.triu_indices(len(vectors), 1)
    inside = distance.between(vectors[left], vectors[right]) <= radius
    return {frozenset(pair) for pair in zip(left[inside].tolist(), right[inside].tolist(), strict=True)}


def everything(left: Rows, right: Rows) -> NDArray[np.bool_]:
    return np.ones(len(left), bool)


def not_narrowed(left: Rows, right: Rows) -> Iterator[tuple[Rows, Rows]]:
    yield left, right


def radius_of(vectors: NDArray[np.float32], distance: Distance, share: float) -> float:
    left, right = np.triu_indices(len(vectors), 1)
    return float(np.quantile(distance.between(vectors[left], vectors[right]), share))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, batches and cells of few vectors."""
    for name, value in (("_ROWS", 24), ("_COLUMNS", 16), ("_AT_ONCE", 8), ("_SUMS", 16), ("_CELLS", 20)):
        monkeypatch.setattr(pair_screen, name, value)


@pytest.mark.usefixtures("small_tiles")
@every_distance
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.4, 1.0])
class TestPairs:
    def test_all_pairs_within_are_found_once(self, distance: Distance, share: float) -> None:
        vectors = families(200)
        radius = radius_of(vectors, distance, share)
        expected = dict.fromkeys(near(vectors, distance, radius), 1)
        screen = Screen(vectors, distance)
        assert pairs_of(screen.within(radius, everything, not_narrowed)) == expected
        assert pairs_of(screen.among(np.arange(200), radius)) == expected

    def test_pairs_among_some_rows(self, distance: Distance, share: float) -> None:
        vectors = families(200)
        radius, rows = radius_of(vectors, distance, share), np.arange(1, 200, 3)
        expected = {pair for pair in near(vectors, distance, radius) if pair <= set(rows.tolist())}
        assert pairs_of(Screen(vectors, distance).among(rows, radius)) == dict.fromkeys(expected, 1)

    def test_pairs_between_two_sides(self, distance: Distance, share: float) -> None:
        vectors = families(200)
        radius, left, right = radius_of(vectors, distance, share), np.arange(0, 200, 2), np.arange(1, 200, 2)
        expected = {pair for pair in near(vectors, distance, radius) if len({row % 2 for row in pair}) == 2}
        screen = Screen(vectors, distance)
        found = list(screen.between(left, right, radius, everything))
        assert pairs_of(found) == dict.fromkeys(expected, 1)
        assert all((one % 2 == 0).all() and (other % 2 == 1).all() for one, other in found)

    def test_pairs_that_are_not_wanted_are_left_out(self, distance: Distance, share: float) -> None:
        vectors = families(200)
        radius = radius_of(vectors, distance, share)

        def wanted(left: Rows, right: Rows) -> NDArray[np.bool_]:
            return np.asarray((left + right) % 3 == 0)

        expected = {pair for pair in near(vectors, distance, radius) if sum(pair) % 3 == 0}
        screen = Screen(vectors, distance)
        assert pairs_of(screen.within(radius, wanted, not_narrowed)) == dict.fromkeys(expected, 1)
        left, right = np.arange(80), np.arange(80, 200)
        across = {pair for pair in expected if min(pair) < 80 <= max(pair)}
        assert pairs_of(screen.between(left, right, radius, wanted)) == dict.fromkeys(across, 1)


@pytest.mark.usefixtures("small_tiles")
def test_tiles_of_two_sides_are_narrowed_before_they_are_measured() -> None:
    vectors, asked = families(200), 0

    def nothing(left: Rows, right: Rows) -> Iterator[tuple[Rows, Rows]]:
        nonlocal asked
        asked += 1
        yield left[:0], right
        yield left, right[:0]

    found = pairs_of(Screen(vectors, L1).within(1e6, everything, nothing))
    assert asked > 20
    assert set(found.values()) == {1}  # those of tiles of one side, which are never narrowed
    assert 0 < len(found) < 0.2 * 200 * 199 / 2


def test_equal_vectors_are_within_a_radius_of_zero() -> None:
    zeros, rows = np.zeros((6, 3), np.float32), np.arange(6)
    screen = Screen(zeros, L1)
    assert len(pairs_of(screen.among(rows, 0.0))) == 15
    assert len(pairs_of(screen.between(rows[:2], rows[2:], 0.0, everything))) == 8


def test_differences_that_float32_loses_are_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The square of 1e-30 is nothing in float32, in which pairs are measured first where few of a tile may be near."""
    monkeypatch.setattr(pair_screen, "_DENSE", 2.0)
    vectors = np.array([[0.0], [1e-30], [1.0]], np.float32)
    assert L2.rows(vectors[1:2] - vectors[:1])[0] == 0.0  # the control
    screen = Screen(vectors, L2)  # whose sums are too coarse to tell the first two apart
    assert not pairs_of(screen.among(np.arange(3), 0.0))
    assert pairs_of(screen.among(np.arange(3), 2e-30)) == {frozenset({0, 1}): 1}


class TestBounds:
    def test_the_slack_is_that_of_rounding(self) -> None:
        """1e-15 d^2 of the largest number, whichever its sign; three of it on every bound, and a relative 1e-12."""
        vectors = np.array([[0.5, -0.25, 0.125], [0.0, -0.75, 0.25]], np.float32)
        screen = Screen(vectors, L1)
        slack = 1e-15 * 9 * 0.75
        assert screen._loosened(0.0) == pytest.approx(3.0 * slack, rel=1e-9, abs=0.0)
        assert screen._loosened(2.0) > 2.0
        zeros = Screen(np.zeros((2, 3), np.float32), L1)
        assert zeros._loosened(2.0) == pytest.approx(2.0 * (1.0 + 1e-12), abs=1e-15)
        assert zeros._loosened(2.0) > 2.0

    def test_anchors_are_the_farthest_from_those_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        places = np.array([[0.0], [0.4], [1.0], [0.7], [0.4], [0.15]], np.float32)
        screen = Screen(places, L1)
        first = screen._anchors[0, 0]
        offsets = np.abs(screen._anchors[:, 0] - first)
        np.testing.assert_allclose(offsets, [0.0, 1.0, 0.4, 0.7, 0.15], atol=1e-6)  # and none twice
        assert abs(first) == 0.0
        monkeypatch.setattr(pair_screen, "_CELLS", 3)
        assert len(Screen(places, L1)._anchors) == 3

    def test_a_sample_has_equal_steps_from_the_first_row(self) -> None:
        for count, step in ((5, 1), (2_048, 1), (2_049, 2), (10_000, 5)):
            rows = np.arange(count, dtype=np.float32)[:, None]
            np.testing.assert_array_equal(pair_screen._sample(rows), rows[::step])


class TestGrouping:
    """The matrix that sums coordinates in groups."""

    def planted(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """128 coordinates, of which two at a time are one signal with signs, sizes, means and little noise."""
        rng = np.random.default_rng(0)
        signals = rng.standard_normal((500, 64))
        own = rng.permutation(np.repeat(np.arange(64), 2))
        signs = rng.choice([-1.0, 1.0], 128)
        sizes = 10.0 ** rng.uniform(-3.0, 3.0, 128)
        noise = 0.05 * rng.standard_normal((500, 128))
        return (signals[:, own] * signs + noise) * sizes + sizes * rng.uniform(-30.0, 30.0, 128), own

    def test_coordinates_that_go_together_are_summed(self) -> None:
        sample, own = self.planted()
        matrix = pair_screen._grouping(sample, 1.0)
        assert matrix.shape == (128, 64)
        assert ((matrix != 0.0).sum(axis=0) == 2).all()
        assert ((matrix != 0.0).sum(axis=1) == 1).all()
        assert all(len(set(own[column != 0.0])) == 1 for column in matrix.T)

    def test_signs_are_those_of_what_varies_together(self) -> None:
        """Sums with these signs vary more than with any other: opposite coordinates are subtracted."""
        sample, _ = self.planted()
        matrix = pair_screen._grouping(sample, 1.0)
        wrong = np.abs(matrix)
        for column in range(64):
            first, second = np.flatnonzero(matrix[:, column])
            related = np.corrcoef(sample[:, first], sample[:, second])[0, 1]
            assert np.sign(related) == matrix[first, column] * matrix[second, column]
        assert ((sample @ matrix).var(axis=0) >= (sample @ wrong).var(axis=0) - 1e-9).all()
        assert ((sample @ matrix).var(axis=0) > (sample @ wrong).var(axis=0) + 1e-9).any()

    @pytest.mark.parametrize("order", [1.0, 2.0, np.inf])
    def test_the_scale_is_that_of_hoelders_inequality(self, order: float) -> None:
        """The largest for which no distance of sums exceeds that of the vectors."""
        matrix = pair_screen._grouping(self.planted()[0], order)
        used = np.abs(matrix[matrix != 0.0])
        np.testing.assert_allclose(used, 2.0 ** (1.0 / order - 1.0), rtol=1e-12)

    def test_few_coordinates_stay_apart(self) -> None:
        matrix = pair_screen._grouping(self.planted()[0][:, :20], 2.0)
        np.testing.assert_array_equal(np.abs(matrix), np.eye(20))

    def test_coordinates_that_never_change_are_summed_too(self) -> None:
        sample = self.planted()[0]
        sample[:, ::3] = 7.0
        matrix = pair_screen._grouping(sample, 1.0)
        assert np.isfinite(matrix).all()
        assert ((matrix != 0.0).sum(axis=1) == 1).all()
