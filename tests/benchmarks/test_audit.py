"""Planted faults are found in a made network, and the page's rates are those of the rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import save_file

from benchmarks.audit.judged_findings import JUDGED, case_of
from benchmarks.audit.planted_faults import FAULTS, Outcome, planted
from benchmarks.audit.report import false_alarms, found_table, replace_between
from registry import Registry
from registry.audit import RULES
from registry.errors import UsageError
from registry.types import Audit, Finding
from tests.audit.test_rules import network

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"


def outcomes(folder: Path) -> Iterator[Outcome]:
    weights = network()
    weights["e.weight"] = network(7)["a.weight"]
    save_file(weights, folder / "sound.safetensors")
    with Registry(folder / "none.db") as registry:
        yield from planted(registry, folder / "sound.safetensors", "made", folder, 1)


def test_every_fault_is_found_where_it_was_planted(tmp_path: Path) -> None:
    found = list(outcomes(tmp_path))
    assert {each.fault for each in found} >= FAULTS.keys() - {
        "statistics as they start",
        "copied over by another layer",
    }
    assert [each for each in found if not each.severity] == []
    assert {each.severity for each in found if each.fault == "re-initialised"} == {"error"}


def test_findings_that_nobody_looked_into_are_false_alarms() -> None:
    def finding(rule: str, model: str, layer: str) -> Finding:
        return Finding(model, layer, rule, "warning", 0.1, 0.5, "", "", 0.0)

    true, unknown = finding("rows", "sb3-ppo-mlp/HopperBulletEnv-v0", "log_std"), finding("rows", "other", "fc")
    assert case_of(true) in JUDGED
    assert case_of(unknown) is None
    counts = false_alarms(Audit((true, unknown), 163, (), tuple(RULES)))
    assert counts["rows", "warning"] == (2, 1)
    assert counts["rank", "warning"] == (0, 0)


def test_the_table_counts_by_groups() -> None:
    made = [Outcome("re-initialised", family, "m", "l", severity) for family, severity in (("a", "error"), ("b", ""))]
    row = next(line for line in found_table(made, {"a"}, "here").splitlines() if line.startswith("| re-init"))
    assert row == "| re-initialised | `untrained` | 1 of 1 | 0 of 1 | |"


def test_the_page_has_the_rates_of_the_rules() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| \d+ \| \d+ \| ([\d.]+)% \|$", text, re.MULTILINE)
    told = {(rule, severity): (when, float(rate) / 100) for rule, severity, when, rate in rows}
    assert told == {
        (name, severity): (when, pytest.approx(rule.false_alarms[severity], abs=5e-4))
        for name, rule in RULES.items()
        for severity, when in rule.when.items()
    }
    assert all(rate <= 0.01 for (_, severity), (_, rate) in told.items() if severity == "error")


def test_a_page_needs_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    replace_between(page, "x", "new")
    assert page.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(UsageError, match="needs one <!-- y -->"):
        replace_between(page, "y", "new")
