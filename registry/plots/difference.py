"""Cumulative spectral differences of several networks, as in figure 1 of arXiv:2006.13687."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from registry.errors import UsageError
from registry.plots.data import AXES, LARGEST
from registry.plots.style import COLOURS, DASHES, GREY, SMALL, TEXT
from registry.plots.text import legible, shortened, verbatim, width_of, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import SubFigure

    from registry.plots.data import Axes, DifferencePicture

__all__ = ["caption", "draw_difference"]

EDGE = 2.0
"""Where the circular support ends and the long tail begins."""
FADED = 0.01
"""Differences below this are left to the logarithmic panel."""
SMALLEST = 1e-5
"""Where the logarithmic panel ends at the latest."""
PANEL = 3.5
"""Width of a panel in inches: one column of a paper, two the page."""
REFERENCES = {
    "cue": "circular unitary ensemble (CUE)",
    "coe": "circular orthogonal ensemble (COE)",
    "cse": "circular symplectic ensemble (CSE)",
    "wishart": "Gaussian weights of the same shapes (Wishart)",
}
SCALES = {
    "full": "full scale (all p eigenvalues of a layer's W Wᵀ, structural zeros counted)",
    "proper": "proper scale (structural zeros left out)",
}


def draw_difference(picture: DifferencePicture, *, axes: Axes = "both", title: str = "") -> Figure:
    """Draw cCSD(x) of up to ``LARGEST`` networks, with bands; to be called within `registry.plots.style.styled`.

    Raises
    ------
    UsageError
        No network, more than can be told apart, unknown axes.
    """
    if not 1 <= len(picture.curves) <= LARGEST:
        raise UsageError(f"one picture shows 1 to {LARGEST} networks, not {len(picture.curves)}", "draw several")
    if axes not in AXES:
        raise UsageError(f"axes must be one of {', '.join(AXES)}, not {axes!r}")
    kinds = ("linear", "log") if axes == "both" else (axes,)
    width = PANEL * len(kinds)
    below = wrapped(caption(picture), width - 0.2, SMALL)
    columns, labels = _labels(picture, width)
    heights = (
        2.45 + 0.17 * ceil((len(labels)) / columns) + (0.2 if title else 0),
        0.06 + 0.135 * (below.count("\n") + 1),
    )
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights, hspace=0)
    panels = upper.subplots(1, len(kinds), squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        _panel(panel, picture)
        (_linear if kind == "linear" else _logarithmic)(panel, picture)
    if title:
        verbatim(upper.suptitle("", fontsize=TEXT), shortened(title, width - 0.2, TEXT))
    _legend(upper, picture, labels, columns)
    lower.text(0.1 / width, 1.0, below, fontsize=SMALL, va="top", color="#404040", parse_math=False)
    return figure


def caption(picture: DifferencePicture) -> str:
    """What the curves and bands are, in a few sentences."""
    circular = picture.reference != "wishart"
    reference = REFERENCES[picture.reference]
    if picture.sample is not None:
        which = f"one member of the conjugate ensemble, {reference}, seed {picture.sample}"
    elif circular:
        which = "the expected conjugate circular ensemble, uniform on (0, 2] for CUE, COE and CSE alike"
    else:
        which = f"the expected conjugate ensemble, {reference}"
    bands = f"{100 * picture.level:g} % of {picture.resamples} resamplings of the layers (seed {picture.seed})"
    return f"{SCALES[picture.scale].capitalize()}. Reference: {which}. Bands: {bands}."


def _panel(panel: Panel, picture: DifferencePicture) -> None:
    """Curves, bands and references, on whatever axes."""
    x = picture.locations
    if picture.gaussian is not None:
        panel.fill_between(x, *picture.gaussian, color=GREY, alpha=0.45, linewidth=0.8, zorder=1)
    for curve, colour, dashes in zip(picture.curves, COLOURS, DASHES, strict=False):
        panel.fill_between(x, curve.lower, curve.upper, color=colour, alpha=0.14, linewidth=0, zorder=2)
        panel.plot(x, curve.values, color=colour, linestyle=dashes, zorder=3)
    panel.set_xlabel("x = eigenvalue over layer mean")
    panel.set_ylabel(r"cCSD(x) = F$_c$(x) − F(x)")


def _linear(panel: Panel, picture: DifferencePicture) -> None:
    """From 0 to where all differences have faded."""
    x = picture.locations
    largest = np.max([np.abs(curve.values) for curve in picture.curves], axis=0)
    visible = x[largest > FADED]
    end = max(2 * EDGE, float(visible[-1])) if visible.size else 2 * EDGE
    panel.set_xlim(0, min(1.05 * end, float(x[-1])))
    panel.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    _edge(panel, picture)


def _logarithmic(panel: Panel, picture: DifferencePicture) -> None:
    """The tail alone, where differences are positive."""
    x = picture.locations
    panel.set_xscale("log")
    panel.set_yscale("log", nonpositive="clip")
    tail = np.array([curve.values[x >= EDGE] for curve in picture.curves])
    positive = tail[tail > 0]
    highest, lowest = (float(positive.max()), float(positive.min())) if positive.size else (1.0, SMALLEST)
    panel.set_ylim(max(SMALLEST, 0.5 * lowest), 2 * highest)
    panel.set_xlim(EDGE, max(float(x[-1]), 2 * EDGE))
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


def _edge(panel: Panel, picture: DifferencePicture) -> None:
    """Mark where the circular reference ends."""
    if picture.reference != "wishart":
        panel.axvline(EDGE, color=GREY, linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)


def _labels(picture: DifferencePicture, width: float) -> tuple[int, list[str]]:
    """Columns of the legend, and its entries as they fit into them."""
    handle = 0.55
    entries = []
    for curve in picture.curves:
        behind = f" ({curve.layers} layer{'s' if curve.layers != 1 else ''})"
        entries.append(shortened(curve.name, width - handle - 0.2 - width_of(behind)) + behind)
    if picture.gaussian is not None:
        entries.append("Gaussian weights, same shapes")
    longest = max(map(width_of, entries))
    return max(1, min(len(entries), int((width - 0.2) / (longest + handle)))), entries


def _legend(figure: SubFigure, picture: DifferencePicture, labels: list[str], columns: int) -> None:
    """Lines and names below the panels."""
    handles: list[Any] = [
        Line2D([], [], color=colour, linestyle=dashes)
        for _, colour, dashes in zip(picture.curves, COLOURS, DASHES, strict=False)
    ]
    if picture.gaussian is not None:
        handles.append(Patch(color=GREY, alpha=0.45))
    # Matplotlib drops entries that begin with an underscore, and reads dollar signs as formulas.
    legend = figure.legend(
        handles,
        ["entry"] * len(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        columnspacing=1.4,
        borderpad=0.1,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        verbatim(text, legible(label))
