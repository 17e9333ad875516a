"""Identity of equivalence classes across partitions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["KEPT_FROM", "inherited"]

KEPT_FROM = 0.5
"""Smallest overlap (common members over members of either) at which a class keeps its identity."""


def inherited(
    classes: Sequence[Sequence[int]], before: Mapping[str, Sequence[int]], new: Callable[[int, int], str]
) -> list[str]:
    """The identity of each class; all are different.

    Parameters
    ----------
    classes
        Members, by id, of the current classes; each model is in one class.
    before
        Members of the earlier classes by identity, in order, without models that were removed.
    new
        Function that returns a new identity, from the index in ``classes`` and the number of its identities already
        taken.

    Notes
    -----
    A class takes the identity of the earlier class with which it overlaps by ``KEPT_FROM`` or more: the largest overlap
    first; for equal overlaps, the first earlier class, then the first class. For an overlap above one half there is
    only one candidate. For exactly one half there can be two, for instance if a class of two members splits.
    """
    number = {identity: place for place, identity in enumerate(before)}
    owner = {model: identity for identity, members in before.items() for model in members}
    overlaps = []
    for place, members in enumerate(classes):
        for identity, common in Counter(owner[model] for model in members if model in owner).items():
            overlap = common / (len(members) + len(before[identity]) - common)
            if overlap >= KEPT_FROM:
                overlaps.append((-overlap, number[identity], place, identity))
    found: dict[int, str] = {}
    taken: set[str] = set()
    for _, _, place, identity in sorted(overlaps):
        if place not in found and identity not in taken:
            found[place] = identity
            taken.add(identity)
    # An earlier identity is never given to another class, so that a stored identity finds its class or none.
    taken |= before.keys()
    for place in range(len(classes)):
        if place not in found:
            tries = 0
            while (identity := new(place, tries)) in taken:
                tries += 1
            found[place] = identity
            taken.add(identity)
    return [found[place] for place in range(len(classes))]
