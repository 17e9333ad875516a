"""``check``, and ``compare`` with requirements: lines, documents and exit codes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.types import Metric, MetricChange, Requirement

if TYPE_CHECKING:
    from collections.abc import Callable

    Archreg = Callable[..., Any]

HOLDS = Requirement("related", True, "the contents are identical")
NOT = Requirement("max-drop top1=0.5", False, "top1@cifar10 93 to 92, 1 worse, beyond 0.5")
WORSE = MetricChange("top1", "cifar10", "test", 92.0, 80.0, higher_is_better=True)


def answer(fake: Any, samples: Any, *requirements: Requirement) -> None:
    found = replace(samples.answers["compare"]("old", "new"), asked_b="runs/new.pt", requirements=requirements)
    fake.answers |= {"gate": found, "compare": found}


def test_a_line_for_each_requirement(archreg: Archreg, fake: Any, samples: Any) -> None:
    answer(fake, samples, HOLDS, NOT)
    done = archreg(
        "check", "runs/new.pt", "--against", "old", "--require", "related", "--max-drop", "top1=0.5",
        "--max-drop", "top1=2", "--same-shape", "--metric", "top1@cifar10=92",
    )  # fmt: skip
    assert done.code == 4
    assert done.out.splitlines() == [f"related: met: {HOLDS.reason}", f"max-drop top1=0.5: not met: {NOT.reason}"]
    assert done.err == "archreg: 1 of 2 requirements not met by runs/new.pt against old: max-drop top1=0.5\n"
    (file, against), given = fake.called("gate")
    assert (file, against) == ("runs/new.pt", "old")
    assert given["require"] == ["related", "same-shape"]
    assert given["max_drop"] == {"top1": 0.5}
    assert given["metrics"] == [Metric("top1", 92.0, "cifar10")]


def test_all_that_is_required_holds(archreg: Archreg, fake: Any, samples: Any) -> None:
    answer(fake, samples, HOLDS)
    done = archreg("check", "runs/new.pt", "--against", "old", "--require", "related")
    assert (done.code, done.out, done.err) == (0, f"related: met: {HOLDS.reason}\n", "")


def test_the_document_of_a_check(archreg: Archreg, fake: Any, samples: Any) -> None:
    answer(fake, samples, HOLDS, NOT)
    done = archreg("check", "runs/new.pt", "--against", "old", "--require", "related", "--json")
    assert done.code == 4
    assert done.document["met"] is False
    assert done.document["requirements"] == [
        {"require": "related", "met": True, "reason": HOLDS.reason},
        {"require": NOT.require, "met": False, "reason": NOT.reason},
    ]
    assert done.document["file"]["asked"] == "runs/new.pt"
    assert done.document["against"]["asked"] == "old"


@pytest.mark.parametrize("as_json", [False, True])
def test_compare_shows_the_requirements_last(as_json: bool, archreg: Archreg, fake: Any, samples: Any) -> None:
    answer(fake, samples, HOLDS, NOT)
    done = archreg("compare", "old", "runs/new.pt", "--require", "related", *(["--json"] if as_json else []))
    assert done.code == 4
    assert done.err.count("\n") == 1
    if as_json:
        assert [each["met"] for each in done.document["requirements"]] == [True, False]
    else:
        assert done.out.splitlines()[-1] == f"max-drop top1=0.5: not met: {NOT.reason}"
    answer(fake, samples)
    assert archreg("compare", "old", "runs/new.pt").code == 0


def test_metrics_that_contradict_the_verdict(archreg: Archreg, fake: Any, samples: Any) -> None:
    found = replace(samples.answers["compare"]("old", "new"), changes=(WORSE,))
    fake.answers["compare"] = found
    assert (
        "But metrics contradict this: top1 -12, worse (cifar10 test), from old to new."
        in archreg("compare", "old", "new").out
    )
    document = archreg("compare", "old", "new", "--json").document
    assert document["contradicting"] == ["top1@cifar10/test"]
    assert document["metric_changes"][0]["change"] == -12.0
    fake.answers["compare"] = replace(found, verdict=samples.verdict(0.5))
    assert "contradict" not in archreg("compare", "old", "new").out


@pytest.mark.parametrize(
    "words",
    [
        ("--require", "equal"),
        ("--max-drop", "top1"),
        ("--max-drop", "top1=-1"),
        ("--max-drop", "=1"),
        ("--max-drop", "top1=nan"),
        ("--metric", "top1"),
        ("--require",),
    ],
)
def test_wrong_options_are_usage_errors(words: tuple[str, ...], archreg: Archreg, fake: Any) -> None:
    assert archreg("check", "new.pt", "--against", "old", *words).code == 2
    assert archreg("check", "new.pt", "--require", "related").code == 2
