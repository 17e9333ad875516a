"""A fingerprint that nothing is known of: distances and ranks as ever, verdicts only by a tolerance that is given."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.cli.app import main
from registry.equivalence import calibration
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.catalog.conftest import Filled

REMEDY = "give --tolerance X, or run: archreg calibrate --fingerprint mme"


@pytest.fixture(autouse=True)
def nothing_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a fingerprint of another package."""
    monkeypatch.setattr(calibration, "_shipped", dict)


def test_nearest_ranks_and_calls_nothing_equivalent(filled: Filled) -> None:
    found = filled.reg.search("wide", fingerprint="mme")
    assert (found.tolerance, found.rate, found.calibration, found.searched) == (None, None, None, 3)
    assert found.neighbours[0].model.name == "twin"
    distances = [neighbour.distance for neighbour in found.neighbours]
    assert distances == sorted(distances)
    verdicts = {neighbour.model.name: neighbour.verdict for neighbour in found.neighbours}
    assert verdicts["twin"].equivalent is None
    assert (verdicts["twin"].rate, verdicts["twin"].closer_than, verdicts["twin"].reasons) == (None, None, ())
    frame = found.to_frame()
    assert frame["equivalent"].isna().sum() == sum(each.equivalent is None for each in verdicts.values()) > 0
    assert frame["rate"].isna().all()
    assert verdicts["dense"].equivalent is False  # of another kind, however near
    assert found.neighbours == filled.reg.search("wide", fingerprint="mme", k=10, exact=True).neighbours


def test_a_tolerance_that_is_given_decides(filled: Filled) -> None:
    ask = filled.reg
    verdict = ask.equivalent("wide", "twin", fingerprint="mme", tolerance=0.1)
    assert (verdict.equivalent, verdict.tolerance, verdict.rate, verdict.expected_false) == (True, 0.1, None, None)
    assert [n.model.name for n in ask.nearest("wide", equivalent=True, fingerprint="mme", tolerance=0.1)] == ["twin"]
    partition = ask.classes(fingerprint="mme", tolerance=0.1)
    assert (partition.rate, partition.calibration, len(partition.classes)) == (None, None, 3)
    kept = ask.partitions.get(partition.classes[0].identity)
    assert (kept.rate, kept.calibration, kept.classes) == (None, None, partition.classes[:1])
    assert ask.compress("wide", max_ratio=1.0, fingerprint="mme", tolerance=0.1).rate is None
    assert ask.select(like="wide", aims=["min:params"], fingerprint="mme", tolerance=0.1).rate is None


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "nearest": lambda reg: reg.nearest("wide", equivalent=True, fingerprint="mme"),
    "compress": lambda reg: reg.compress("wide", fingerprint="mme"),
    "classes": lambda reg: reg.classes(fingerprint="mme"),
    "select": lambda reg: reg.select(like="wide", fingerprint="mme"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_cannot_do_without_one_says_so(question: str, filled: Filled) -> None:
    with pytest.raises(UsageError, match="mme v1 with l1 is not calibrated, so a tolerance is needed") as refused:
        QUESTIONS[question](filled.reg)
    assert refused.value.remedy == REMEDY


def test_select_alone_groups_nothing(filled: Filled) -> None:
    found = filled.reg.select(aims=["min:params", "max:top1"], fingerprint="mme")
    assert (found.tolerance, found.rate, found.calibration) == (None, None, None)
    assert all(not each.others for each in found.classes)


def test_a_calibration_of_its_own_is_made_and_taken_back(filled: Filled) -> None:
    assert filled.reg.calibration(fingerprint="mme") is None
    found = filled.reg.calibrate(fingerprint="mme", rate=0.4)
    assert found.previous is None
    holds = filled.reg.calibration(fingerprint="mme")
    assert holds is not None
    assert replace(holds, created="") == found.calibration
    assert filled.reg.search("wide", fingerprint="mme").rate is not None
    assert filled.reg.calibrate(fingerprint="mme", rate=0.4).previous == holds
    assert filled.reg.reset_calibration(fingerprint="mme") is None
    assert filled.reg.search("wide", fingerprint="mme").rate is None


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_the_command_line_says_it_in_words(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--fingerprint", "mme", "--db", filled.url)
    code, out, _ = said(capsys, "nearest", "wide", *settings)
    assert code == 0
    assert "Models nearest to wide, compared by mme v1, l1, no tolerance:\n" in out
    assert "not calibrated" in next(line for line in out.splitlines() if line.startswith("twin"))
    assert "Measure them: archreg calibrate --fingerprint mme --distance l1" in out
    code, out, _ = said(capsys, "compare", "wide", "twin", *settings)
    assert (code, out.splitlines()[0]) == (0, "wide and twin cannot be judged: not calibrated.")
    assert "; there is no tolerance (not calibrated)." in out
    code, out, _ = said(capsys, "compare", "wide", "twin", "--tolerance", "0.1", *settings)
    assert (code, out.splitlines()[0]) == (0, "wide and twin are equivalent.")
    assert "within the tolerance 0.1 (not calibrated)." in out
    code, out, _ = said(capsys, "select", "--aim", "min:params", *settings)
    assert code == 0
    assert "Compared by mme v1, l1, no tolerance, not calibrated." in out
    code, out, err = said(capsys, "compress", "wide", *settings)
    assert (code, out) == (2, "")
    assert err == f"archreg: mme v1 with l1 is not calibrated, so a tolerance is needed\n  {REMEDY}\n"
    code, out, err = said(capsys, "compress", "wide", "--distance", "l2", *settings)
    assert err.endswith(f"{REMEDY} --distance l2\n")


def test_json_has_nulls(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--fingerprint", "mme", "--json", "--db", filled.url)
    found = json.loads(said(capsys, "nearest", "wide", *settings)[1])
    assert (found["tolerance"], found["rate"], found["calibration"]) == (None, None, None)
    twin = found["neighbours"][0]
    assert (twin["name"], twin["equivalent"], twin["rate"], twin["closer_than"]) == ("twin", None, None, None)
    compared = json.loads(said(capsys, "compare", "wide", "twin", *settings)[1])
    assert (compared["equivalent"], compared["calibration"]) == (None, None)
    assert json.loads(said(capsys, "calibrate", "--rate", "0.4", *settings)[1])["previous"] is None
    assert json.loads(said(capsys, "calibrate", "--reset", *settings)[1]) == {"calibration": None}
