"""Audit of weights: a table of rules, each in a module of its own, over the evidence on one model.

`AuditSubject` is that evidence, `judged` applies rules to it. A rule whose evidence is missing says so.
"""

from __future__ import annotations

from registry.audit.audit_subject import AuditSubject, FamilyShapes, Twin
from registry.audit.base import AuditRule, Hit, Lack
from registry.audit.rule_table import RULES, Judgement, judged

__all__ = ["RULES", "AuditRule", "AuditSubject", "FamilyShapes", "Hit", "Judgement", "Lack", "Twin", "judged"]
