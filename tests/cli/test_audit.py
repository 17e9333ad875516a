"""Command ``audit``: words, JSON and exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from registry.types import Audit, Finding, NotAudited

if TYPE_CHECKING:
    from collections.abc import Callable

LACK = NotAudited("rows", "stored before figures of the weights were", "read them again", ("a", "b", "c", "d"))
FINDINGS = (
    Finding("a", "fc.weight", "untrained", "error", 1.2, 3.0, "looks untrained", "train it", 0.006),
    Finding("a", "", "family", "warning", 2.5, 2.0, "called vgg", "correct the label", 0.0),
    Finding("b", "conv.weight", "untrained", "note", 0.5, 3.0, "looks untrained", "train it", 0.0),
)
FOUND = Audit(FINDINGS, 4, (LACK,), ("untrained", "rows", "family"))


def test_a_table_and_what_is_missing(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["audit"] = FOUND
    done = archreg("audit", "--all", "--family", "resnet")
    assert done.code == 4
    assert fake.called("audit")[1]["family"] == "resnet"
    first, row, *_ = done.out.splitlines()
    assert first.split() == [
        "model",
        "severity",
        "rule",
        "layer",
        "finding",
        "value",
        "threshold",
        "false",
        "alarms",
        "remedy",
    ]
    assert row.split()[:4] == ["a", "error", "untrained", "fc.weight"]
    assert "0.6 %" in row
    assert "4 models audited by 3 rules: 1 error, 1 warning, 1 note.\n" in done.out
    assert (
        "rows: 4 models not judged (a, b, c, ...): stored before figures of the weights were; read them again"
        in done.err
    )


def test_json(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["audit"] = FOUND
    done = archreg("audit", "a", "b", "--json", "--severity", "warning", "--rule", "untrained", "--rule", "family")
    assert fake.called("audit") == (
        (["a", "b"],),
        {"rules": ["untrained", "family"], "resume": None, "progress": fake.called("audit")[1]["progress"]},
    )
    document = done.document
    assert set(document) == {"findings", "audited", "not_audited"}
    assert [each["severity"] for each in document["findings"]] == ["error", "warning"]
    assert document["findings"][0] == {
        "model": "a", "layer": "fc.weight", "rule": "untrained", "severity": "error", "value": 1.2, "threshold": 3.0,
        "message": "looks untrained", "remedy": "train it", "false_alarms": 0.006,
    }  # fmt: skip
    assert document["audited"] == 4
    assert document["not_audited"][0]["rule"] == "rows"


@pytest.mark.parametrize(
    ("worst", "fail_on", "code"),
    [
        (0, "error", 4),
        (1, "error", 0),
        (1, "warning", 4),
        (2, "warning", 0),
        (2, "note", 4),
        (0, "never", 0),
        (3, "note", 0),
    ],
)
def test_exit_codes(archreg: Callable[..., Any], fake: Any, worst: int, fail_on: str, code: int) -> None:
    fake.answers["audit"] = Audit(FINDINGS[worst:], 4, (), ("untrained",))
    assert archreg("audit", "--all", "--fail-on", fail_on).code == code


def test_nothing_found(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["audit"] = Audit((), 1, (), ("untrained",))
    assert archreg("audit", "a").out == "1 model audited by 1 rule: nothing found.\n"


def test_one_that_could_not_be_read(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["audit"] = Audit((), 1, (NotAudited("", "it is no model", "take another", ("b",)),), ("untrained",))
    done = archreg("audit", "a", "b")
    assert done.code == 3
    assert "1 model not read (b): it is no model; take another" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "audit takes models or --all"),
        (("a", "--all"), "audit takes models or --all"),
        (("a", "--family", "x"), "filters need --all"),
        (("a", "--resume", "f"), "--resume needs --all"),
        (("a", "--rule", "none"), "none of nonfinite"),
        (("a", "--fail-on", "always"), "none of error, warning, note, never"),
    ],
)
def test_wrong_words(archreg: Callable[..., Any], fake: Any, words: tuple[str, ...], said: str) -> None:
    done = archreg("audit", *words)
    assert done.code == 2
    assert said in done.err
