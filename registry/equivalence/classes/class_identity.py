"""What a class is known by from one partition to the next."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["KEPT_FROM", "inherited"]

KEPT_FROM = 0.5
"""Overlap, members in common over members of either, from which a class is the one that it was."""


def inherited(
    classes: Sequence[Sequence[int]], before: Mapping[str, Sequence[int]], new: Callable[[int, int], str]
) -> list[str]:
    """The identity of each class, no two alike.

    Parameters
    ----------
    classes
        Members, by id, of the classes there are now; each model in one.
    before
        Members of the earlier classes by identity, in their order; models that are no more are left out.
    new
        An identity for a class, by its place in ``classes`` and how many of those given for it are taken.

    Notes
    -----
    A class takes the identity of the earlier one with which it overlaps by ``KEPT_FROM`` or more: the largest overlap
    first, of equal ones the earlier class first, then the class first. Above one half there is nothing to choose: a
    class that shared more than half of either with two that are apart would have more members than it has. Of exactly
    one half it can be two, as where a class of two falls apart.
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
    # Nothing that was is given to another: who remembers an identity finds its class or none.
    taken |= before.keys()
    for place in range(len(classes)):
        if place not in found:
            tries = 0
            while (identity := new(place, tries)) in taken:
                tries += 1
            found[place] = identity
            taken.add(identity)
    return [found[place] for place in range(len(classes))]
