"""Findings of an audit: what is wrong with stored weights and their labels, with the number behind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SEVERITIES", "Audit", "Finding", "NotAudited", "Severity"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found in one model.

    ``layer``: the layer or tensor, empty where the finding is about the model. ``rule``: name of the rule. ``value``:
    the number behind the finding, and ``threshold``: the one that it is beyond, both in the unit that the message
    names. ``message``: what was found, a sentence without full stop; ``remedy``: what to do about it. ``false_alarms``:
    share of published models in which the rule found something of this severity that was none.
    """

    model: str
    layer: str
    rule: str
    severity: Severity
    value: float
    threshold: float
    message: str
    remedy: str
    false_alarms: float


@dataclass(frozen=True, slots=True)
class NotAudited:
    """Models on which a rule could say nothing.

    ``rule``: its name, empty where no rule could be applied. ``reason``: the evidence that is missing, and ``remedy``:
    how to get it. ``models``: their names.
    """

    rule: str
    reason: str
    remedy: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """Answer of an audit of one or more models.

    ``findings``: by model, the worst first. ``audited``: number of models to which at least one rule was applied.
    ``not_audited``: rules that could not be applied for want of evidence, each with the models that lack it: nothing
    is said of these. ``rules``: names of the rules that were asked for.
    """

    findings: tuple[Finding, ...]
    audited: int
    not_audited: tuple[NotAudited, ...]
    rules: tuple[str, ...]

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of that severity and worse."""
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return tuple(each for each in self.findings if each.severity in worst)

    def to_frame(self) -> DataFrame:
        """One row for each finding: see ``registry.frames.of_findings``."""
        from registry.frames import of_findings

        return of_findings(self)
