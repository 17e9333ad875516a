"""The table of rules, and what some of them say of a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.extensions import AUDIT_RULES, Table
from registry.types import SEVERITIES, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.audit.audit_subject import AuditSubject
    from registry.audit.base import AuditRule, Lack

__all__ = ["RULES", "Judgement", "judged"]

RULES: Table[AuditRule] = Table(AUDIT_RULES)


class Judgement(NamedTuple):
    """Findings on one model, the worst first, and by rule the evidence that is missing."""

    findings: tuple[Finding, ...]
    lacks: tuple[tuple[str, Lack], ...]


def judged(subject: AuditSubject, rules: Iterable[str]) -> Judgement:
    """Apply rules, by name, to a subject; in the order of severity, then of the rules and layers."""
    findings: list[Finding] = []
    lacks: list[tuple[str, Lack]] = []
    for name in rules:
        rule = RULES[name]
        lack = rule.lacks(subject)
        if lack is not None:
            lacks.append((name, lack))
            continue
        findings += [
            Finding(
                subject.name,
                hit.layer,
                name,
                hit.severity,
                float(hit.value),
                float(hit.threshold),
                hit.message,
                hit.remedy,
                rule.false_alarms[hit.severity],
            )
            for hit in rule.check(subject)
        ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Judgement(tuple(findings), tuple(lacks))
