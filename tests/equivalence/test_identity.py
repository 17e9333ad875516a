from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.equivalence import inherited


def new(place: int, tries: int) -> str:
    return f"new{place}" + "'" * tries


def test_small_changes_keep_the_identity() -> None:
    before = {"a": [1, 2, 3], "b": [4, 5], "c": [6]}
    assert inherited([[1, 2, 3], [4, 5], [6]], before, new) == ["a", "b", "c"]
    assert inherited([[6], [4, 5], [1, 2, 3]], before, new) == ["c", "b", "a"]
    # Models added, moved, and a twin to one that was alone.
    assert inherited([[1, 2, 3, 7, 8], [4, 5, 9], [6, 10]], before, new) == ["a", "b", "c"]
    assert inherited([[1, 2], [3, 4, 5], [6]], before, new) == ["a", "b", "c"]
    # More came than were: another class.
    assert inherited([[1, 2, 3, 7, 8, 9, 10], [6, 11, 12]], before, new) == ["new0", "new1"]
    # Two that join are the larger; a class that falls apart is its larger part.
    assert inherited([[1, 2, 3, 4, 5]], before, new) == ["a"]
    assert inherited([[3], [1, 2]], before, new) == ["new0", "a"]


def test_halves() -> None:
    # Of two halves the first class; of two that were and join, the earlier one.
    assert inherited([[2], [1]], {"a": [1, 2]}, new) == ["a", "new1"]
    assert inherited([[1, 2]], {"a": [2], "b": [1]}, new) == ["a"]


def test_a_new_identity_was_no_others() -> None:
    before = {"new0": [1, 2], "new1": [3], "new1'": [4]}
    assert inherited([[5], [6]], before, new) == ["new0'", "new1''"]
    assert inherited([[1, 2], [3, 9, 10, 11]], before, new) == ["new0", "new1''"]
    # Nor is it that of another new one.
    assert inherited([[5], [6], [7]], {}, lambda _, tries: "new" + "'" * tries) == ["new", "new'", "new''"]


partitions = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(partitions, partitions)
def test_one_class_one_identity(labels: list[int], earlier: list[int]) -> None:
    def split(by: list[int]) -> list[list[int]]:
        return [[model for model, label in enumerate(by) if label == own] for own in sorted(set(by))]

    before = {f"old{place}": members for place, members in enumerate(split(earlier))}
    now = split(labels)
    found = inherited(now, before, new)
    assert len(set(found)) == len(now)
    for members, identity in zip(now, found, strict=True):
        overlaps = {
            old: len(set(members) & set(others)) / len(set(members) | set(others)) for old, others in before.items()
        }
        # More than half is the class that it was; less than half is not.
        certain = [old for old, overlap in overlaps.items() if overlap > 0.5]
        assert certain in ([], [identity])
        assert identity not in before or overlaps[identity] >= 0.5
