"""Colours, dashes and Matplotlib settings of figures, independent of the user's settings."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["COLOURS", "DASHES", "GREY", "PALE", "SMALL", "TEXT", "require_matplotlib", "styled"]

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Okabe & Ito (2008), distinguishable with common colour blindnesses; the palest colour last."""
DASHES: tuple[Any, ...] = (
    "solid",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (9, 2)),
    (0, (5, 1.2, 1, 1.2, 1, 1.2)),
    (0, (2.5, 1)),
    (0, (9, 1.5, 2.5, 1.5)),
)
"""One per colour, in units of the line width, so that curves differ in black and white."""
PALE = COLOURS[-1]
"""The colour that is too pale for white paper without a darker outline."""
GREY = "#8C8C8C"
TEXT, SMALL = 8.0, 7.0
"""Font sizes in points, at the printed width."""

SETTINGS: dict[str, Any] = {
    "axes.linewidth": 0.6,
    "axes.titlesize": TEXT,
    "figure.dpi": 100.0,
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "legend.fontsize": SMALL,
    "lines.linewidth": 1.3,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "savefig.dpi": 300.0,
    "svg.hashsalt": "archreg",
    "xtick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.labelsize": SMALL,
    "ytick.major.width": 0.6,
}
# Settings that do not affect figures and are left as the user has them.
UNSTYLED = ("animation", "backend", "interactive", "keymap", "macosx", "tk", "toolbar", "webagg")
_drawing = Lock()


def require_matplotlib() -> None:
    """Raise ``RegistryError`` with a remedy if Matplotlib is not installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise RegistryError(
            f"drawing needs Matplotlib, which cannot be imported: {error}",
            "pip install 'architecture-registry[plot]'",
        ) from error


@contextmanager
def styled() -> Iterator[None]:
    """Context with Matplotlib's defaults and the settings above, restored on exit; one drawing at a time."""
    import matplotlib

    settings: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(UNSTYLED)} | SETTINGS
    # Settings are global to the process: two threads drawing at once would restore each other's.
    with _drawing, matplotlib.rc_context(settings):
        yield
