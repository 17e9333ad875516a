"""What a rule of the audit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from registry.audit.audit_subject import AuditSubject
    from registry.types import Severity

__all__ = [
    "AuditRule",
    "Hit",
    "Lack",
    "NO_REGISTRY",
    "needs_figures",
    "needs_means",
    "needs_sketches",
    "needs_spectra",
    "needs_spectra_and_figures",
]


class Hit(NamedTuple):
    """A finding of a rule in a subject: fields as in `registry.types.Finding`."""

    layer: str
    severity: Severity
    value: float
    threshold: float
    message: str
    remedy: str


class Lack(NamedTuple):
    """The evidence that a rule needs and does not have, and how to get it."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class AuditRule:
    """One rule of the audit.

    ``finds``: what it finds, in a phrase; ``when``: by severity, the condition in words. ``check`` yields the findings
    in a subject; ``lacks`` says what evidence it has none of, and then nothing is checked. ``false_alarms``: by
    severity, the share of the published models with a finding that was none, as `benchmarks.audit` measures it.
    """

    name: str
    finds: str
    when: Mapping[Severity, str]
    check: Callable[[AuditSubject], Iterable[Hit]]
    lacks: Callable[[AuditSubject], Lack | None]
    false_alarms: Mapping[Severity, float]


NO_REGISTRY = Lack("there is no registry to compare it with", "ingest models: archreg ingest")
"""Why models that are audited alone are not compared with others."""
_AGAIN = "read them again: archreg ingest, with the same files or references"


_NO_WEIGHTS = Lack("the weights were not read, only their headers", "read them: archreg ingest, without --headers-only")
_NO_SPECTRA = Lack("the spectra were not stored", "ingest the weights again, without --no-spectra")


def needs_spectra(subject: AuditSubject) -> Lack | None:
    """What is missing of the spectra."""
    if not subject.weights_read:
        return _NO_WEIGHTS
    return _NO_SPECTRA if subject.spectra is None else None


def needs_means(subject: AuditSubject) -> Lack | None:
    """What is missing of the mean eigenvalues, which are known without spectra, too."""
    return needs_spectra(subject) if subject.means is None or not subject.weights_read else None


def needs_figures(subject: AuditSubject) -> Lack | None:
    """What is missing of the figures of the weights."""
    if not subject.weights_read:
        return _NO_WEIGHTS
    return Lack("stored before figures of the weights were", _AGAIN) if subject.figures is None else None


def needs_spectra_and_figures(subject: AuditSubject) -> Lack | None:
    """What is missing of the figures of the weights, and of the spectra."""
    return needs_figures(subject) or needs_spectra(subject)


def needs_sketches(subject: AuditSubject) -> Lack | None:
    """What is missing of the sketches, and of the spectra or of the values, which also tell layers apart."""
    if subject.weights_read and subject.sketches is None:
        return Lack("stored before sketches of the weights were", _AGAIN)
    return needs_spectra(subject) if subject.equal is None else needs_means(subject)
