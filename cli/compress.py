"""Command ``compress``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import show_removals
from registry.cli.option_values import parse_ratio
from registry.cli.options import (
    AmongRegistries,
    AsJson,
    Database,
    Limit,
    Query,
    filters,
    note_on_registries,
    open_among,
    open_registry,
    question,
    several_registries,
    with_options,
)
from registry.defaults import default_database
from registry.shipped import is_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Candidate, Compression, ModelSummary

__all__ = ["compress"]


@with_options(question=question, filters=filters)
def compress(
    query: Query,
    max_ratio: Annotated[
        float | None,
        typer.Option(parser=parse_ratio, metavar="X", help="Maximum fraction of the model's parameters: 0.5."),
    ] = None,
    k: Limit = 10,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where each candidate differs: part of the spectrum, depth, layers.")
    ] = False,
    db: Database = None,
    among: AmongRegistries = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find smaller models equivalent to a model: what they save, and which metrics change.

    Smaller refers to the size that --max-ratio, --max-params, --max-bytes or --max-gflops bounds. Without these options
    it refers to parameters, as it does if only --max-gflops is given and the model's gigaflops are unknown. The
    smallest candidate comes first: by gigaflops or bytes if only those are bounded, else by parameters; at equal size,
    the nearest. If no smaller model is equivalent, the nearest smaller models are shown and marked; the exit code is 0.

    A metric change is shown if both models have the metric on the same dataset and split. Else the change to expect is
    shown with its 90 % interval, learned from pairs of stored models that have the metric, where they carry it.

    With --among, at most -k rows rest on weights and at most -k on shapes alone. Without any registry of your own,
    those that ship answer.
    """
    names = several_registries(db, among)
    asked = {"max_ratio": max_ratio, "k": k, "explain": explain, "relations": True, **question, **filters}
    if names:
        with open_among(names) as several:
            both = several.compress(query, **asked)
        answers = [one for one in (both.by_weights, both.by_shapes) if one is not None]
        document = json_output.among_compression(both)
    else:
        with open_registry(db) as registry:
            answers = [registry.compress(query, **asked)]
        document = json_output.compression(answers[0])
    if as_json:
        json_output.write(document)
    else:
        for found in answers:
            _show_compression(found, address="" if names else db or default_database())
            if explain:
                tables.say(*_explanations(found))
    tables.hint(*note_on_registries(db, among))


def _show_compression(found: Compression, *, address: str) -> None:
    """Print one answer. ``address``: the registry that was asked, empty of several."""
    model = found.model
    cost = "" if model.gflops is None else f", {tables.number(model.gflops)} gigaflops"
    tables.say(
        f"{model.name} has {tables.counted(model.parameters, 'parameter')} ({tables.size(model.bytes)}{cost}).",
        f"Compared by {verdict_text.basis(found.spec, found.distance, found.tolerance)}.",
    )
    if found.note:
        tables.say(found.note)
    tables.say(*verdict_text.assumed(found), *verdict_text.older(found.older))
    if not found.candidates:
        if [removal.constraint for removal in found.removals] == [f"smaller than {model.name}"]:
            asked = tables.counted(found.removals[0].removes, "row" if found.spec.name == "shapes" else "model")
            tables.say(f"Of {asked}, none is smaller.")
            return
        tables.say("No smaller model passes the constraints.")
        show_removals(found.removals)
        return
    tables.say(_headline(found))
    columns = (
        "name", "registry", ">parameters", ">saved", ">size", ">saved", ">gigaflops", ">saved", ">distance",
        "verdict" if _by_shapes(found) else "reason", "relation", "metric changes",
    )  # fmt: skip
    known = bool(model.metrics)
    rows = (_candidate(each, model, equivalent=found.equivalent, known=known) for each in found.candidates)
    tables.table(columns, rows)
    best = found.candidates[0]
    tables.say(
        f"{best.model.name} saves {verdict_text.savings(best)}.",
        verdict_text.evidence(best.verdict, found.calibration, found.searched),
    )
    tables.say(*verdict_text.approximate(model, *(candidate.model for candidate in found.candidates)))
    tables.say(*verdict_text.incomplete(model, *(candidate.model for candidate in found.candidates)))
    expected = [candidate.expected_change for candidate in found.candidates]
    tables.say(*verdict_text.learned(*expected))
    tables.say(*verdict_text.equals(model))
    scored = any(expected) or any(candidate.changes for candidate in found.candidates)
    if _by_shapes(found):
        told = verdict_text.alike([model, best.model], equivalent=found.equivalent)
        tables.say(f"{best.model.name} and {model.name} are {told}: what it loses is not known.")
    elif not scored and not all(candidate.model.catalogue for candidate in found.candidates):
        tables.say("The models share no stored metric, so the loss is unknown." + _how_to_set(model, address))


