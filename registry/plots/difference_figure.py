"""Figure of cumulative spectral differences of several networks, as figure 1 of arXiv:2006.13687."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from registry.errors import UsageError
from registry.plots.figure_data import AXES, LARGEST
from registry.plots.labels import shortened, verbatim, width_of, wrapped
from registry.plots.style import COLOURS, DASHES, GREY, PALE, SMALL, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import SubFigure
    from matplotlib.patheffects import AbstractPathEffect

    from registry.plots.figure_data import Axes, DifferencePicture

__all__ = ["caption", "draw_difference"]

EDGE = 2.0
"""Location at which the circular support ends and the tail begins."""
FADED = 0.01
"""Differences below this are shown only in the logarithmic panel."""
SMALLEST = 1e-5
"""Largest location of the logarithmic panel."""
MARKS = 8
"""Largest number of intervals of the linear scale; fixed, so that ticks do not change after the layout."""
THIN = 0.7
"""Line width of the reference ensembles in points."""
HANDLE = 0.55
"""Width of a legend line with its padding, in inches."""
PANEL = 3.5
"""Width of a panel in inches: one column of a paper; two panels fill the page."""
SCALES = {
    "full": "Full scale (all p eigenvalues of a layer's W Wᵀ, structural zeros counted)",
    "proper": "Proper scale (structural zeros left out)",
}


def draw_difference(picture: DifferencePicture, *, axes: Axes = "both", title: str = "") -> Figure:
    """Draw cCSD(x) with bands of up to ``LARGEST`` networks; call it within `registry.plots.style.styled`.

    Raises
    ------
    UsageError
        There is no network, there are more than ``LARGEST``, or the axes are unknown.
    """
    if not 1 <= len(picture.curves) <= LARGEST:
        raise UsageError(f"one figure shows 1 to {LARGEST} networks, not {len(picture.curves)}", "draw several figures")
    if axes not in AXES:
        raise UsageError(f"axes must be one of {', '.join(AXES)}, not {axes!r}")
    kinds = ("linear", "log") if axes == "both" else (axes,)
    width = PANEL * len(kinds)
    below = wrapped(caption(picture), width - 0.2)
    entries = _networks(picture, width) + _references(picture, linear="linear" in kinds)
    columns = _columns([label for _, label in entries], width)
    above = 2.45 + 0.17 * ceil(len(entries) / columns) + (0.2 if title else 0)
    under = 0.06 + 0.135 * (below.count("\n") + 1)
    figure = Figure(figsize=(width, above + under), layout="constrained")
    parts = figure.add_gridspec(2, 1, height_ratios=(above, under), hspace=0)
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    for panel, kind in zip(upper.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        _panel(panel, picture)
        (_linear if kind == "linear" else _logarithmic)(panel, picture)
    if title:
        verbatim(upper.suptitle("", fontsize=TEXT), shortened(title, width - 0.2, TEXT))
    _legend(upper, entries, columns)
    lower.text(0.1 / width, 1.0, below, fontsize=SMALL, va="top", color="#404040", parse_math=False)
    return figure


def caption(picture: DifferencePicture) -> str:
    """Caption that describes the curves and bands."""
    if picture.sample is None:
        which = f"the expected conjugate ensemble, {picture.reference}: {picture.law}"
    else:
        which = f"one member of the conjugate ensemble, {picture.reference}, seed {picture.sample}"
    bands = f"{100 * picture.level:g} % of {picture.resamples} resamplings of the layers (seed {picture.seed})"
    return f"{SCALES[picture.scale]}. Reference: {which}. Bands: {bands}."


def _panel(panel: Panel, picture: DifferencePicture) -> None:
    """Draw curves, bands and Gaussian weights on one pair of axes."""
    x = picture.locations
    shade = min(0.14, 0.5 / len(picture.curves))
    for curve, colour, dashes in zip(picture.curves, COLOURS, DASHES, strict=False):
        panel.fill_between(x, curve.lower, curve.upper, color=colour, alpha=shade, linewidth=0, zorder=1)
        if curve.gaussian is not None:
            panel.plot(x, curve.gaussian, color=colour, linewidth=THIN, path_effects=_casing(colour, THIN), zorder=2)
        panel.plot(x, curve.values, color=colour, linestyle=dashes, path_effects=_casing(colour), zorder=3)
    panel.set_xlabel("x = eigenvalue over layer mean")
    panel.set_ylabel(r"cCSD(x) = F$_\mathrm{c}$(x) − F(x)")


def _casing(colour: str, width: float = 1.3) -> list[AbstractPathEffect]:
    """A darker outline for a colour that is too pale on white paper."""
    return [withStroke(linewidth=width + 0.9, foreground="#6E6A00")] if colour == PALE else []


def _linear(panel: Panel, picture: DifferencePicture) -> None:
    """Draw the linear panel, from 0 to where all differences have faded."""
    x = picture.locations
    largest = np.max([np.abs(curve.values) for curve in picture.curves], axis=0)
    visible = x[largest > FADED]
    end = max(2 * EDGE, float(visible[-1])) if visible.size else 2 * EDGE
    panel.set_xlim(0, min(1.05 * end, float(x[-1])))
    panel.yaxis.set_major_locator(MaxNLocator(MARKS, steps=(1, 2, 2.5, 5, 10)))
    panel.axhline(0, color=GREY, linewidth=THIN, zorder=0)
    if picture.support is not None:
        panel.axvline(picture.support, color=GREY, linewidth=THIN, linestyle=(0, (2, 2)), zorder=0)


def _logarithmic(panel: Panel, picture: DifferencePicture) -> None:
    """Draw the logarithmic panel: the tail, where differences are positive."""
    x = picture.locations
    panel.set_xscale("log")
    panel.set_yscale("log", nonpositive="clip")
    tail = np.array([curve.values[x >= EDGE] for curve in picture.curves])
    positive = tail[tail > 0]
    highest, lowest = (float(positive.max()), float(positive.min())) if positive.size else (1.0, SMALLEST)
    panel.set_ylim(max(SMALLEST, 0.5 * lowest), 2 * highest)
    end = float(x[-1])
    panel.set_xlim(EDGE, end)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if end > 10 * EDGE else (1, 2, 3, 4, 5, 6, 8)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


def _networks(picture: DifferencePicture, width: float) -> list[tuple[Line2D, str]]:
    """Legend entries of the networks, with names shortened to fit."""
    entries = []
    for curve, colour, dashes in zip(picture.curves, COLOURS, DASHES, strict=False):
        behind = f" ({curve.layers} layer{'s' if curve.layers != 1 else ''})"
        name = shortened(curve.name, width - HANDLE - 0.2 - width_of(behind))
        line = Line2D([], [], color=colour, linestyle=dashes, path_effects=_casing(colour))
        entries.append((line, name + behind))
    return entries


def _references(picture: DifferencePicture, *, linear: bool) -> list[tuple[Line2D, str]]:
    """Legend entries of the references. The conjugate ensemble is 0, which logarithmic axes cannot show."""
    entries = []
    if linear:
        entries.append((Line2D([], [], color=GREY, linewidth=THIN), "zero: the conjugate ensemble"))
    if any(curve.gaussian is not None for curve in picture.curves):
        entries.append((Line2D([], [], color=COLOURS[0], linewidth=THIN), "thin: Gaussian weights, same shapes"))
    return entries


def _columns(labels: list[str], width: float) -> int:
    """Number of legend columns that fit the width."""
    return max(1, min(len(labels), int((width - 0.2) / (max(map(width_of, labels)) + HANDLE))))


def _legend(figure: SubFigure, entries: list[tuple[Line2D, str]], columns: int) -> None:
    """Draw the legend below the panels."""
    # Matplotlib drops entries that begin with an underscore, and parses dollar signs as formulas.
    legend = figure.legend(
        [line for line, _ in entries],
        ["entry"] * len(entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        columnspacing=1.4,
        borderpad=0.1,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        verbatim(text, label)
