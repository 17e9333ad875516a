"""Counts in words: one of a thing is not several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.cli import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "model", "0 models"),
        (1, "model", "1 model"),
        (1_200, "model", "1,200 models"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "smaller model", "1 smaller model"),
        (0, "family", "0 families"),
        (1, "family", "1 family"),
        (2, "key", "2 keys"),
    ],
)
def test_counted(count: int, noun: str, words: str) -> None:
    assert tables.counted(count, noun) == words


def test_answers_about_one(archreg: Callable[..., Any], fake: Any, samples: Any, tmp_path: Path) -> None:
    answers = samples.answers
    fake.answers["distances"] = (["a"], np.zeros((1, 1)))
    fake.answers["index.drop"] = fake.answers["index.build"] = 1
    fake.answers["compress"] = replace(answers["compress"]("a"), searched=1)
    fake.answers["select"] = replace(answers["select"], models=1, passed=1, unknown=(("max top1@cifar10/test", 1),))
    fake.answers["classes"] = replace(answers["classes"], models=2)
    fake.answers["search"] = replace(answers["search"](), unknown=1)
    for words, said in (
        (("distances", "-o", str(tmp_path / "d.npz")), "Wrote the distances between 1 model to"),
        (("index", "drop"), "Dropped the indexes of 1 fingerprint.\n"),
        (("index", "build"), "The index holds 1 layered fingerprint for the distance l1."),
        (("compress", "a"), "\nThe only smaller model is equivalent:\n"),
        (("select",), "1 of 1 model passes the constraints."),
        (("select",), "1 model was left out: top1@cifar10/test is unknown."),
        (("classes",), "expected among the 1 pair if it is unrelated ("),
        (("nearest", "a"), "1 model was left out: a filtered value is unknown."),
        (("show", "a"), "1 tensor left out"),
    ):
        done = archreg(*words)
        assert done.code == 0, done.err
        assert said in done.out


def test_one_or_several_smaller_models(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    found = samples.answers["compress"]("a")
    for changes, said in (
        ({"searched": 1, "equivalent": False}, "The only smaller model is not equivalent:"),
        ({"searched": 139}, "Of the 139 smaller models, this one is equivalent:"),
        (
            {"searched": 139, "candidates": found.candidates * 2},
            "Of the 139 smaller models, these are equivalent, the smallest first:",
        ),
        ({"searched": 139, "equivalent": False}, "None of the 139 smaller models is equivalent. The nearest are:"),
    ):
        fake.answers["compress"] = replace(found, **changes)
        assert f"\n{said}" in archreg("compress", "a").out
