"""Escaping and layout of untrusted names in figures: no markup, control characters or missing glyphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.plots.style import SMALL

if TYPE_CHECKING:
    from matplotlib.text import Text

__all__ = ["legible", "shortened", "verbatim", "width_of", "wrapped"]

ELLIPSIS = "…"


def legible(text: str) -> str:
    r"""``text`` with characters that the font lacks escaped: a line feed becomes ``\n``, ``中`` becomes ``\u4e2d``."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def width_of(text: str, size: float = SMALL) -> float:
    """Width of a line of text in inches, for a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    # Matplotlib's annotation of the last parameter excludes False, which is accepted.
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def shortened(text: str, width: float, size: float = SMALL) -> str:
    """``text`` within ``width`` inches; the middle of longer text is left out, because names differ at their ends."""
    text = legible(text)
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text) - 1
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if width_of(_ends(text, kept), size) <= width else (low, kept - 1)
    return _ends(text, low)


def _ends(text: str, kept: int) -> str:
    """First and last characters of a text, ``kept`` in total."""
    tail = kept // 2
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :]


def wrapped(text: str, width: float, size: float = SMALL) -> str:
    """A paragraph broken at blanks into lines of at most ``width`` inches, except for longer words."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def verbatim(text: Text, content: str) -> None:
    """Escape dollar signs, so that Matplotlib shows ``content`` as it is."""
    text.set_parse_math(False)
    text.set_text(content)
