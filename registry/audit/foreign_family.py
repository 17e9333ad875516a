"""Rule ``family``: a family label that the shapes of the layers contradict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.audit.base import NO_REGISTRY, AuditRule, Hit, Lack
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]

OTHERS = 2
"""Other models of a family that are to be stored before a model is compared with them."""
RATIO = 2.0
"""How many times as far the nearest model of its own family is to be as the nearest of another one."""


def _check(subject: AuditSubject) -> Iterator[Hit]:
    kin = subject.kin
    if kin is None or kin.own <= RATIO * kin.other:
        return
    models = f"{counted(kin.others, 'other model')} of {subject.family}"
    if kin.other > 0:
        message = (
            f"called {subject.family}, but its shapes are nearer to those of {kin.name}, of {kin.family} (distance "
            f"{kin.other:.3g}), than to those of any of the {models} (at least {kin.own:.3g})"
        )
    else:
        message = f"called {subject.family}, but it has the shapes of {kin.name}, of {kin.family}, not of the {models}"
    ratio = kin.own / kin.other if kin.other > 0 else float("inf")
    yield Hit("", "warning", ratio, RATIO, message, "correct the label: archreg set NAME --family")


def _lacks(subject: AuditSubject) -> Lack | None:
    if not subject.registry:
        return NO_REGISTRY
    if not subject.family:
        return Lack(
            "the family is not known",
            "archreg set NAME --family FAMILY; of a file: archreg ingest FILE --family FAMILY",
        )
    if subject.kin is None:
        return Lack("its shapes are not known under this version", "archreg refingerprint")
    if subject.kin.others < OTHERS:
        return Lack(f"fewer than {OTHERS} other models of its family are stored", "ingest more of the family")
    return None


RULE = AuditRule(
    name="family",
    finds="a family label that the shapes of the layers contradict",
    when={
        "warning": "at least two other models of the family are stored, and a model of another family is less than "
        "half as far by the fingerprint shapes as the nearest of them"
    },
    check=_check,
    lacks=_lacks,
    false_alarms={"warning": 0.0},
)
