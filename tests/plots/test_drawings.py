"""What is drawn: the numbers behind the lines, limits, legends, and nothing over anything else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from registry.errors import UsageError
from registry.plots.difference_figure import caption, draw_difference
from registry.plots.labels import legible
from registry.plots.spectrum_figure import SATURATED, draw_spectrum
from registry.plots.spectrum_figure import caption as spectrum_caption
from registry.plots.style import COLOURS, styled
from tests.plots.factory import HOSTILE, differences, spectrum

LONG = [f"some-organisation/some-long-architecture-name-{number}-of-eight" for number in range(8)]


@pytest.fixture(autouse=True)
def settings():
    with styled():
        yield


def panels(figure):
    return figure.subfigs[0].axes


def legend_texts(figure):
    [legend] = figure.subfigs[0].legends
    return [text.get_text() for text in legend.get_texts()]


def test_lines_and_bands_hold_the_numbers_given():
    picture = differences("a", "b", "c")
    for panel in panels(draw_difference(picture)):
        curves = [line for line in panel.lines if len(line.get_xdata()) == len(picture.locations)]
        assert len(curves) == 6
        for curve, colour, (thin, thick) in zip(
            picture.curves, COLOURS, zip(curves[::2], curves[1::2], strict=True), strict=False
        ):
            np.testing.assert_array_equal(thick.get_xdata(), picture.locations)
            np.testing.assert_array_equal(thick.get_ydata(), curve.values)
            np.testing.assert_array_equal(thin.get_ydata(), curve.gaussian)
            assert to_hex(thick.get_color()) == to_hex(thin.get_color()) == colour.lower()
            assert thin.get_linewidth() < thick.get_linewidth()
        for curve, band in zip(picture.curves, panel.collections, strict=True):
            outline = band.get_paths()[0].vertices
            assert outline[:, 1].min() == curve.lower.min()
            assert outline[:, 1].max() == curve.upper.max()
        assert len({str(line.get_linestyle()) + line.get_color() for line in curves[1::2]}) == 3


def test_panels_are_the_whole_on_linear_and_the_tail_on_logarithmic_axes():
    linear, logarithmic = panels(draw_difference(differences("a", "b")))
    assert (linear.get_xscale(), linear.get_yscale()) == ("linear", "linear")
    assert (logarithmic.get_xscale(), logarithmic.get_yscale()) == ("log", "log")
    low, high = linear.get_xlim()
    # exp(-x / 1.25), the longer of the two, falls to .01 at 5.8.
    assert low == 0
    assert 5.3 < high < 6.5
    assert logarithmic.get_xlim() == pytest.approx((2, 60))
    assert 0 < logarithmic.get_ylim()[0] <= 1e-4
    for panel in (linear, logarithmic):
        assert panel.get_xlabel() == "x = eigenvalue over layer mean"
        assert "cCSD(x)" in panel.get_ylabel()


@pytest.mark.parametrize(("axes", "scales"), [("both", ["linear", "log"]), ("linear", ["linear"]), ("log", ["log"])])
def test_axes(axes, scales):
    figure = draw_difference(differences("a"), axes=axes)
    assert [panel.get_xscale() for panel in panels(figure)] == scales
    assert figure.get_figwidth() == 3.5 * len(scales)
    assert ("zero: the conjugate ensemble" in legend_texts(figure)) == ("linear" in scales)


def test_a_network_within_the_reference_has_an_empty_tail():
    picture = differences("a")
    [curve] = picture.curves
    curve.values[:] = 0
    _, logarithmic = panels(draw_difference(picture))
    assert 0 < logarithmic.get_ylim()[0] < logarithmic.get_ylim()[1]


def test_legend_and_caption_name_what_is_shown():
    figure = draw_difference(differences("first", "second"))
    assert legend_texts(figure) == [
        "first (1 layer)",
        "second (2 layers)",
        "zero: the conjugate ensemble",
        "thin: Gaussian weights, same shapes",
    ]
    [below] = figure.subfigs[1].texts
    assert below.get_text().replace("\n", " ") == caption(differences("first", "second"))
    said = caption(differences("a", reference="coe", sample=3))
    assert "COE" in said
    assert "seed 3" in said
    assert "95 % of 1000 resamplings of the layers (seed 0)" in said
    wishart = draw_difference(differences("a", reference="wishart", gaussian=False))
    assert legend_texts(wishart) == ["a (1 layer)", "zero: the conjugate ensemble"]


def test_numbers_of_networks_and_axes_are_bounded():
    draw_difference(differences(*LONG))
    with pytest.raises(UsageError, match="1 to 8 networks, not 9"):
        draw_difference(differences(*LONG, "ninth"))
    with pytest.raises(UsageError, match="not 0"):
        draw_difference(differences())
    with pytest.raises(UsageError, match="both, linear, log"):
        draw_difference(differences("a"), axes="polar")


@pytest.fixture
def overlaps(monkeypatch):
    """Finds texts outside the figure, and texts over other texts, among those that are drawn."""
    written = []

    def draw(text, renderer, original=Text.draw):
        if text.get_visible() and text.get_text().strip():
            written.append(text)
        return original(text, renderer)

    def find(figure) -> list[str]:
        written.clear()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return faults(figure, [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in written])

    monkeypatch.setattr(Text, "draw", draw)
    return find


def faults(figure, boxes) -> list[str]:
    found = [
        f"{text!r} outside"
        for text, box in boxes
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > figure.bbox.x1 + 0.5 or box.y1 > figure.bbox.y1 + 0.5
    ]
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        along = min(first.y1, second.y1) - max(first.y0, second.y0)
        if across > 1 and along > 1:
            found.append(f"{a!r} over {b!r}")
    return found


@pytest.mark.parametrize(("axes", "names"), [("both", LONG), ("log", LONG), ("linear", ["W" * 300, "b"])])
def test_no_text_lies_over_another_or_outside(axes, names, overlaps):
    assert overlaps(draw_difference(differences(*names), axes=axes, title="A title")) == []


@pytest.mark.parametrize(("name", "layers"), [("W" * 300, 1), (r"$\frac{1", 300)])
def test_no_text_of_a_spectrum_lies_over_another_or_outside(name, layers, overlaps):
    assert overlaps(draw_spectrum(spectrum(name, layers))) == []


@pytest.mark.parametrize("layers", [1, 7])
def test_marks_do_not_change_with_the_height_that_the_layout_leaves(layers, overlaps):
    # Labels of halves, as 12.5, are wider than those of wholes: laid out for the one, the other leaves the page.
    network = np.zeros(80)
    network[[10, 60]] = 10.0
    assert overlaps(draw_spectrum(spectrum(layers=layers, network=network))) == []


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 7))
def test_hostile_names_are_drawn_as_they_are(start, overlaps):
    names = HOSTILE[start : start + 7]
    figure = draw_difference(differences(*names), title=names[1])
    assert overlaps(figure) == []
    for number, (name, shown) in enumerate(zip(names, legend_texts(figure), strict=False)):
        assert shown == f"{legible(name)} ({number + 1} layer{'s' * (number > 0)})" or "…" in shown


def test_overlaps_are_found(overlaps):
    figure = draw_difference(differences("a"))
    figure.subfigs[1].text(0.05, 0.8, "over the caption")
    figure.subfigs[0].text(0.95, 0.5, "leaves the page")
    found = " ".join(overlaps(figure))
    assert "'leaves the page' outside" in found
    assert "'over the caption'" in found


def test_the_map_the_densities_and_the_ratios_hold_the_numbers_given():
    picture = spectrum(layers=7)
    mixed, _, depth, repulsion = panels(draw_spectrum(picture))[:4]
    at = np.log10(picture.edges)
    [image] = depth.images
    np.testing.assert_array_equal(image.get_array(), picture.layers)
    assert image.get_extent() == pytest.approx([at[0], at[-1], 7.5, 0.5])
    assert image.get_clim() == (0, SATURATED)
    network, outline, circular, wishart = mixed.patches
    for patch, values in zip(
        (network, outline, circular, wishart),
        (picture.network, picture.network, picture.circular, picture.wishart),
        strict=True,
    ):
        np.testing.assert_array_equal(patch.get_data().values, values)
        np.testing.assert_array_equal(patch.get_data().edges, at)
    points = repulsion.lines[0]
    np.testing.assert_array_equal(points.get_xdata(), picture.ratios)
    np.testing.assert_array_equal(points.get_ydata(), np.arange(1, 8))
    theory = [line.get_xdata()[0] for line in repulsion.lines[1:]]
    assert theory == [value for _, value in picture.theory]
    assert [text.get_text() for text in repulsion.texts] == [label for label, _ in picture.theory]
    # The input is on top, and both panels share the axis.
    assert depth.get_ylim() == repulsion.get_ylim() == (7.5, 0.5)


def test_marks_of_gaussian_edges_stand_at_their_layers():
    *_, depth, _, _ = panels(draw_spectrum(spectrum(layers=3)))
    lower, upper = depth.collections
    assert lower.get_segments() == []  # at 0, which a logarithmic axis does not have
    for row, segment in enumerate(upper.get_segments()):
        np.testing.assert_allclose(segment, [[np.log10(3), row + 0.5], [np.log10(3), row + 1.5]])


def test_a_layer_without_ratios_leaves_the_others_in_sight():
    nothing = spectrum(layers=2, ratios=np.full(2, np.nan), errors=np.full(2, np.nan))
    far = spectrum(layers=2, ratios=np.array([0.02, 0.98]))
    for picture in (nothing, far):
        repulsion = panels(draw_spectrum(picture))[3]
        low, high = repulsion.get_xlim()
        assert 0 <= low < 0.3863 < 0.6744 < high <= 1
    assert low <= 0.02
    assert high >= 0.98


def test_captions_of_spectra_say_what_is_known():
    said = spectrum_caption(spectrum())
    assert "0.2 % of the density lies below the axis" in said
    assert "5.5 within 0.01, 3.5 within 0.05; tail class long" in said
    assert "12.5 times its 99 % band; class trained" in said
    assert said.startswith("7 layers, ")
    assert spectrum_caption(spectrum(layers=1)).startswith("1 layer, ")
    bare = spectrum_caption(spectrum(below=0.0, conjugacy=None))
    assert "below" not in bare
    assert "class" not in bare
    assert "less than 0.1 %" in spectrum_caption(spectrum(below=1e-5))
