"""Verdicts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.cli.tables import number, percent, whole

if TYPE_CHECKING:
    from registry.types import Candidate, FingerprintSpec, Verdict

__all__ = ["basis", "judged", "savings", "sentence", "why"]


def sentence(verdict: Verdict, searched: int | None = None) -> str:
    """The evidence: distance against accuracy, what unrelated pairs do, and how many false passes that implies."""
    side = "within" if verdict.distance <= verdict.accuracy else "beyond"
    parts = [
        f"distance {number(verdict.distance)}",
        f"{side} the accuracy {number(verdict.accuracy)}",
        f"closer than {percent(verdict.closer_than)} of unrelated pairs",
    ]
    if searched is not None:
        parts.append(_false_passes(verdict.expected_false, searched))
    return ", ".join(parts)


def _false_passes(expected: float, searched: int, noun: str = "searched") -> str:
    return f"{number(expected)} false passes expected among the {whole(searched)} {noun}"


def basis(spec: FingerprintSpec, metric: str, accuracy: float) -> str:
    """By what models were compared: ``layered v1, l1, accuracy 0.035``."""
    return f"{spec.label}, {metric}, accuracy {number(accuracy)}"


def judged(accuracy: float, rate: float, searched: int, noun: str = "searched") -> str:
    """What passing at this accuracy means for as many models as were searched, or pairs of them."""
    return (
        f"{percent(rate, 2)} of unrelated pairs pass at the accuracy {number(accuracy)}: "
        f"{_false_passes(rate * searched, searched, noun)}"
    )


def why(verdict: Verdict) -> str:
    """``equivalent``, or why not."""
    return "equivalent" if verdict.equivalent else "not equivalent: " + ("; ".join(verdict.reasons) or "too far")


def savings(candidate: Candidate) -> str:
    """What a smaller model saves: ``63.4 % of the parameters, 63.1 % of the bytes``."""
    return f"{percent(candidate.params_saved)} of the parameters, {percent(candidate.bytes_saved)} of the bytes"
