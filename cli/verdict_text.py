"""Verdicts, decay laws and differences in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.cli.tables import counted, number, percent, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import (
        Calibration,
        Candidate,
        Conjugacy,
        Contrast,
        Decay,
        FingerprintSpec,
        LayerContrast,
        MetricChange,
        ModelSummary,
        Partition,
        Search,
        Selection,
        Verdict,
    )

__all__ = [
    "approximate",
    "basis",
    "calibrated",
    "change",
    "closer",
    "conjugate",
    "decay",
    "differences",
    "judged",
    "savings",
    "sentence",
    "tail",
    "training",
    "uncalibrated",
    "unlike",
    "why",
]


UNCALIBRATED = "not calibrated"
NAMED = 3
"""Models with approximate spectra that are named; of more, their number is said."""


def sentence(verdict: Verdict, calibration: Calibration | None, searched: int | None = None) -> str:
    """The evidence: distance against tolerance, what unrelated pairs do, and how many false passes that implies.

    Only the distance where there is no tolerance, and nothing of unrelated pairs without a calibration.
    """
    if verdict.tolerance is None:
        return f"distance {number(verdict.distance)}, and no tolerance to hold it against"
    side = "within" if verdict.distance <= verdict.tolerance else "beyond"
    distance, tolerance = _apart(verdict.distance, verdict.tolerance)
    parts = [f"distance {distance}", f"{side} the tolerance {tolerance}"]
    if verdict.closer_than is not None:
        pairs = (
            "all unrelated pairs measured" if verdict.closer_than == 1.0 else f"{closer(verdict)} of unrelated pairs"
        )
        parts.append(f"closer than {pairs}")
    if searched is not None and calibration is not None and verdict.rate is not None:
        parts.append(_false_passes(verdict.rate, calibration, searched))
    return ", ".join(parts)


def _apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers by as many digits as tell them apart: at least three."""
    for digits in range(3, 17):
        texts = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if a == b or texts[0] != texts[1]:
            return texts
    return repr(a), repr(b)


def closer(verdict: Verdict) -> str:
    """Of unrelated pairs, how many lie farther apart: ``99.6 %``, ``all pairs`` measured; empty if not known."""
    if verdict.closer_than is None:
        return ""
    return "all pairs" if verdict.closer_than == 1.0 else percent(verdict.closer_than)


def _false_passes(rate: float, calibration: Calibration, searched: int, noun: str = "searched") -> str:
    # No unrelated pair that was measured is so near: all that is known is that the rate is not larger.
    most = "at most " if rate <= calibration.resolution else ""
    expected = number(rate * searched)
    passes = "false pass" if expected == "1" else "false passes"
    return f"{most}{expected} {passes} expected among the {whole(searched)} {noun}"


def calibrated(calibration: Calibration | None) -> str:
    """What the rates were measured on: ``calibrated on 163 published models of 20 families``; ``not calibrated``."""
    return UNCALIBRATED if calibration is None else f"calibrated on {calibration.source}"


def uncalibrated(spec: FingerprintSpec, distance: str) -> str:
    """That nothing is known of unrelated models, and the command that measures it."""
    return (
        f"{spec.label} by {distance} is {UNCALIBRATED}: how far apart unrelated models lie is not known; measure it: "
        f"archreg calibrate --fingerprint {spec.name} --distance {distance}"
    )


def basis(spec: FingerprintSpec, distance: str, tolerance: float | None) -> str:
    """By what models were compared: ``layered v2, l1, tolerance 0.035``, or ``theirs v1, l1, no tolerance``."""
    return f"{spec.label}, {distance}, {'no tolerance' if tolerance is None else f'tolerance {number(tolerance)}'}"


def judged(found: Search | Selection | Partition, searched: int, noun: str = "searched") -> str:
    """What passing at this tolerance means for as many models as were searched, or pairs of them."""
    tolerance, rate, calibration = found.tolerance, found.rate, found.calibration
    if calibration is None or rate is None:
        return uncalibrated(found.spec, found.distance)
    most = "at most " if rate <= calibration.resolution else ""
    return (
        f"{most}{percent(rate, 2)} of unrelated pairs pass at the tolerance {number(tolerance)}: "
        f"{_false_passes(rate, calibration, searched, noun)} ({calibrated(calibration)})"
    )


def why(verdict: Verdict) -> str:
    """``equivalent``, or why not; ``not calibrated`` where there is no tolerance to tell."""
    if verdict.equivalent is None:
        return UNCALIBRATED
    return "equivalent" if verdict.equivalent else "not equivalent: " + ("; ".join(verdict.reasons) or "too far")


