"""Command ``compare``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.gate import require_all, show_requirements
from registry.cli.options import AsJson, Database, open_registry, question_of_two, requirements, with_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Comparison, Conjugacy, Finding, ModelSummary

__all__ = ["compare"]


@with_options(required=requirements, question=question_of_two)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Stored name, file or reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Stored name, file or reference of the other model.")],
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Also require spectra by depth as near as those of trainings that differ only in the seed."
        ),
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    required: dict[str, Any],
    question: dict[str, Any],
) -> None:
    """Compare two models: the same weights, related, equivalent, sound? The exit code is 0 whatever the answers.

    With --require, --same-shape or --max-drop it is 4 where one of these does not hold.

    Related models have weights in common: one is a copy or a fine-tune of the other, or both have a common start.
    Equivalent models have the same training class and spectra within the tolerance, which says nothing of descent.
    The tolerance separates families. --strict separates different trainings of one topology.
    """
    with open_registry(db) as registry:
        compared = registry.compare(a, b, strict=strict, audited=True, **required, **question)
    if as_json:
        json_output.write(json_output.comparison(compared))
        require_all(compared)
        return
    a, b = _label(compared.a, compared.asked_a), _label(compared.b, compared.asked_b)
    tables.say(f"{a} and {b} {_judgement(compared)}.")
    tables.table(("question", "answer", "evidence"), _questions(compared))
    tables.say(
        *verdict_text.contradiction(compared),
        verdict_text.evidence(compared.verdict, compared.calibration),
        f"Compared by {verdict_text.basis(compared.spec, compared.distance, compared.verdict.tolerance)}. Distances: "
        + ", ".join(f"{name} {tables.number(distance)}" for name, distance in compared.distances)
        + ".",
        *verdict_text.seeds(compared.verdict),
        *verdict_text.approximate(compared.a, compared.b),
        *verdict_text.incomplete(compared.a, compared.b),
        *verdict_text.differences(compared.contrast, compared.a.name, compared.b.name),
    )
    _show_sides(compared)
    show_requirements(compared)
    require_all(compared)


def _label(model: ModelSummary, asked: str) -> str:
    """The name of a model, with what was written for it."""
    return f"{model.name} ({asked})" if asked else model.name


def _judgement(compared: Comparison) -> str:
    verdict = compared.verdict
    if verdict.equivalent is None:
        return f"cannot be judged: {verdict_text.why(verdict)}"
    if verdict.by_shapes:
        return f"are {verdict_text.why(verdict, compared.a, compared.b)}"
    return "are equivalent" if verdict.equivalent else f"are not equivalent: {verdict_text.unlike(verdict)}"


def _questions(compared: Comparison) -> list[tuple[str, str, str]]:
    """The questions apart: the same weights, a common start, equivalent statistics."""
    verdict, found = compared.verdict, compared.relation
    same = {
        "identical": "the content hashes are equal",
        "permuted": "equal spectra of uncorrelated weights: the same units in another order",
        "no": "the content hashes differ",
        "unknown": "the weights of both must be read",
    }
    rows: list[tuple[str, str, str]] = [("same weights?", compared.same_weights, same[compared.same_weights])]
    if found is not None:
        rows.append(("related?", *verdict_text.relation(found)))
    answer = "not known" if verdict.equivalent is None else "yes" if verdict.equivalent else "no"
    if verdict.by_shapes and verdict.equivalent:
        answer = "not known"
    sides = ((compared.a, compared.conjugacy_a), (compared.b, compared.conjugacy_b))
    trainings = [(figures.training_class if figures else model.training_class) or "unknown" for model, figures in sides]
    classes = f"both {trainings[0]}" if len(set(trainings)) == 1 else " and ".join(trainings)
    tolerance = "no tolerance" if verdict.tolerance is None else f"tolerance {tables.number(verdict.tolerance)}"
    basis = verdict_text.why(verdict, compared.a, compared.b) if verdict.by_shapes else classes
    rows.append(("equivalent?", answer, f"distance {tables.number(verdict.distance)}, {tolerance}; {basis}"))
    rows.append(("sound?", *_soundness(compared)))
    return rows


def _soundness(compared: Comparison) -> tuple[str, str]:
    """Whether an audit finds anything in the two, worst first."""
    sides = ((compared.a, compared.findings_a), (compared.b, compared.findings_b))
    told = [_audited(model, findings) for model, findings in sides]
    every = [finding for _, findings in sides for finding in findings or ()]
    answer, _ = verdict_text.found(every)
    if answer == "yes" and any(findings is None or not model.weights_read for model, findings in sides):
        answer = "not known"
    return answer, "; ".join(told) + (" (archreg audit shows them)" if every else "")


def _audited(model: ModelSummary, findings: Sequence[Finding] | None) -> str:
    if findings is None:
        is_file = not model.id and model.catalogue is None and model.location
        return f"{model.name} was not audited" + (f": archreg audit {shlex.quote(model.location)}" if is_file else "")
    told = verdict_text.found(findings)[1]
    return f"{model.name}: {told}" if model.weights_read else f"{model.name}: weights not read, {told}"


def _show_sides(compared: Comparison) -> None:
    left = _side(compared.a, compared.conjugacy_a)
    right = _side(compared.b, compared.conjugacy_b)
    rows = [(fact, left[fact], right[fact]) for fact in left if left[fact] or right[fact]]
    tables.table(("", compared.a.name, compared.b.name), rows)


def _side(model: ModelSummary, conjugacy: Conjugacy | None) -> dict[str, str]:
    tail = dict(conjugacy.tail) if conjugacy else {}
    return {
        "family": model.family,
        "architecture": model.architecture,
        "dataset": model.dataset,
        "parameters": tables.whole(model.parameters),
        "size": tables.size(model.bytes),
        "layers": tables.whole(model.layers),
        "precision": model.precision,
        "weights": "" if model.weights_read else "not read",
        "metrics": tables.metrics(model.metrics),
        "training class": conjugacy.training_class if conjugacy else model.training_class,
        "tail class": conjugacy.tail_class if conjugacy else model.tail_class,
        **{f"conjugate within {delta:g} from x =": tables.number(x) for delta, x in tail.items()},
        "z, in widths of the Wishart band": tables.number(conjugacy.z) if conjugacy else "",
        "tail decays as": conjugacy.decay.law if conjugacy and conjugacy.decay else "",
        "topology": model.topology,
    }
