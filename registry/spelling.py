"""Text formatting: short values in errors, counted nouns, similar names, addresses without secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["brief", "counted", "folded", "near_spellings", "without_secrets"]

SEPARATOR = re.compile(r"[/:\\-]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WITHOUT_QUERIES = ("s3:", "gs:", "memory:")  # addresses whose names may have a question mark
MOST = 3
LONGEST = 60  # characters of a value


def brief(value: object) -> str:
    """Representation of a value in one line of limited length, for error messages."""
    told = " ".join(repr(value).split())
    return told if len(told) <= LONGEST else f"{type(value).__name__} {told[:LONGEST]}..."


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 model``, ``2 models``, ``1,200 classes``, ``3 families``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def folded(text: str) -> str:
    """A text without differences of case and of Unicode's composition: ``STRASSE`` for ``straße``, ``é`` for ``É``.

    It is the canonical caseless form of the Unicode standard, section 3.13, in composed form.
    """
    return normalize("NFC", normalize("NFD", text).casefold())


def near_spellings(asked: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known texts that are spelt similarly to ``asked`` or contain it.

    A text is compared as a whole and from each separator on, ignoring case. About 50 microseconds per known text.
    """
    from difflib import get_close_matches  # needed only after a failed lookup

    asked = asked.strip().lower()
    if not asked:
        return []
    by_ending: dict[str, list[str]] = {}
    holding = []
    for text in known:
        folded = text.lower()
        for start in (0, *(found.end() for found in SEPARATOR.finditer(folded))):
            by_ending.setdefault(folded[start:], []).append(text)
        # difflib underrates a part of a longer name.
        if asked in folded:
            holding.append(text)
    close = get_close_matches(asked, by_ending, n=MOST, cutoff=0.6)
    return list(dict.fromkeys([*(text for ending in close for text in by_ending[ending]), *holding]))[:MOST]


def without_secrets(reference: str) -> str:
    """A reference as it may be shown and stored: of an address, without user, password, query and fragment."""
    match = _ADDRESS.match(reference)
    if match is None:
        return reference
    rest = reference[match.end() :]
    if not match[0].lower().startswith(_WITHOUT_QUERIES):
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{match[0]}{host.rpartition('@')[2]}{slash}{path}"
