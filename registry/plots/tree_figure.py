"""Figure of trees of related models: one line a model, each joined to the one it is most like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from registry.plots.labels import shortened, verbatim, wrapped
from registry.plots.style import COLOURS, GREY, SMALL, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from registry.plots.figure_data import TreePicture

__all__ = ["draw_trees"]

WIDTH = 7.0
"""Width of the page in inches."""
LINE = 0.17
"""Height of a line in inches."""
DEEPEST = 40
"""Steps from a root beyond which lines are no longer moved to the right."""
CAPTION = (
    "Lines: a spanning tree of highest correlations r of the weights, written on each. The oldest stored model of each "
    "tree stands first: no direction of descent is claimed."
)


def draw_trees(picture: TreePicture, *, title: str = "") -> Figure:
    """Draw trees below each other; call it within `registry.plots.style.styled`."""
    below = wrapped(CAPTION, WIDTH - 0.2)
    lines = len(picture.names)
    foot = 0.2 + 0.135 * (below.count("\n") + 1)
    height = 0.45 + LINE * lines + foot
    figure = Figure(figsize=(WIDTH, height))
    panel = figure.add_axes((0.1 / WIDTH, foot / height, 1 - 0.2 / WIDTH, LINE * lines / height))
    panel.set_axis_off()
    panel.set_xlim(0, WIDTH - 0.2)
    panel.set_ylim(lines - 0.5, -0.5)
    step = min(0.42, 3.2 / max(1, min(DEEPEST, max(picture.depths, default=0))))
    for line in range(lines):
        _line(panel, picture, line, step)
    verbatim(figure.suptitle("", fontsize=TEXT, y=1 - 0.12 / height, va="top"), title or "Related models")
    figure.text(0.1 / WIDTH, 0.06 / height, below, fontsize=SMALL, va="bottom", color="#404040", parse_math=False)
    return figure


def _line(panel: Axes, picture: TreePicture, line: int, step: float) -> None:
    depth, above = min(DEEPEST, picture.depths[line]), picture.above[line]
    at = step * depth
    if above is not None:
        corner = step * min(DEEPEST, picture.depths[above]) + 0.06
        strong = picture.labels[line] in ("identical", "permuted")
        panel.plot(
            [corner, corner, at],
            [above + 0.35, line, line],
            color=COLOURS[1] if strong else GREY,
            linewidth=0.8,
            solid_capstyle="butt",
        )
    label = f"{picture.labels[line]}  " if above is not None else ""
    if label:
        panel.text(at + 0.02, line, label, fontsize=SMALL, va="center", color=COLOURS[2], parse_math=False)
    start = at + 0.02 + (0.55 if len(label) > 7 else 0.3) * bool(label)
    name = shortened(picture.names[line], WIDTH - 0.3 - start)
    weight = "bold" if above is None else "normal"
    panel.text(start, line, name, fontsize=SMALL, va="center", weight=weight, parse_math=False)
