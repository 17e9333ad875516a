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
    ],
)
def test_counted(count: int, noun: str, words: str) -> None:
    assert tables.counted(count, noun) == words


def test_answers_about_one(archreg: Callable[..., Any], fake: Any, samples: Any, tmp_path: Path) -> None:
    answers = samples.answers
    fake.answers["distances"] = (["a"], np.zeros((1, 1)))
    fake.answers["index_drop"] = fake.answers["index_build"] = 1
    fake.answers["compress"] = replace(answers["compress"]("a"), searched=1)
    fake.answers["select"] = replace(answers["select"], models=1, passed=1)
    fake.answers["search"] = replace(answers["search"](), unknown=1)
    for words, said in (
        (("distances", "-o", str(tmp_path / "d.npz")), "the distances between 1 model to"),
        (("index", "drop"), "dropped the indexes of 1 fingerprint\n"),
        (("index", "build"), "the index holds 1 layered fingerprint, by l1"),
        (("compress", "a"), "of the 1 smaller model these are equivalent"),
        (("select",), "1 of 1 model passes the constraints"),
        (("nearest", "a"), "1 model left out: a value that is bounded"),
        (("show", "a"), "1 tensor left out"),
    ):
        done = archreg(*words)
        assert done.code == 0, done.err
        assert said in done.out
