"""Pictures as files: the kinds, the same bytes every time, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pytest
from matplotlib.figure import Figure

from registry.errors import RegistryError, UsageError
from registry.plots import SUFFIXES, check_picture, figure_files, plot_difference, plot_spectrum
from registry.plots.spectrum_figure import draw_spectrum as drawing
from registry.plots.style import styled
from tests.plots.factory import differences, spectrum

MAGIC = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


def draw_differences(path: Path) -> None:
    plot_difference(differences("a", "b"), path, axes="linear")


def draw_spectrum(path: Path) -> None:
    plot_spectrum(spectrum(), path)


@pytest.mark.parametrize(
    ("draw", "suffix"), [(draw_differences, suffix) for suffix in SUFFIXES] + [(draw_spectrum, ".svg")]
)
def test_each_kind_of_file_is_the_same_every_time(draw, suffix, tmp_path, monkeypatch):
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix.upper()}"
    draw(first)
    # What Matplotlib would take the date from, were one written.
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    draw(second)
    written = first.read_bytes()
    assert written.startswith(MAGIC[suffix])
    assert written == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]
    assert b"CreationDate" not in written
    assert b"/Type3" not in written  # which journals refuse


def test_positions_are_rounded_beyond_what_the_layout_varies_by():
    with styled():
        figure = drawing(spectrum())
        figure_files._settle(figure)
    parts = figure.subfigs
    found = np.concatenate(
        [part.bbox_relative.get_points() for part in parts]
        + [panel.get_position().get_points() for part in parts for panel in part.axes]
    )
    np.testing.assert_allclose(found, found.round(figure_files.DIGITS), rtol=0, atol=1e-15)
    assert len(parts[0].axes) == 5
    assert len(np.unique(found)) > 10


def test_without_our_settings_the_bytes_would_differ(tmp_path):
    paths = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for path in paths:
        figure = Figure()
        figure.subplots().fill_between([0, 1], [0, 1])
        figure.savefig(path, metadata={"Date": None})
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_the_users_settings_change_no_byte(tmp_path, monkeypatch):
    import matplotlib

    plain, other = tmp_path / "plain.svg", tmp_path / "other.svg"
    draw_differences(plain)
    for key, value in {"font.size": 20.0, "lines.linewidth": 5.0, "axes.grid": True, "svg.fonttype": "none"}.items():
        monkeypatch.setitem(matplotlib.rcParams, key, value)
    draw_differences(other)
    assert plain.read_bytes() == other.read_bytes()


def test_markup_in_names_stays_text(tmp_path):
    path = tmp_path / "x.svg"
    plot_difference(differences("<script>&amp;", "]]><a href='x'>"), path, axes="log", title="--> <script/> $x$ <!--")
    elements = set()
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: elements.add(name)
    parser.Parse(path.read_bytes(), True)
    assert {"svg", "path", "use"} <= elements
    assert not elements & {"script", "a"}


@pytest.mark.parametrize("name", ["x.jpg", "x", ".png", "x.png.gz", "x.ps"])
def test_other_kinds_are_refused_with_those_there_are(name, tmp_path):
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        plot_difference(differences("a"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        check_picture(tmp_path / "nowhere" / "x.png")


def test_what_cannot_be_written_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    folder = tmp_path / "taken.png"
    folder.mkdir()
    with pytest.raises(RegistryError, match="cannot write") as raised:
        draw_differences(folder)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [folder]

    older = tmp_path / "x.png"
    older.write_bytes(b"older")

    def full(path: Path, _: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RegistryError, match="No space left"):
        draw_differences(older)
    assert older.read_bytes() == b"older"
    assert sorted(tmp_path.iterdir()) == [folder, older]


def test_matplotlib_is_imported_when_something_is_drawn_and_pyplot_never(tmp_path):
    program = (
        "import sys\nimport registry.plots, registry.catalog.plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from pathlib import Path\nfrom tests.plots.factory import differences\n"
        f"registry.plots.plot_difference(differences('a'), Path({str(tmp_path / 'x.png')!r}))\n"
        "assert 'matplotlib' in sys.modules\nassert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_matplotlib_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RegistryError, match="Matplotlib"):
        check_picture(tmp_path / "x.png")