def _how_to_set(model: ModelSummary, address: str) -> str:
    """How to state a metric of a model: empty where nothing can be stored, as in a registry that ships."""
    if not address or is_word(address):
        return ""
    if not model.id:
        return " Store the model and set one: archreg ingest FILE, archreg set NAME --metric top1=92.6"
    return f" Set one: archreg set {shlex.quote(model.name)} --metric top1=92.6"


def _headline(found: Compression) -> str:
    """The line above the table: the number of smaller models, and whether those shown are equivalent."""
    noun = "architecture" if all(candidate.model.catalogue for candidate in found.candidates) else "model"
    told = "equivalent"
    if _by_shapes(found):
        told = verdict_text.alike([found.model, *(candidate.model for candidate in found.candidates)])
    if found.searched == 1:
        return f"The only smaller {noun} is {'' if found.equivalent else 'not '}{told}:"
    among = tables.counted(found.searched, f"smaller {noun}")
    if not found.equivalent:
        return f"None of the {among} is {told}. The nearest are:"
    these = "these are" if len(found.candidates) > 1 else "this one is"
    order = (
        "" if len(found.candidates) == 1 else "; the smallest first" if _by_shapes(found) else ", the smallest first"
    )
    return f"Of the {among}, {these} {told}{order}:"


def _by_shapes(found: Compression) -> bool:
    return any(candidate.verdict.by_shapes for candidate in found.candidates)


def _reason(candidate: Candidate, asked: ModelSummary, *, equivalent: bool) -> str:
    """Why a candidate is not equivalent; of one that is by shapes alone, that."""
    if candidate.verdict.by_shapes:
        return verdict_text.alike((asked, candidate.model), equivalent=equivalent)
    return "" if equivalent else verdict_text.unlike(candidate.verdict)


def _candidate(candidate: Candidate, asked: ModelSummary, *, equivalent: bool, known: bool) -> tuple[str, ...]:
    model = candidate.model
    cost, saved = model.gflops, candidate.gflops_saved
    return (
        tables.named(model),
        ", ".join(model.registries),
        tables.whole(model.parameters),
        tables.percent(candidate.params_saved),
        tables.size(model.bytes),
        tables.percent(candidate.bytes_saved),
        "" if cost is None else tables.number(cost),
        "" if saved is None else tables.percent(saved),
        tables.number(candidate.verdict.distance),
        _reason(candidate, asked, equivalent=equivalent),
        tables.relation(candidate.relation),
        _changes(candidate, known=known),
    )


def _changes(candidate: Candidate, *, known: bool) -> str:
    """Stored changes, and the expected one. ``known``: whether the original has a metric that could change."""
    expected = verdict_text.expectation(candidate.expected_change)
    told = [*map(verdict_text.change, candidate.changes), *([expected] if expected else [])]
    return "; ".join(told) or ("not known" if known else "")


def _explanations(found: Compression) -> Iterator[str]:
    for candidate in found.candidates:
        yield ""
        yield f"{candidate.model.name} compared with {found.model.name}:"
        for sentence in verdict_text.differences(candidate.contrast, found.model.name, candidate.model.name):
            yield f"  {sentence}"
