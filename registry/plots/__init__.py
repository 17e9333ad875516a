"""Figures: spectral differences of several networks, the spectrum of one network, trees of related ones.

``data``: what a picture shows, as arrays; ``difference``, ``density``: the drawings; ``style``: colours, dashes and
settings; ``text``: untrusted names made harmless; ``files``: PNG, SVG and PDF, the same bytes every time. Matplotlib is
imported when something is drawn and not before; neither its state nor its settings are changed for anyone else:
``matplotlib.pyplot`` is never imported and does not know the figures that are returned.
"""

from __future__ import annotations

from registry.plots.figure_data import (
    AXES,
    LARGEST,
    MOST_LINES,
    Axes,
    Curve,
    DifferencePicture,
    SpectrumPicture,
    TreePicture,
)
from registry.plots.figure_files import SUFFIXES, check_picture, plot_difference, plot_spectrum, plot_trees

__all__ = [
    "AXES",
    "Axes",
    "Curve",
    "DifferencePicture",
    "LARGEST",
    "MOST_LINES",
    "SUFFIXES",
    "SpectrumPicture",
    "TreePicture",
    "check_picture",
    "plot_difference",
    "plot_spectrum",
    "plot_trees",
]
