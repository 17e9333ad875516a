"""Figure of the spectrum of one network: density by depth, mixed density, and repulsion of eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from registry.plots.labels import shortened, verbatim, wrapped
from registry.plots.style import COLOURS, DASHES, GREY, SMALL, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from registry.plots.figure_data import SpectrumPicture

__all__ = ["caption", "draw_spectrum"]

WIDTH = 7.0
"""Width and height of the page in inches."""
CIRCULAR, WISHART = 1, 2
"""Colours and dashes of the reference ensembles."""
SATURATED = 2.5
"""Density per decade at which the colour scale ends; the circular ensemble reaches ln 10."""
MARKS = 5
"""Largest number of intervals of the density scale; fixed, so that ticks do not change after the layout."""
CROWDED = 60
"""Number of layers above which the markers of spacing ratios are smaller."""


def draw_spectrum(picture: SpectrumPicture, *, title: str = "") -> Figure:
    """Draw density by depth, mixed density and spacing ratios; call it within `registry.plots.style.styled`."""
    layers = len(picture.layers)
    below = wrapped(caption(picture), WIDTH - 0.2)
    heights = 3.6 + min(1.5, 0.03 * layers), 0.06 + 0.135 * (below.count("\n") + 1)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = figure.add_gridspec(2, 1, height_ratios=heights, hspace=0)
    upper, lower = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
    panels = upper.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(2.6, 1), height_ratios=(1.3, heights[0] - 2.3)
    )
    (mixed, corner), (depth, repulsion) = panels
    _mixed(mixed, picture)
    image = _depth(depth, picture)
    _repulsion(repulsion, picture)
    corner.set_axis_off()
    handles, labels = mixed.get_legend_handles_labels()
    corner.legend(handles, labels, loc="upper left", frameon=False, borderaxespad=0)
    bar = upper.colorbar(image, ax=depth, location="bottom", shrink=0.7, aspect=40, pad=0.03, extend="max")
    bar.set_label("density of a layer, per decade of x", fontsize=SMALL)
    bar.outline.set_linewidth(0.4)
    verbatim(upper.suptitle("", fontsize=TEXT), shortened(title or picture.name, WIDTH - 0.2, TEXT))
    lower.text(0.1 / WIDTH, 1.0, below, fontsize=SMALL, va="top", color="#404040", parse_math=False)
    return figure


def caption(picture: SpectrumPicture) -> str:
    """Caption: what is shown and left out, and where the network departs from its conjugate ensembles."""
    layers = len(picture.layers)
    sentences = [
        f"{layers} layer{'s' if layers != 1 else ''}, proper scale (structural zeros left out), "
        "each layer counting the same.",
        "Marks on the map: edges of the spectrum of Gaussian weights of a layer's shape.",
        "Spacings of real weights repel as β = 1.",
    ]
    if picture.below:
        sentences.append(f"{_percent(picture.below)} of the density lies below the axis.")
    found = picture.conjugacy
    if found is not None:
        tails = ", ".join(f"{x:.3g} within {delta:g}" for delta, x in found.tail)
        sentences.append(f"Conjugate to the circular ensemble from x = {tails}; tail class {found.tail_class}.")
        sentences.append(
            f"Departs from the Wishart ensemble by {found.z:.3g} times its 99 % band; class {found.training_class}."
        )
    return " ".join(sentences)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if fraction >= 0.0005 else "less than 0.1 %"


def _mixed(panel: Axes, picture: SpectrumPicture) -> None:
    """Draw the network's density per decade and both conjugate ensembles."""
    at = np.log10(picture.edges)
    panel.stairs(picture.network, at, fill=True, color=GREY, alpha=0.5, label="network, mean over layers")
    panel.stairs(picture.network, at, color=COLOURS[0], linewidth=0.7)
    panel.stairs(
        picture.circular,
        at,
        color=COLOURS[CIRCULAR],
        linestyle=DASHES[CIRCULAR],
        linewidth=1.2,
        label="circular: uniform on (0, 2]",
    )
    panel.stairs(
        picture.wishart,
        at,
        color=COLOURS[WISHART],
        linestyle=DASHES[0],
        linewidth=1.0,
        label="Gaussian weights:\nMarchenko–Pastur, mixed",
    )
    panel.set_ylabel("density per decade")
    panel.yaxis.set_major_locator(MaxNLocator(MARKS, steps=(1, 2, 2.5, 5, 10)))
    # The Gaussian density of long thin matrices is a spike, which would compress the scale for the network.
    highest = max(float(picture.network.max()), float(picture.circular.max()))
    panel.set_ylim(0, 1.15 * max(highest, min(float(picture.wishart.max()), 2 * highest)))


def _depth(panel: Axes, picture: SpectrumPicture) -> AxesImage:
    """Draw each layer's density per decade, with the input on top."""
    at, layers = np.log10(picture.edges), len(picture.layers)
    image = panel.imshow(
        picture.layers,
        cmap="Greys",
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=SATURATED,
        extent=(float(at[0]), float(at[-1]), layers + 0.5, 0.5),
    )
    rows = np.arange(layers) + 0.5
    for edge in picture.support:
        seen = (edge > picture.edges[0]) & (edge < picture.edges[-1])
        panel.vlines(np.log10(edge[seen]), rows[seen], rows[seen] + 1, color=COLOURS[WISHART], linewidth=1.0)
    panel.set_xlim(float(at[0]), float(at[-1]))
    panel.xaxis.set_major_locator(MultipleLocator(1))
    panel.xaxis.set_major_formatter(lambda value, _: f"$10^{{{value:.0f}}}$")
    panel.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    panel.set_xlabel("x = eigenvalue over layer mean")
    panel.set_ylabel("layer, by depth")
    return image


def _repulsion(panel: Axes, picture: SpectrumPicture) -> None:
    """Draw the mean spacing ratio of each layer, with theory."""
    rows = np.arange(len(picture.ratios)) + 1
    panel.errorbar(
        picture.ratios,
        rows,
        xerr=picture.errors,
        fmt="o",
        markersize=2.2 if len(rows) <= CROWDED else 1.4,
        color=COLOURS[0],
        elinewidth=0.6,
        ecolor=GREY,
    )
    for number, (label, value) in enumerate(picture.theory):
        panel.axvline(value, color=COLOURS[number + 1], linestyle=DASHES[number + 1], linewidth=1.0, zorder=0)
        name = panel.text(
            value,
            1.02,
            label,
            transform=panel.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=COLOURS[number + 1],
        )
        # Placed in an empty corner, and left out of the layout.
        name.set_in_layout(False)
    known = picture.ratios[np.isfinite(picture.ratios)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.5, 0.5)
    panel.set_xlim(min(0.3, max(0.0, low - 0.05)), max(0.75, min(1.0, high + 0.05)))
    panel.set_xlabel("mean spacing ratio")
