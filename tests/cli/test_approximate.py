"""Approximate spectra are never taken for exact ones: answers say so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.types import Choice, Neighbour, Search, Selected

if TYPE_CHECKING:
    from collections.abc import Callable


def test_show_says_what_is_approximate(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    assert "Lanczos" not in archreg("show", "x").out
    shown = samples.answers["show"]("x")
    layers = tuple(replace(layer, method="lanczos") for layer in shown.layers)
    fake.answers["show"] = replace(shown, summary=replace(shown.summary, approximate=1), layers=layers)
    assert "1 layer, by stochastic Lanczos quadrature" in " ".join(archreg("show", "x").out.split())
    assert "lanczos" in archreg("show", "x", "--layers").out
    assert archreg("show", "x", "--json").document["layers"][0]["method"] == "lanczos"


@pytest.mark.parametrize(
    "words", ["nearest x", "compare x y", "compress x", "select --like x", "classes", "classes --class x"]
)
def test_verdicts_say_what_is_approximate(words: str, archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    assert "Lanczos" not in archreg(*words.split()).out
    exact, near = samples.summary("exact"), samples.summary("near", approximate=3)
    first = samples.summary("first", approximate=1)
    found = Search(first, samples.spec, "l1", 0.035, 0.01, 9, (), samples.calibration)
    pair = samples.answers["compare"]("a", "b")
    smaller = replace(samples.answers["compress"]("x"), model=first)
    chosen = Selected(Choice(near, (1.0, 2.0), 0.1), (Choice(exact, (1.0, 2.0), 0.1),))
    classes = samples.answers["classes"]
    sorted_ = replace(classes.classes[0], members=(first, exact, near))
    fake.answers |= {
        "search": replace(found, neighbours=tuple(Neighbour(x, samples.verdict()) for x in (exact, near))),
        "compare": replace(pair, a=first, b=near),
        "compress": replace(smaller, candidates=(replace(samples.candidate, model=near),)),
        "classes": replace(classes, classes=(sorted_,)),
        "partitions.get": lambda _: replace(classes, classes=(sorted_,)),
        "select": replace(samples.answers["select"], like=first, classes=(chosen,)),
    }
    assert (
        "Spectra by stochastic Lanczos quadrature: first (1 layer), near (3 layers). "
        "Their distances, training classes and tail classes are approximate."
    ) in archreg(*words.split()).out.splitlines()
    text = json.dumps(archreg(*words.split(), "--json").document)
    assert text.count('"approximate": 3') == 1
    assert text.count('"approximate": 1') == 1


def test_of_many_that_are_approximate_some_are_named(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    rough = [Neighbour(samples.summary(f"m{i}", approximate=2), samples.verdict()) for i in range(5)]
    fake.answers["search"] = replace(samples.answers["search"]("x"), neighbours=tuple(rough))
    assert "quadrature: m0 (2 layers), m1 (2 layers), m2 (2 layers), 2 more." in archreg("nearest", "x").out
