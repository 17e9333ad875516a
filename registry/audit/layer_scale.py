"""Rule ``scale``: layers whose scale is far outside the model's own range."""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import median
from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, needs_means
from registry.audit.untrained_layers import scale_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject
    from registry.types import LayerMatrix

__all__ = ["RULE"]

ABOVE, BELOW = 50.0, 100.0
"""Factors over and under the median of the other layers."""


def _size(layer: LayerMatrix, mean: float) -> float:
    """Logarithm of the scale of a layer's outputs for inputs of scale 1: root mean square times sqrt(fan-in).

    An embedding has one input at a time.
    """
    return log(scale_of(layer, mean) * (1.0 if layer.kind == "embedding" else sqrt(layer.q)))


def _check(subject: AuditSubject) -> Iterator[Hit]:
    means = zip(subject.layers, subject.means or (), strict=False)
    sizes = [(layer.name, _size(layer, mean)) for layer, mean in means if mean > 0]
    if len(sizes) < 3:  # of two, nothing tells which is the wrong one
        return
    middle = median(size for _, size in sizes)
    for name, size in sizes:
        factor = exp(size - middle)
        if factor > ABOVE:
            message = f"scale {factor:.3g} times that of the model's median layer"
            remedy = "check the conversion of this layer: a scale may have been applied twice, or not at all"
            yield Hit(name, "error", factor, ABOVE, message, remedy)
        elif factor < 1 / BELOW:
            message = f"scale {factor:.2g} of that of the model's median layer"
            remedy = "nothing, if weight decay has emptied the layer: it can be removed; else check its conversion"
            yield Hit(name, "warning", factor, 1 / BELOW, message, remedy)


RULE = AuditRule(
    name="scale",
    finds="layers whose scale is far outside the model's own range",
    when={
        "error": "root mean square times sqrt(fan-in) more than 50 times the median of at least three layers",
        "warning": "less than a hundredth of it",
    },
    check=_check,
    lacks=needs_means,
    false_alarms={"error": 0.0, "warning": 0.0},
)
