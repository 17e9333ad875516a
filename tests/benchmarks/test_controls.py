"""Networks whose classes are known: the initialisations are what they say, and the table misses what it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.controls import DRAWS, INITIALISATIONS, PAGE, Control, controls, initialised, interval, markdown

SHAPES = [[(16, 27), (32, 144), (64, 288), (10, 64)], [(40, 90), (90, 40), (30, 30), (8, 90)]]


def test_initialisations_are_of_unit_scale_and_their_kind() -> None:
    rng = np.random.default_rng(0)
    found = {name: make(rng, 300, 500) for name, make in INITIALISATIONS.items()}
    assert all(W.shape == (300, 500) for W in found.values())
    kurtosis = {name: float(np.mean(W**4) / np.mean(W**2) ** 2) for name, W in found.items()}
    # Of a normal law 3, of a uniform one 9/5; truncated at two deviations, 1.4162 / 0.7737^2.
    assert list(kurtosis.values())[:3] == pytest.approx([3, 1.8, 2.366], abs=0.05)
    for shape in ((300, 500), (500, 300)):
        W = INITIALISATIONS["orthogonal"](rng, *shape)
        small = W @ W.T if shape[0] < shape[1] else W.T @ W
        np.testing.assert_allclose(small, np.eye(300), atol=1e-12)


def test_networks_never_trained_are_found_so() -> None:
    found = list(controls(SHAPES, draws=30))
    assert [control.networks for control in found] == [60] * len(INITIALISATIONS)
    for control in found:
        # Three of sixty at 1 % each come once in fifty; the seed is fixed.
        assert control.trained <= 3
        assert control.long == 0
        assert control.published is False


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, True),
        ({"trained": 4}, False),
        ({"long": 1}, False),
        ({"published": True}, False),
        ({"published": True, "trained": 90, "long": 80}, True),
        ({"published": True, "trained": 89, "long": 80}, False),
        ({"published": True, "trained": 90, "long": 79}, False),
    ],
)
def test_what_meets_its_aim(changes: dict[str, Any], met: bool) -> None:
    control = replace(Control("some", 100, 3, 0, published=False), **changes)
    assert control.met is met
    assert control.row().endswith("| met |" if met else "| missed |")


def test_intervals() -> None:
    # Wilson's, to three digits, of Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    for (count, total), expected in {
        (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611),
    }.items():  # fmt: skip
        assert interval(count, total) == pytest.approx(expected, abs=1e-4)


def test_the_page_has_the_table() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("<!-- controls -->")[2].partition("<!-- /controls -->")[0]
    assert markdown([]) in table
    rows = table.strip().splitlines()[2:]
    assert len(rows) == 2 + len(INITIALISATIONS)
    assert rows[0].startswith("| published models | 163 |")
    assert f"| {163 * DRAWS} |" in rows[1]
    assert "met" in rows[0]


def test_classes_are_those_of_the_spectra() -> None:
    """One control counted by hand: a layer of rank one is neither Gaussian nor short of tail."""
    rng = np.random.default_rng(1)
    [gaussian, *_] = controls([SHAPES[0]], draws=1)

    def spiked(rng: np.random.Generator, p: int, q: int) -> np.ndarray:
        return rng.standard_normal((p, q)) + 3 * np.outer(rng.standard_normal(p), rng.standard_normal(q))

    found = initialised(SHAPES[0], spiked, rng)
    assert (gaussian.trained, gaussian.long) == (0, 0)
    assert (found.training_class, found.tail_class) == ("trained", "long")
