"""Results as Markdown tables, written into docs/audit.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.audit.judged_findings import case_of
from benchmarks.audit.planted_faults import FAULTS
from registry.audit import RULES
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.audit.planted_faults import Outcome
    from registry.types import Audit

__all__ = ["FALSE", "FOUND", "false_alarm_table", "false_alarms", "found_table", "replace_between"]

FALSE, FOUND = "false alarms", "planted faults"


def false_alarms(found: Audit) -> dict[tuple[str, str], tuple[int, int]]:
    """By rule and severity: models with a finding, and models with one that was judged to be none."""
    counts = {}
    for name, rule in RULES.items():
        for severity in rule.when:
            mine = [each for each in found.findings if (each.rule, each.severity) == (name, severity)]
            false = {each.model for each in mine if (case := case_of(each)) is None or not case.true}
            counts[name, severity] = len({each.model for each in mine}), len(false)
    return counts


def false_alarm_table(found: Audit) -> str:
    """One row for each rule and severity."""
    lines = [
        "| rule | severity | when | models with findings | of these in error | false alarms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, severity), (models, false) in false_alarms(found).items():
        when = RULES[name].when[severity]
        lines.append(f"| `{name}` | {severity} | {when} | {models} | {false} | {false / found.audited:.1%} |")
    return "\n".join(lines)


def found_table(outcomes: Sequence[Outcome], tuned: set[str], small: str) -> str:
    """One row for each fault: planted and found, in the families that were in view, in the others, and trained here."""
    lines = [
        "| planted fault | rule | families in view | other families | trained here |",
        "| --- | --- | --- | --- | --- |",
    ]
    rules = {name: rule for name, (rule, _) in FAULTS.items()} | {"family label of another model": "family"}
    for fault, rule in rules.items():
        mine = [each for each in outcomes if each.fault == fault]
        groups = (
            [each for each in mine if each.family in tuned],
            [each for each in mine if each.family not in tuned and each.family != small],
            [each for each in mine if each.family == small],
        )
        cells = (f"{sum(bool(each.severity) for each in group)} of {len(group)}" if group else "" for group in groups)
        lines.append(f"| {fault} | `{rule}` | {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def replace_between(page: Path, mark: str, text: str) -> None:
    """Put the text between the markers ``<!-- mark -->`` and ``<!-- /mark -->`` of a page.

    Raises ``UsageError`` unless both markers are there once, in order.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last) or begin in rest or end in after:
        raise UsageError(f"{page} needs one {begin} and one {end} behind it", "put both where the table belongs")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
