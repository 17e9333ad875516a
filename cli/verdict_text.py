"""Sentences about verdicts, training and tail classes, decay laws and differences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from registry.cli.tables import counted, number, percent, sentence, whole
from registry.types.audits import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from registry.types import (
        Calibration,
        Candidate,
        Comparison,
        Compression,
        Conjugacy,
        Contrast,
        Decay,
        ExpectedChange,
        Finding,
        FingerprintSpec,
        LayerContrast,
        MetricChange,
        ModelSummary,
        Partition,
        Relation,
        Search,
        Selection,
        Training,
        Verdict,
    )

__all__ = [
    "alike",
    "approximate",
    "basis",
    "calibrated",
    "change",
    "closer",
    "conjugate",
    "contradiction",
    "decay",
    "differences",
    "equals",
    "evidence",
    "expectation",
    "expected",
    "found",
    "incomplete",
    "learned",
    "older",
    "relation",
    "savings",
    "seeds",
    "tail",
    "training",
    "uncalibrated",
    "unlike",
    "why",
]


UNCALIBRATED = "not calibrated"
NAMED = 3
"""Maximum number of models that a sentence names."""


def found(findings: Iterable[Finding]) -> tuple[str, str]:
    """Whether a model is sound (yes, look, no), and the numbers of findings by severity, the worst first."""
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(counted(counts[each], each) for each in SEVERITIES if counts[each])
    return "no" if counts["error"] else "look" if counts["warning"] else "yes", told or "nothing found"


def evidence(verdict: Verdict, calibration: Calibration | None, searched: int | None = None) -> str:
    """Sentences on the distance, the tolerance, unrelated pairs, the calibration and the expected false passes.

    Without a tolerance, only the distance; without a calibration, nothing on unrelated pairs.
    """
    known = f"({calibrated(calibration)})"
    if verdict.tolerance is None:
        return f"The distance is {number(verdict.distance)}; there is no tolerance {known}."
    side = "within" if verdict.distance <= verdict.tolerance else "beyond"
    distance, tolerance = _apart(verdict.distance, verdict.tolerance)
    told = f"The distance {distance} is {side} the tolerance {tolerance}"
    if verdict.closer_than is not None:
        pairs = (
            "all unrelated pairs measured" if verdict.closer_than == 1.0 else f"{closer(verdict)} of unrelated pairs"
        )
        told += f"; {pairs} are farther apart"
    if searched is None or calibration is None or verdict.rate is None:
        return f"{told} {known}."
    return f"{told}. {sentence(f'{_false_passes(verdict.rate, calibration, searched)} {known}')}"


def _apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers with as many digits as distinguish them, at least three."""
    for digits in range(3, 17):
        texts = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if a == b or texts[0] != texts[1]:
            return texts
    return repr(a), repr(b)


def seeds(verdict: Verdict) -> tuple[str, ...]:
    """A sentence on the scale of distances within a topology; empty where it is not measured."""
    if verdict.seeds is None:
        return ()
    return (
        f"For scale: of two trainings of one topology that differ in the seed alone, 95 % lie within "
        f"{number(verdict.seeds)} (measured on small networks).",
    )


def relation(found: Relation) -> tuple[str, str]:
    """What the weights say of a common start, in a word and with the evidence."""
    evidence = found.reason
    if found.correlation is not None and found.verdict != "identical":
        evidence = f"correlation {found.correlation:.2f}"
        if found.error is not None:
            evidence += f" +- {found.error:.2f}"
        evidence += f" over {counted(found.layers, 'layer')} with {percent(found.share)} of the weights"
    told = {
        "identical": "the same content",
        "permuted": f"equal spectra of uncorrelated weights, as the same units in another order have; {evidence}",
        "related": f"a common start, or one descends from the other; {evidence}",
        "independent": f"no sign of a common start; {evidence}",
        "undecided": f"{found.reason}; {evidence}",
    }
    return found.verdict, told.get(found.verdict, found.reason)


def closer(verdict: Verdict) -> str:
    """Share of unrelated pairs that are farther apart: ``99.6 %``, ``all pairs`` measured; empty if unknown."""
    if verdict.closer_than is None:
        return ""
    return "all pairs" if verdict.closer_than == 1.0 else percent(verdict.closer_than)


