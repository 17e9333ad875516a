"""Figures that are returned: nothing is saved unless asked for, and pyplot knows nothing of them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from registry.errors import UsageError
from registry.plots import plot_difference, plot_spectrum
from tests.plots.factory import differences, spectrum


@pytest.mark.parametrize(
    "draw",
    [lambda path=None: plot_difference(differences("a", "b"), path), lambda path=None: plot_spectrum(spectrum(), path)],
)
def test_a_figure_is_returned_and_saved_only_when_asked(draw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unsaved = draw()
    assert isinstance(unsaved, Figure)
    assert list(tmp_path.iterdir()) == []
    saved = draw(tmp_path / "x.png")
    assert isinstance(saved, Figure)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    # Both are laid out once and for all: what a notebook shows is what is saved.
    shown = []
    for figure in (unsaved, saved):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=100)
        shown.append(drawn.getvalue())
    assert shown[0].startswith(b"\x89PNG")
    assert shown[0] == shown[1]


def test_wrong_requests_are_refused_without_a_file_too():
    with pytest.raises(UsageError, match="axes must be one of"):
        plot_difference(differences("a"), axes="polar")


def test_pyplot_is_neither_imported_nor_told():
    program = (
        "import sys\nfrom registry.plots import plot_difference\nfrom tests.plots.factory import differences\n"
        "figure = plot_difference(differences('a'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "import matplotlib.pyplot as plt\n"
        "plt.figure()\n"
        "plot_difference(differences('a'))\n"
        "assert plt.get_fignums() == [1]\n"
        "print(type(figure).__name__)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == "Figure\n", done.stderr
