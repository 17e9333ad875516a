"""Figures, and files of them: PNG, SVG or PDF by the suffix, whole or not at all, the same bytes every time."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from registry.atomic_files import whole_file
from registry.errors import UsageError
from registry.plots.style import require_matplotlib, styled

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from registry.plots.figure_data import Axes, DifferencePicture, SpectrumPicture, TreePicture

__all__ = ["SUFFIXES", "check_picture", "plot_difference", "plot_spectrum", "plot_trees"]

SUFFIXES = (".png", ".svg", ".pdf")
# Metadata without the time of creation.
METADATA: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
DIGITS = 6
"""Decimals of positions, in units of the figure size."""


def check_picture(path: Path | None) -> None:
    """Refuse what could not be drawn, before the work for it begins; ``path`` is None where nothing is to be saved.

    Raises
    ------
    UsageError
        The suffix is not one of ``SUFFIXES``, or the folder does not exist.
    RegistryError
        Matplotlib is not installed.
    """
    if path is not None:
        _check_name(path)
    require_matplotlib()


def _check_name(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        *most, last = SUFFIXES
        raise UsageError(f"'{path}' does not end in {', '.join(most)} or {last}", f"name the figure FILE{SUFFIXES[0]}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder '{path.parent}'", "create it, or name another file")


def plot_difference(
    picture: DifferencePicture, path: Path | None = None, *, axes: Axes = "both", title: str = ""
) -> Figure:
    """Draw spectral differences of networks, and save them as ``path`` if it is given.

    The figure belongs to the caller alone: ``matplotlib.pyplot`` does not know it, and nothing has to be closed.

    Raises
    ------
    UsageError, RegistryError
        As in `check_picture`; also if the file cannot be written.
    """
    check_picture(path)
    from registry.plots.difference_figure import draw_difference

    with styled():
        return _finished(draw_difference(picture, axes=axes, title=title), path)


def plot_spectrum(picture: SpectrumPicture, path: Path | None = None, *, title: str = "") -> Figure:
    """Draw the spectrum of a network, and save it as ``path`` if it is given. As `plot_difference`."""
    check_picture(path)
    from registry.plots.spectrum_figure import draw_spectrum

    with styled():
        return _finished(draw_spectrum(picture, title=title), path)


def plot_trees(picture: TreePicture, path: Path | None = None, *, title: str = "") -> Figure:
    """Draw trees of related models, and save them as ``path`` if it is given. As `plot_difference`."""
    check_picture(path)
    from registry.plots.tree_figure import draw_trees

    with styled():
        return _finished(draw_trees(picture, title=title), path)


def _settle(figure: Figure) -> None:
    """Compute the layout once and round its positions.

    The layout solver orders constraints by memory address, so positions differ by rounding between runs, and SVG names
    its clipping rectangles after all their digits.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(DIGITS))
        for panel in part.axes:
            x, y, width, height = panel.get_position().bounds
            panel.set_position((round(x, DIGITS), round(y, DIGITS), round(width, DIGITS), round(height, DIGITS)))


def _finished(figure: Figure, path: Path | None) -> Figure:
    """Lay the figure out, and write it if that is asked for; an older file stays until the new one is complete."""
    _settle(figure)
    if path is not None:
        _write(figure, path)
    return figure


def _write(figure: Figure, path: Path) -> None:
    suffix = path.suffix.lower()
    drawn = BytesIO()
    figure.savefig(drawn, format=suffix[1:], metadata=METADATA[suffix])
    with whole_file(path) as partial:
        partial.write_bytes(drawn.getvalue())