def _false_passes(rate: float, calibration: Calibration, searched: int, noun: str = "") -> str:
    # No measured unrelated pair is as near: then the rate is an upper bound.
    most = "at most " if rate <= calibration.resolution else ""
    expected = number(rate * searched)
    passes = "false pass is" if expected == "1" else "false passes are"
    among = f"{whole(searched)} {noun}" if noun else f"{counted(searched, 'model')} searched"
    return f"{most}{expected} {passes} expected among the {among}"


def calibrated(calibration: Calibration | None) -> str:
    """The data of the calibration: ``calibrated on 163 published models of 20 families``, or ``not calibrated``."""
    return UNCALIBRATED if calibration is None else f"calibrated on {calibration.source}"


def uncalibrated(spec: FingerprintSpec, distance: str) -> str:
    """A sentence on a missing calibration, with the command that measures one."""
    return (
        f"{spec.label} with {distance} is {UNCALIBRATED}: the distances of unrelated models are unknown. Measure them: "
        f"archreg calibrate --fingerprint {spec.name} --distance {distance}"
    )


def basis(spec: FingerprintSpec, distance: str, tolerance: float | None) -> str:
    """Fingerprint, distance and tolerance: ``layered v2, l1, tolerance 0.035``, or ``theirs v1, l1, no tolerance``."""
    return f"{spec.label}, {distance}, {'no tolerance' if tolerance is None else f'tolerance {number(tolerance)}'}"


def expected(found: Search | Selection | Partition, searched: int, noun: str = "") -> str:
    """A sentence on the rate at this tolerance, and the false passes expected among the models or pairs."""
    tolerance, rate, calibration = found.tolerance, found.rate, found.calibration
    if calibration is None or rate is None:
        return uncalibrated(found.spec, found.distance)
    most = "at most " if rate <= calibration.resolution else ""
    return (
        f"At the tolerance {number(tolerance)}, {most}{percent(rate, 2)} of unrelated pairs pass: "
        f"{_false_passes(rate, calibration, searched, noun)} ({calibrated(calibration)})."
    )


def alike(models: Iterable[ModelSummary], *, equivalent: bool = True) -> str:
    """What a verdict by shapes alone says of these models: ``alike in shapes; weights were not read``."""
    read = all(model.weights_read for model in models)
    return f"{'' if equivalent else 'not '}alike in shapes; weights were not {'compared' if read else 'read'}"


def alike_to(models: Sequence[ModelSummary], name: str) -> str:
    """What a verdict says of models and the one of that name: ``equivalent to NAME``, or that it rests on shapes."""
    if all(model.weights_read for model in models):
        return f"equivalent to {name}"
    told, weights = alike(models).split("; weights were ")
    return f"{told} to {name} (weights {weights})"


def why(verdict: Verdict, *models: ModelSummary) -> str:
    """``equivalent``, or why not; ``not calibrated`` where there is no tolerance to tell.

    ``models``: the two that it is of, where it may rest on shapes alone.
    """
    if verdict.equivalent is None:
        return UNCALIBRATED
    if verdict.by_shapes:
        told = alike(models, equivalent=verdict.equivalent)
        return told if verdict.equivalent else f"{told}: {'; '.join(verdict.reasons) or 'too far'}"
    return "equivalent" if verdict.equivalent else "not equivalent: " + ("; ".join(verdict.reasons) or "too far")


def unlike(verdict: Verdict) -> str:
    """Short reason why two models are not equivalent: their training classes, else too far."""
    return "; ".join(reason for reason in verdict.reasons if not reason.startswith("distance ")) or "too far"


def approximate(*models: ModelSummary) -> tuple[str, ...]:
    """A sentence that names models with approximate spectra; empty if all spectra are exact."""
    counts = {model.name: model.approximate for model in models if model.approximate}
    named = [f"{name} ({counted(counts[name], 'layer')})" for name in list(counts)[:NAMED]]
    if len(counts) > NAMED:
        named.append(f"{whole(len(counts) - NAMED)} more")
    if not named:
        return ()
    return (
        f"Spectra by stochastic Lanczos quadrature: {', '.join(named)}. Their distances, training classes "
        "and tail classes are approximate.",
    )


