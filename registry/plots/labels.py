"""Untrusted names in pictures: nothing in them is markup, a control character or a missing glyph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.plots.style import SMALL

if TYPE_CHECKING:
    from matplotlib.text import Text

__all__ = ["legible", "shortened", "verbatim", "width_of", "wrapped"]

ELLIPSIS = "…"


def legible(text: str) -> str:
    r"""``text`` with all that the font cannot show spelt out: a line feed becomes ``\n``, ``中`` becomes ``\u4e2d``."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def width_of(text: str, size: float = SMALL) -> float:
    """Width of a line of text in inches, at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    # Matplotlib annotates the last parameter as a literal that leaves out False, which it takes.
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def shortened(text: str, width: float, size: float = SMALL) -> str:
    """``text`` within ``width`` inches, its middle left out where it is longer: the ends tell names apart."""
    text = legible(text)
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text) - 1
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if width_of(_ends(text, kept), size) <= width else (low, kept - 1)
    return _ends(text, low)


def _ends(text: str, kept: int) -> str:
    """The first and last characters of a text, ``kept`` in all."""
    tail = kept // 2
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :]


def wrapped(text: str, width: float, size: float = SMALL) -> str:
    """A paragraph broken at blanks into lines of at most ``width`` inches, but for a word that is longer."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def verbatim(text: Text, content: str) -> None:
    """Put ``content`` into a text as it is: dollar signs begin no formula."""
    text.set_parse_math(False)
    text.set_text(content)
