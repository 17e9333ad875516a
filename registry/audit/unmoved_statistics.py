"""Rule ``statistics``: running means and variances of normalisation that never moved, in a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.audit.base import AuditRule, Hit, needs_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]


def _check(subject: AuditSubject) -> Iterator[Hit]:
    training = subject.training
    if training is None or training.training_class != "trained":
        return
    vectors = training.vectors
    unmoved = vectors.statistics - vectors.statistics_moved
    of_all = f"{unmoved:,} of {vectors.statistics:,} running means and variances"
    if unmoved and not vectors.statistics_moved:
        message = f"{of_all} are constant: they have seen no data"
        remedy = "recompute the statistics on training data, or load the checkpoint that has them"
        yield Hit("", "error", unmoved, 0, message, remedy)
    elif unmoved:
        remedy = "nothing, if these layers are not used; else recompute the statistics on training data"
        yield Hit("", "warning", unmoved, 0, f"{of_all} are constant", remedy)


RULE = AuditRule(
    name="statistics",
    finds="running means and variances that never moved, in a trained model",
    when={"error": "all of them are constant", "warning": "some of them are"},
    check=_check,
    lacks=needs_figures,
    false_alarms={"error": 0.0, "warning": 0.0},
)
