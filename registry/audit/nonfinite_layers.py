"""Rule ``nonfinite``: values that are NaN or infinite."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, Lack
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]

_LEFT_OUT = re.compile(r"not finite \(([\d,]+) values?\)")
_REMEDY = "take another checkpoint: this one diverged or is damaged"


def _check(subject: AuditSubject) -> Iterator[Hit]:
    """By tensor as far as tensors were left out for it, and what remains, of vectors, of the model."""
    told = 0
    for tensor in subject.skipped:
        found = _LEFT_OUT.fullmatch(tensor.reason)
        if found is not None:
            count = int(found[1].replace(",", ""))
            told += count
            yield Hit(tensor.name, "error", count, 0, f"{counted(count, 'value')} NaN or infinite", _REMEDY)
    if subject.nonfinite > told:
        rest = subject.nonfinite - told
        yield Hit("", "error", rest, 0, f"{counted(rest, 'value')} of vectors or statistics NaN or infinite", _REMEDY)


def _lacks(subject: AuditSubject) -> Lack | None:
    if subject.weights_read:
        return None
    return Lack("the weights were not read, only their headers", "read them: archreg ingest, without --headers-only")


RULE = AuditRule(
    name="nonfinite",
    finds="values that are NaN or infinite",
    when={"error": "any value of a parameter or statistic"},
    check=_check,
    lacks=_lacks,
    false_alarms={"error": 0.0},
)