def incomplete(*models: ModelSummary) -> tuple[str, ...]:
    """Sentences that name models with weights that were not or could not be read, and those with values not finite."""
    headers = list(dict.fromkeys(model.name for model in models if not model.weights_read))
    unread = {model.name: f"{whole(model.unread)} of {whole(model.parameters)}" for model in models if model.unread}
    bad = {model.name: counted(model.nonfinite, "value") for model in models if model.nonfinite}
    more = [f"{whole(len(headers) - NAMED)} more"] if len(headers) > NAMED else []
    alone = f"Weights not read, compared by shapes alone: {', '.join([*headers[:NAMED], *more])}."
    return (
        *((alone,) if headers else ()),
        *_named("Some weights could not be read and are no part of the comparison", unread),
        *_named("Layers with NaN or infinity are no part of the comparison", bad),
    )


def _named(what: str, counts: Mapping[str, str]) -> tuple[str, ...]:
    named = [f"{name} ({count})" for name, count in list(counts.items())[:NAMED]]
    if len(counts) > NAMED:
        named.append(f"{whole(len(counts) - NAMED)} more")
    return (f"{what}: {', '.join(named)}.",) if named else ()


def equals(model: ModelSummary) -> tuple[str, ...]:
    """A sentence that names the architectures of the catalogue that are equal to the model of a question."""
    if not model.catalogue or len(model.names) < 2:
        return ()
    others = model.names[1:]
    more = f" and {whole(len(others) - NAMED)} more" if len(others) > NAMED else ""
    return (f"Equal to {model.name} by shapes and parameters: {', '.join(others[:NAMED])}{more}.",)


def assumed(found: Search | Selection | Partition | Compression) -> tuple[str, ...]:
    """A sentence that says that undetermined models were judged as trained, where they were; else nothing."""
    return ("Models of undetermined training class were judged as trained.",) if found.assume_trained else ()


def older(count: int, *, alone: bool = False) -> tuple[str, ...]:
    """A sentence on models of an older matrix rule; empty without any. ``alone``: they are shown, in no class."""
    if not count:
        return ()
    were = "was" if count == 1 else "were"
    what = "compared with no other" if alone else "left out"
    return (f"{counted(count, 'model')} of an older matrix rule {were} {what}: archreg db check lists them.",)


def savings(candidate: Candidate) -> str:
    """Savings of a smaller model: ``63.4 % of the parameters, 63.1 % of the bytes``."""
    saved = (
        (candidate.params_saved, "parameters"),
        (candidate.bytes_saved, "bytes"),
        (candidate.gflops_saved, "gigaflops"),
    )
    known = [f"{percent(part)} of the {what}" for part, what in saved if part is not None and part > 0]
    return ", ".join(known) or "nothing"


def change(found: MetricChange) -> str:
    """Change of a metric: ``top1 -1.66, worse (cifar10 test)``."""
    way = "" if found.better is None else ", better" if found.better else ", worse"
    place = f"{found.dataset} {found.split}".strip()
    return f"{found.name} {found.change:+.3g}{way}" + (f" ({place})" if place else "")


def contradiction(compared: Comparison) -> tuple[str, ...]:
    """A sentence on metrics that contradict an equivalent verdict; none without such."""
    if not (against := compared.contradicting):
        return ()
    return (
        f"But metrics contradict this: {'; '.join(map(change, against))}, from {compared.a.name} to {compared.b.name}.",
    )


def expectation(found: ExpectedChange | None) -> str:
    """Expected change of a metric with its interval: ``top1 -1.2 expected (90 %: -4 to +0.8)``; empty if not known."""
    if found is None:
        return ""
    return f"{found.name} {found.value:+.3g} expected (90 %: {found.low:+.3g} to {found.high:+.3g})"


def learned(*found: ExpectedChange | None) -> tuple[str, ...]:
    """A sentence on the pairs that expected changes were learned from, and on how often intervals held; or nothing."""
    told = next((expected for expected in found if expected is not None), None)
    if told is None:
        return ()
    place = f"{told.name} ({f'{told.dataset} {told.split}'.strip()})"
    return (
        f"The expected change of {place} is learned from {counted(told.pairs, 'pair')} of models of "
        f"{counted(told.families, 'family')} here that have it. With each family left out in turn, "
        f"{percent(told.coverage)} of its pairs were within the 90 % intervals.",
    )


