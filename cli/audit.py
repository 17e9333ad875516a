"""Command ``audit``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables
from registry.cli.option_values import one_of
from registry.cli.options import AsJson, Database, filters, open_registry, with_options
from registry.errors import UnmetError, UsageError
from registry.extensions import AUDIT_RULES
from registry.types import SEVERITIES

if TYPE_CHECKING:
    from registry.types import Audit, Finding, NotAudited, Severity

__all__ = ["audit"]

SOME_FAILED = 3
NEVER = "never"
NAMED = 3
"""Names of models that a line on missing evidence gives."""


@with_options(filters=filters)
def audit(
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...", help="Stored name, file, folder, or reference: timm:resnet18.", show_default=False
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All stored models that match the filters.")] = False,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="NAME", parser=one_of(AUDIT_RULES), help="Only this rule. Repeatable."),
    ] = None,
    severity: Annotated[
        str,
        typer.Option(
            parser=one_of(dict.fromkeys(SEVERITIES)), metavar="|".join(SEVERITIES), help="Show these and worse ones."
        ),
    ] = "note",
    fail_on: Annotated[
        str,
        typer.Option(
            parser=one_of(dict.fromkeys((*SEVERITIES, NEVER))),
            metavar="|".join((*SEVERITIES, NEVER)),
            help="Exit with 4 if something of this severity or worse is found.",
        ),
    ] = "error",
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep what --all has found here until the end, and continue from it."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Look for faults in stored models, files and references: untrained, duplicate and dead layers, wrong labels.

    Files and references are measured and not stored. Each finding has the number behind it. A rule that lacks evidence
    on a model says so. The exit code is 4 if an error is found (see --fail-on), else 3 if a model could not be read.
    docs/audit.md explains the rules.
    """
    asked = references or []
    if bool(asked) == every:
        raise UsageError("audit takes models or --all", "write: archreg audit MODEL..., or archreg audit --all")
    if asked and filters:
        raise UsageError("filters need --all", "leave them out, or write: archreg audit --all")
    if asked and resume is not None:
        raise UsageError("--resume needs --all", "leave it out, or write: archreg audit --all")
    with open_registry(db) as registry:
        found = registry.audit(
            asked, rules=rule or (), resume=resume, progress=None if quiet else _Counter(), **filters
        )
    shown = found.at_least(_severity(severity))
    failed = [each for each in found.not_audited if not each.rule]
    if as_json:
        json_output.write({"findings": shown, "audited": found.audited, "not_audited": found.not_audited})
    else:
        _show(found, shown)
    failing = () if fail_on == NEVER else found.at_least(_severity(fail_on))
    if failing:
        worst = tables.counted(len(failing), "finding")
        raise UnmetError(f"{worst} of severity {fail_on}" + ("" if fail_on == "error" else " or worse"))
    if failed:
        raise typer.Exit(SOME_FAILED)


def _severity(name: str) -> Severity:
    return next(each for each in SEVERITIES if each == name)


def _show(found: Audit, shown: tuple[Finding, ...]) -> None:
    if shown:
        columns = ("model", "severity", "rule", "layer", "finding", ">value", ">threshold", ">false alarms", "remedy")
        tables.table(columns, map(_row, shown))
    counts = Counter(each.severity for each in found.findings)
    told = ", ".join(tables.counted(counts[each], each) for each in SEVERITIES if counts[each])
    hidden = len(found.findings) - len(shown)
    tables.say(
        f"{tables.counted(found.audited, 'model')} audited by {tables.counted(len(found.rules), 'rule')}: "
        + (told or "nothing found")
        + (f" ({hidden:,} not shown)" if hidden else "")
        + "."
    )
    for missing in found.not_audited:
        tables.hint(_missing(missing))


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.model,
        finding.severity,
        finding.rule,
        finding.layer,
        finding.message,
        tables.number(finding.value),
        tables.number(finding.threshold),
        tables.percent(finding.false_alarms),
        finding.remedy,
    )


def _missing(missing: NotAudited) -> str:
    """One line: ``rows: 3 models not judged (a, b, c): stored before figures of the weights were; read them again``."""
    names = ", ".join(missing.models[:NAMED]) + (", ..." if len(missing.models) > NAMED else "")
    what = f"{missing.rule}: " if missing.rule else ""
    judged = "not judged" if missing.rule else "not read"
    line = f"{what}{tables.counted(len(missing.models), 'model')} {judged} ({names}): {missing.reason}"
    return f"{line}; {missing.remedy}" if missing.remedy else line


class _Counter:
    """Reports the finished models and the time left on standard error: on a terminal in place, else now and then."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told = self._began

    def __call__(self, finished: int, total: int) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if finished < total and now - self._told < (0.1 if terminal else 10.0):
            return
        self._told = now
        left = (now - self._began) / finished * (total - finished)
        line = f"{finished:,}/{tables.counted(total, 'model')}" + (f", {left:.0f} s left" if finished < total else "")
        if terminal:
            sys.stderr.write(f"\r{line:<60}" + ("\n" if finished == total else ""))
        elif total > 1 and now - self._began >= 10.0:  # a short one needs no log
            sys.stderr.write(f"{line}\n")
