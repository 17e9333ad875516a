"""What the methods of ``Registry`` are given: of the right kind, or one line that says what it must be.

A text where a number belongs would be compared as each database sees fit; it is refused before any is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.spelling import brief

__all__ = ["number", "path", "place", "several", "text", "whole"]


def number(value: Any, name: str) -> float:
    """A real number. Raises ``UsageError`` for anything else, the text of one and a truth value included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {brief(value)}")
    return float(value)


def whole(value: Any, name: str, least: int | None = None) -> int:
    """A whole number, of at least ``least``. Raises ``UsageError``, for a truth value, too."""
    try:
        found = None if isinstance(value, bool) else index(value)
    except TypeError:
        found = None
    if found is None:
        raise UsageError(f"{name} must be a whole number, not {brief(value)}")
    if least is not None and found < least:
        raise UsageError(f"{name} must be at least {least}, not {found}")
    return found


def text(value: Any, name: str) -> str:
    """A text. Raises ``UsageError``."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not {brief(value)}")
    return value


def path(value: Any, name: str) -> Path:
    """A path, given as one or as a text. Raises ``UsageError``."""
    return Path(place(value, name, "a path"))


def place(value: Any, name: str, kind: str = "a URL or a path") -> str:
    """A URL or a path as a text. Raises ``UsageError`` for what is neither text nor path, a path of bytes included."""
    found = value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(found, str):
        raise UsageError(f"{name} must be {kind}, not {brief(value)}", "give a text or a pathlib.Path")
    return found


def several(values: Any, name: str) -> tuple[Any, ...]:
    """A list, of whatever. Raises ``UsageError``, above all for a text alone, which is no list of letters."""
    if isinstance(values, str):
        raise UsageError(f"{name} is a list, not the text {values!r}", f"write [{values!r}]")
    if not isinstance(values, Iterable):
        raise UsageError(f"{name} is a list, not {brief(values)}", "write it as a list, of one if need be: [...]")
    return tuple(values)
