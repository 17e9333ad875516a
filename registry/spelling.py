"""How words are spelt: known names that somebody may have meant, nouns behind their counts, values in errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["brief", "counted", "near_spellings"]

SEPARATOR = re.compile(r"[/:\\-]")
MOST = 3
LONGEST = 60  # letters of a value


def brief(value: object) -> str:
    """A value in one line that is not long: a module tells of all its layers, an array of all its numbers."""
    told = " ".join(repr(value).split())
    return told if len(told) <= LONGEST else f"{type(value).__name__} {told[:LONGEST]}..."


def counted(count: int, noun: str) -> str:
    """A count of things: ``1 model``, ``2 models``, ``1,200 classes``, ``3 families``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def near_spellings(asked: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known texts spelt nearly so, as a whole or from a folder or a dash on, or that hold it.

    Without regard to case, but as they are known. Some 50 microseconds a text.
    """
    from difflib import get_close_matches  # which no command needs that finds what it was asked for

    asked = asked.strip().lower()
    if not asked:
        return []
    by_ending: dict[str, list[str]] = {}
    holding = []
    for text in known:
        folded = text.lower()
        for start in (0, *(found.end() for found in SEPARATOR.finditer(folded))):
            by_ending.setdefault(folded[start:], []).append(text)
        # A part of a longer name is nearer than difflib has it.
        if asked in folded:
            holding.append(text)
    close = get_close_matches(asked, by_ending, n=MOST, cutoff=0.6)
    return list(dict.fromkeys([*(text for ending in close for text in by_ending[ending]), *holding]))[:MOST]
