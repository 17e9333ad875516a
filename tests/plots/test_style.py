"""Colours that the colour-blind tell apart, settings that stay the user's, names that stay text."""

from __future__ import annotations

import itertools
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from registry.errors import RegistryError
from registry.plots.figure_data import LARGEST
from registry.plots.labels import legible, shortened, width_of, wrapped
from registry.plots.style import COLOURS, DASHES, require_matplotlib, styled
from tests.plots.factory import HOSTILE

# Complete deuteranopia and protanopia, linear RGB (Machado, Oliveira & Fernandes 2009, table 1, severity 1.0).
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def smallest_difference(colours, seen=None) -> float:
    """Smallest CIE 1976 colour difference of a palette as somebody sees it; 2.3 is just noticeable."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if seen is not None:
        linear = np.clip(linear @ np.transpose(seen), 0, 1)
    t = (linear @ XYZ.T) / XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack((116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])), axis=1)
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("seen", [None, DEUTERANOPIA, PROTANOPIA])
def test_colours_are_told_apart(seen):
    assert len(COLOURS) == LARGEST
    assert smallest_difference(COLOURS, seen) > 15
    assert smallest_difference([*COLOURS, "#FFFFFF"], seen) > 15


def test_the_measure_knows_what_deuteranopes_confuse():
    confused = ["#DD0000", "#7F7200"]
    assert smallest_difference(confused) > 50
    assert smallest_difference(confused, DEUTERANOPIA) < 25
    # Matplotlib's own cycle would not pass.
    assert smallest_difference([f"C{number}" for number in range(LARGEST)], DEUTERANOPIA) < 10


def test_dashes_are_told_apart():
    def drawn(dashes) -> str:
        """One printed inch of a pattern, a character a quarter of the line's width."""
        if dashes == "solid":
            return "#" * 200
        strokes = [int(4 * length) for length in dashes[1]]
        period = "".join(("#" if i % 2 == 0 else " ") * length for i, length in enumerate(strokes))
        return (period * 200)[:200]

    assert len({drawn(dashes) for dashes in DASHES}) == len(DASHES) == LARGEST


def test_settings_are_the_users_again_whatever_happens():
    before = dict(matplotlib.rcParams)
    with styled():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ZeroDivisionError), styled():
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before


def test_missing_matplotlib_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RegistryError, match="Matplotlib") as raised:
        require_matplotlib()
    assert raised.value.remedy == "pip install 'architecture-registry[plot]'"
    assert "\n" not in raised.value.message


def test_legible_spells_out_what_is_no_letter():
    assert legible("résumé β_1-x/y $") == "résumé β_1-x/y $"
    assert legible("a\nb\x1b\u202e") == r"a\nb\x1b\u202e"
    assert legible("中\ud800") == r"\u4e2d\ud800"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [0.5, 3.0])
def test_names_fit(name, width):
    found = shortened(name, width)
    assert found.isprintable()
    assert width_of(found) <= width
    assert found == legible(name) or "…" in found


def test_both_ends_of_a_long_name_are_kept():
    found = shortened("resnet-cifar/" + "very-" * 50 + "akamaster-resnet20", 2.0)
    assert found.startswith("resnet-cifar/")
    assert found.endswith("resnet20")
    # A character more would not have fitted.
    assert width_of(found + "mm") > 2.0


def test_paragraphs_are_wrapped_at_blanks():
    text = "one two three four five six seven eight nine ten"
    lines = wrapped(text, 1.0).split("\n")
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(width_of(line) <= 1.0 for line in lines)
    assert wrapped("unbreakable-long-word-of-many-letters", 0.3) == "unbreakable-long-word-of-many-letters"
