"""What wrappers put before the names of a state dict: ``module.``, ``model.``, ``_orig_mod.`` and their like."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NamePrefixes"]

_DEEPEST = 16
"""Parts that a prefix may have."""
_LONGEST = 1024
"""Characters of a name that is looked at. Both bound the work on names made to cost time."""
_END = re.compile(r"[./]")


class NamePrefixes:
    """The names of a file, by all that may be the rest of them behind a prefix.

    A prefix ends with a dot or a slash. No list of prefixes is used: any text is one behind which the rest of a name is
    known.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._places: dict[str, list[str]] = {}  # prefixes by the rest
        for name in names:
            if len(name) <= _LONGEST:
                self._places.setdefault(name, []).append("")
                for found in islice(_END.finditer(name), _DEEPEST):
                    self._places.setdefault(name[found.end() :], []).append(name[: found.end()])

    def before(self, known: Iterable[str]) -> tuple[str, int]:
        """What stands before most of the known names, and before how many; of several the shortest.

        Time: O(known), and of the names in the file that end with one of them.
        """
        votes: Counter[str] = Counter()
        for name in known:
            for prefix in self._places.get(name, ()):
                votes[prefix] += 1
        prefix = min(votes, key=lambda one: (-votes[one], len(one), one), default="")
        return prefix, votes[prefix]
