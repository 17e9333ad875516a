"""Rule ``rows``: outputs whose weights are all zero, or all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, needs_figures
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]

PADDING = 2
"""Rows of zeros that an embedding may have for padding."""


def _check(subject: AuditSubject) -> Iterator[Hit]:
    of_layers = () if subject.figures is None else subject.figures.layers
    for layer, figures in zip(subject.layers, of_layers, strict=False):
        if figures.zero_rows:
            padding = layer.kind == "embedding" and figures.zero_rows <= PADDING
            message = f"{figures.zero_rows:,} of {counted(layer.p, 'row')} of zeros" + (", as padding has" * padding)
            remedy = "nothing, if it was pruned; else these outputs are dead: remove them, or repair the file"
            yield Hit(layer.name, "note" if padding else "warning", figures.zero_rows, 0, message, remedy)
        if figures.constant_rows:
            message = f"{figures.constant_rows:,} of {counted(layer.p, 'row')} of one value other than zero"
            remedy = "nothing, if the layer is a fixed filter; else its outputs do not tell inputs apart"
            yield Hit(layer.name, "warning", figures.constant_rows, 0, message, remedy)


RULE = AuditRule(
    name="rows",
    finds="outputs whose weights are all zero, or all the same",
    when={
        "warning": "any row of zeros, or of one other value",
        "note": "at most two rows of zeros in an embedding, as for padding",
    },
    check=_check,
    lacks=needs_figures,
    false_alarms={"warning": 0.0, "note": 0.0},
)
