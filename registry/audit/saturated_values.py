"""Rule ``saturated``: weights at the largest number of the precision that they are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, needs_figures
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]


def _check(subject: AuditSubject) -> Iterator[Hit]:
    of_layers = () if subject.figures is None else subject.figures.layers
    for layer, figures in zip(subject.layers, of_layers, strict=False):
        if figures.saturated:
            message = f"{counted(figures.saturated, 'value')} at the largest number of the stored precision"
            remedy = "convert from the original again, in bfloat16 or float32, or scale the layer before"
            yield Hit(layer.name, "error", figures.saturated, 0, message, remedy)


RULE = AuditRule(
    name="saturated",
    finds="weights at the largest number of float16 or bfloat16",
    when={"error": "any value"},
    check=_check,
    lacks=needs_figures,
    false_alarms={"error": 0.0},
)
