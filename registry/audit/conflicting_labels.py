"""Rule ``labels``: the same weights under two labels that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.audit.base import NO_REGISTRY, AuditRule, Hit, Lack
from registry.spelling import folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject, Twin

__all__ = ["RULE"]


def _check(subject: AuditSubject) -> Iterator[Hit]:
    for twin in subject.twins or ():
        differ = list(_differing(subject, twin))
        if differ:
            message = f"the same weights as {twin.name}, but for rounding, with another {'; '.join(differ)}"
            remedy = "correct the wrong one: archreg set, or archreg rm"
            yield Hit("", "warning", len(differ), 0, message, remedy)


def _differing(subject: AuditSubject, twin: Twin) -> Iterator[str]:
    """Labels that both have and that differ: ``family (vgg, not resnet)``."""
    for what in ("family", "architecture"):
        mine, theirs = getattr(subject, what), getattr(twin, what)
        if mine and theirs and folded(mine) != folded(theirs):
            yield f"{what} ({theirs}, not {mine})"
    scores = {metric.place: metric.value for metric in twin.metrics}
    for metric in subject.metrics:
        other = scores.get(metric.place, metric.value)
        if other != metric.value:
            yield f"{metric.place} ({other:g}, not {metric.value:g})"


def _lacks(subject: AuditSubject) -> Lack | None:
    if not subject.registry:
        return NO_REGISTRY
    if subject.twins is None:
        return Lack(
            "its weights cannot be compared with those of others: it has no sketches",
            "read them again: archreg ingest, with the same files or references",
        )
    return None


RULE = AuditRule(
    name="labels",
    finds="the same weights under two labels",
    when={
        "warning": "another stored model has the same topology and, but for rounding to float16 or bfloat16, the same "
        "weights, and another family, architecture, or value of one metric"
    },
    check=_check,
    lacks=_lacks,
    false_alarms={"warning": 0.0},
)