def unlike(verdict: Verdict) -> str:
    """Why two models are not equivalent, in few words: the classes in which they differ, else that they are too far."""
    return "; ".join(reason for reason in verdict.reasons if not reason.startswith("distance ")) or "too far"


def approximate(*models: ModelSummary) -> tuple[str, ...]:
    """That distances and classes rest on approximate spectra, and whose; nothing where all are exact."""
    counts = {model.name: model.approximate for model in models if model.approximate}
    named = [f"{name} ({counted(counts[name], 'layer')})" for name in list(counts)[:NAMED]]
    if len(counts) > NAMED:
        named.append(f"{whole(len(counts) - NAMED)} more")
    if not named:
        return ()
    return (
        f"spectra by stochastic Lanczos quadrature: {', '.join(named)}; distances and classes of these are approximate",
    )


def savings(candidate: Candidate) -> str:
    """What a smaller model saves: ``63.4 % of the parameters, 63.1 % of the bytes``; only what it does."""
    saved = (
        (candidate.params_saved, "parameters"),
        (candidate.bytes_saved, "bytes"),
        (candidate.gflops_saved, "gigaflops"),
    )
    known = [f"{percent(part)} of the {what}" for part, what in saved if part is not None and part > 0]
    return ", ".join(known) or "nothing"


def change(found: MetricChange) -> str:
    """How a metric changes: ``top1 -1.66, worse (cifar10 test)``."""
    way = "" if found.better is None else ", better" if found.better else ", worse"
    place = f"{found.dataset} {found.split}".strip()
    return f"{found.name} {found.change:+.3g}{way}" + (f" ({place})" if place else "")


def training(found: Conjugacy) -> str:
    """The training class and why: how far from Gaussian weights, against how far 99 % of Gaussian networks are."""
    where = "outside" if found.z > 1 else "within"
    return (
        f"{found.training_class}: {where} the 99 % band of Gaussian weights of its shapes, at {number(found.z)} times "
        "its width"
    )


def tail(found: Conjugacy) -> str:
    """The tail class and what it means."""
    long = found.tail_class == "long"
    meaning = "reaches beyond what uncorrelated weights can" if long else "ends where that of uncorrelated weights can"
    return f"{found.tail_class}: its tail {meaning}"


def conjugate(found: Conjugacy) -> str:
    """Where the spectral difference stays within each delta, and how many times as far out as of Gaussian weights."""
    gaussian = dict(found.wishart_tail)
    parts: list[str] = []
    for delta, x in found.tail:
        ratio = x / gaussian[delta] if gaussian.get(delta) else None
        # Said once, of the first.
        behind = "" if ratio is None else f" ({number(ratio)}{'' if parts else ' times as far as Gaussian weights'})"
        parts.append(f"x = {number(x)} within {delta:g}{behind}")
    return ", ".join(parts)


def decay(found: Decay) -> str:
    """How a tail decays: ``power law, exponent 2.4 (Vuong 3.1, 412 eigenvalues beyond x = 4.2)``."""
    one = found.exceedances == 1
    place = f"{counted(found.exceedances, 'eigenvalue')} beyond x = {number(found.threshold)}"
    if found.statistic is None:
        return f"undecided: {place} {'is' if one else 'are'} not enough to tell"
    exponential, power = f"exponential, rate {number(found.rate)}", f"power law, exponent {number(found.exponent)}"
    laws = {"exponential": exponential, "power": power}
    law = laws.get(found.law, f"undecided: {exponential}, or {power}; the tests do not agree on one")
    return f"{law} (Vuong {number(found.statistic)}, {place})"


def differences(found: Contrast | None, a: str, b: str) -> tuple[str, ...]:
    """Where models ``a`` and ``b`` differ, a sentence each: location, depth, layers, blocks of the fingerprint."""
    if found is None:
        return ("where they differ is not known: the spectra of one of them are not stored",)
    if not any(share for _, share in found.shares):
        return ("their spectra and shapes are the same",)
    return (
        _location(found, a, b),
        "layers farthest from the other's at their depth, in decades of x:",
        f"  of {a}, {_layers(found.layers_a)}",
        f"  of {b}, {_layers(found.layers_b)}",
        "shares of the layered l1 distance: " + ", ".join(f"{name} {percent(part)}" for name, part in found.shares),
    )


def _location(found: Contrast, a: str, b: str) -> str:
    more, less = (a, b) if found.difference > 0 else (b, a)
    return (
        f"spectra differ most at x = {number(found.location)}: {percent(abs(found.difference))} more of {more} than of "
        f"{less} lies below; by depth, most around {found.depth:g}, by {number(found.depth_distance)} decades of x"
    )


def _layers(layers: Sequence[LayerContrast]) -> str:
    return ", ".join(f"{x.name} ({number(x.distance)} at {x.depth:.2f})" for x in layers) or "none"
