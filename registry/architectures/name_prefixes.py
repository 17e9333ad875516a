"""What wrappers put before the names of a state dict: ``module.``, ``model.``, ``_orig_mod.`` and their like."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = ["prefix_before"]

_DEEPEST = 16
"""Parts that a prefix may have. It bounds the work on names made to cost time."""
_ENDS = "./"


def prefix_before(names: Iterable[str], known: Collection[str]) -> str:
    """What stands before most of the known names where they occur among ``names``; empty where it is nothing.

    A prefix ends with a dot or a slash. Of several that stand before as many known names, it is the shortest. No list
    of prefixes is used: any text is one behind which the rest of a name is known. Time: O(names), 16 parts of each.
    """
    known = known if isinstance(known, (set, frozenset, dict)) else frozenset(known)
    longest = max(map(len, known), default=0)
    votes: Counter[str] = Counter()
    for name in names:
        for start in _starts(name, longest):
            if name[start:] in known:
                votes[name[:start]] += 1
    return min(votes, key=lambda prefix: (-votes[prefix], len(prefix), prefix), default="")


def _starts(name: str, longest: int) -> Iterator[int]:
    """Where a known name may begin in a name: at its start, and behind each of its first parts."""
    start = 0
    for _ in range(_DEEPEST + 1):
        if len(name) - start <= longest:
            yield start
        ends = [end for mark in _ENDS if (end := name.find(mark, start)) >= 0]
        if not ends:
            return
        start = min(ends) + 1
