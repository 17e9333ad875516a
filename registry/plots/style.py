"""Colours, dashes and Matplotlib settings, the same whatever the user's own are."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["COLOURS", "DASHES", "GREY", "PALE", "SMALL", "TEXT", "require_matplotlib", "styled"]

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Okabe & Ito (2008), told apart by people with any of the common colour blindnesses; the palest last."""
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
"""One a colour, in units of the line's width: curves stay apart in black and white."""
PALE = COLOURS[-1]
"""Too pale for white paper without a darker rim."""
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
# What does not decide how a figure looks, and stays as the user has it.
UNSTYLED = ("animation", "backend", "interactive", "keymap", "macosx", "tk", "toolbar", "webagg")
_drawing = Lock()


def require_matplotlib() -> None:
    """RegistryError with a remedy where Matplotlib is not installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise RegistryError(
            f"drawing needs Matplotlib, which cannot be imported: {error}",
            "pip install 'architecture-registry[plot]'",
        ) from error


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults with the settings above, put back on leaving; one drawing at a time."""
    import matplotlib

    settings: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(UNSTYLED)} | SETTINGS
    # Settings are the process's: two threads that drew at once would leave them as the other found them.
    with _drawing, matplotlib.rc_context(settings):
        yield
