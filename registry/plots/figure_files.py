"""Pictures as files: PNG, SVG or PDF by the suffix, whole or not at all, the same bytes every time."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from registry.atomic_files import whole_file
from registry.errors import UsageError
from registry.plots.style import require_matplotlib, styled

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from registry.plots.figure_data import Axes, DifferencePicture, SpectrumPicture

__all__ = ["SUFFIXES", "check_picture", "plot_difference", "plot_spectrum"]

SUFFIXES = (".png", ".svg", ".pdf")
# Without the time of day.
METADATA: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
DIGITS = 6
"""Of positions, in units of the figure's size."""


def check_picture(path: Path) -> None:
    """Refuse what could not be drawn, before the work for it begins.

    Raises
    ------
    UsageError
        The name ends in none of ``SUFFIXES``, or its folder does not exist.
    RegistryError
        Matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        *most, last = SUFFIXES
        raise UsageError(f"'{path}' does not end in {', '.join(most)} or {last}", f"name the picture FILE{SUFFIXES[0]}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder '{path.parent}'", "create it, or name another file")
    require_matplotlib()


def plot_difference(picture: DifferencePicture, path: Path, *, axes: Axes = "both", title: str = "") -> None:
    """Draw spectral differences of networks into a file.

    Raises
    ------
    UsageError, RegistryError
        As `check_picture`; the file cannot be written.
    """
    check_picture(path)
    from registry.plots.difference_figure import draw_difference

    with styled():
        _write(path, draw_difference(picture, axes=axes, title=title))


def plot_spectrum(picture: SpectrumPicture, path: Path, *, title: str = "") -> None:
    """Draw the spectrum of a network into a file. Raises as `plot_difference`."""
    check_picture(path)
    from registry.plots.spectrum_figure import draw_spectrum

    with styled():
        _write(path, draw_spectrum(picture, title=title))


def _settle(figure: Figure) -> None:
    """Lay the figure out once, and round what comes out.

    The solver of the layout takes its constraints in the order of addresses in memory, so that positions differ by
    rounding from one run to the next; SVG names its clipping rectangles after all their digits.
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


def _write(path: Path, figure: Figure) -> None:
    """Write a figure; an older file stays until the new one is complete."""
    suffix = path.suffix.lower()
    _settle(figure)
    drawn = BytesIO()
    figure.savefig(drawn, format=suffix[1:], metadata=METADATA[suffix])
    with whole_file(path) as partial:
        partial.write_bytes(drawn.getvalue())