def training(found: Conjugacy, evidence: Training | None) -> str:
    """Training class, what decided, and the departure from Gaussian weights in widths of the 99 % band."""
    where = "outside" if found.z > 1 else "within"
    band = f"{where} the 99 % band of Gaussian networks of the same shapes ({number(found.z)} times its width)"
    if evidence is None:
        return f"{found.training_class}: {band}"
    return f"{found.training_class}, by {evidence.decided_by}; {band}"


def training_evidence(found: Training) -> str:
    """All that tells training, in standard deviations, and the vectors that have left their start."""
    parts = []
    if found.z is not None:
        each = ", ".join(f"{name.replace('_', ' ')} {z:.1f}" for name, z in found.evidence)
        parts.append(f"matrices {found.z:.1f} standard deviations ({each})")
    if found.layer_z is not None:
        parts.append(f"the largest of a layer {found.layer_z:.1f}, {found.layer}")
    vectors = found.vectors
    for moved, count, what in (
        (vectors.gains_moved, vectors.gains, "gains"),
        (vectors.statistics_moved, vectors.statistics, "statistics"),
        (vectors.biases_moved, vectors.biases, "biases"),
    ):
        if count:
            parts.append(f"{moved} of {count} {what} have left their start")
    return "; ".join(parts)


def tail(found: Conjugacy) -> str:
    """Tail class and its meaning."""
    long = found.tail_class == "long"
    meaning = "extends beyond that of uncorrelated weights" if long else "ends where that of uncorrelated weights ends"
    return f"{found.tail_class}: the tail {meaning}"


def conjugate(found: Conjugacy) -> str:
    """Location from which the spectral difference stays within each delta, also relative to Gaussian weights."""
    gaussian = dict(found.wishart_tail)
    parts: list[str] = []
    for delta, x in found.tail:
        ratio = x / gaussian[delta] if gaussian.get(delta) else None
        # The unit is written for the first ratio only.
        behind = "" if ratio is None else f" ({number(ratio)}{'' if parts else ' times as far as Gaussian weights'})"
        parts.append(f"x = {number(x)} within {delta:g}{behind}")
    return ", ".join(parts)


def decay(found: Decay) -> str:
    """Decay law of the tail: ``power law, exponent 2.4 (Vuong 3.1, 412 eigenvalues beyond x = 4.2)``."""
    one = found.exceedances == 1
    place = f"{counted(found.exceedances, 'eigenvalue')} beyond x = {number(found.threshold)}"
    if found.statistic is None:
        return f"undecided: {place} {'is' if one else 'are'} too few to decide"
    exponential, power = f"exponential, rate {number(found.rate)}", f"power law, exponent {number(found.exponent)}"
    laws = {"exponential": exponential, "power": power}
    law = laws.get(found.law, f"undecided: {exponential} or {power}")
    return f"{law} (Vuong {number(found.statistic)}, {place})"


def differences(found: Contrast | None, a: str, b: str) -> tuple[str, ...]:
    """Sentences on where models ``a`` and ``b`` differ: location, depth, layers, blocks of the fingerprint."""
    if found is None:
        return ("The differences are unknown: the spectra of at least one model are not stored.",)
    if not any(share for _, share in found.shares):
        return ("Their spectra and shapes are the same.",)
    return (
        _location(found, a, b),
        "Layers that differ most from the other network at the same depth (decades of x):",
        f"  {a}: {_layers(found.layers_a)}",
        f"  {b}: {_layers(found.layers_b)}",
        f"Shares of the layered l1 distance: {', '.join(f'{name} {percent(part)}' for name, part in found.shares)}.",
    )


def _location(found: Contrast, a: str, b: str) -> str:
    more, less = (a, b) if found.difference > 0 else (b, a)
    return (
        f"Spectra differ most at x = {number(found.location)}: {percent(abs(found.difference))} more of {more} than of "
        f"{less} lies below. By depth, they differ most near {found.depth:g}, by {number(found.depth_distance)} "
        "decades of x."
    )


def _layers(layers: Sequence[LayerContrast]) -> str:
    return ", ".join(f"{x.name} ({number(x.distance)} at {x.depth:.2f})" for x in layers) or "none"
