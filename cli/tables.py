"""Tables and sentences on standard output, and the format of numbers.

Every text passes through `rich.text.Text`, which has no markup, and `harmless`, which escapes control characters. If
standard output is not a terminal, nothing is cut or wrapped.
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from registry.cli.error_output import harmless
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from registry.types import Metric, ModelSummary, Relation

__all__ = [
    "counted",
    "hint",
    "is_terminal",
    "layer_shape",
    "lines",
    "metrics",
    "moment",
    "named",
    "number",
    "percent",
    "relation",
    "say",
    "sentence",
    "size",
    "table",
    "whole",
]

PIPED_WIDTH = 10_000  # wider than any line, so that Rich neither cuts nor wraps
BYTES = ("B", "kB", "MB", "GB", "TB")


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def _console() -> Console:
    from rich.console import Console

    width = None if is_terminal() else PIPED_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def say(*sentences: str) -> None:
    """Write each sentence on its own line. On a terminal, long lines are wrapped and keep their indent."""
    from rich.text import Text

    console = _console()
    for sentence in sentences:
        text = harmless(sentence)
        words = text.lstrip(" ")
        margin = text[: len(text) - len(words)]
        for line in Text(words).wrap(console, max(1, console.width - len(margin))) if words else [Text()]:
            line.rstrip()
            console.print(Text(margin) + line)


def lines(*given: str) -> None:
    """Write lines as they are, neither wrapped nor cut: drawings."""
    sys.stdout.write("".join(f"{harmless(line)}\n" for line in given))


def hint(*sentences: str) -> None:
    """Write advice to standard error, because it is not part of the answer."""
    sys.stderr.write("".join(f"{harmless(sentence)}\n" for sentence in sentences))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table. A header that begins with ``>`` is aligned right; empty columns are left out.

    On a narrow terminal, texts are folded and never shortened.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console = _console()
    cells = [[harmless(cell) for cell in row] for row in rows]
    shown = Table(box=SIMPLE_HEAD if is_terminal() else None, pad_edge=False)
    kept = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in cells)]
    for index in kept:
        header = columns[index]
        right = header.startswith(">")
        shown.add_column(
            Text(harmless(header.removeprefix(">"))),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    for row in cells:
        shown.add_row(*(Text(row[index]) for index in kept))
    if is_terminal():
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    # Rich pads columns; in a file or a pipe this leaves only trailing blanks.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def number(value: float | None) -> str:
    """A number with three significant digits: ``0.151``, ``1,910``, ``1.91e+07``; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if 1e3 <= abs(float(text)) < 1e6 else text


def whole(value: int) -> str:
    """A count with thousands separators."""
    return f"{value:,}"


def size(count: int | None) -> str:
    """Bytes in decimal units: ``1.1 MB``; a question mark if unknown."""
    if count is None:
        return "?"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(BYTES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {BYTES[unit]}"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in per cent: ``99.6 %``. Never rounded to 0 or 100 %: ``<0.1 %``, ``>99.9 %``."""
    if not math.isfinite(fraction):
        return "-"
    step = 10.0**-digits
    if fraction > 0 and 100 * fraction < step / 2:
        return f"<{step:.{digits}f} %"
    if fraction < 1 and 100 * fraction >= 100 - step / 2:
        return f">{100 - step:.{digits}f} %"
    return f"{100 * fraction:.{digits}f} %"


def moment(time: str) -> str:
    """An ISO 8601 time in UTC: ``2026-01-02 03:04:05 UTC``."""
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def metrics(known: Iterable[Metric]) -> str:
    """Metrics in one line: ``top1 92.63 (cifar10 test)``."""
    return ", ".join(
        f"{metric.name} {metric.value:g}"
        + (f" ({place})" if (place := f"{metric.dataset} {metric.split}".strip()) else "")
        for metric in known
    )


def named(model: ModelSummary) -> str:
    """The name of a model; of a class of architectures that are not told apart, also how many others there are."""
    others = len(model.names) - 1 if model.catalogue else 0
    return f"{model.name} and {others} equal" if others > 0 else model.name


def relation(found: Relation | None) -> str:
    """What the weights of two models say, in a word: ``related r 0.83``, ``independent``; a dash if nothing."""
    if found is None or found.verdict == "not comparable":
        return "-"
    return f"related r {found.short}" if found.verdict == "related" else found.verdict


def layer_shape(shape: Sequence[int]) -> str:
    """A tensor's shape: ``64x3x7x7``."""
    return "x".join(map(str, shape))
