"""Command ``select``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import show_removals
from registry.cli.options import (
    AmongRegistries,
    AsJson,
    Database,
    Limit,
    filters,
    note_on_registries,
    open_among,
    open_registry,
    question,
    several_registries,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.types import Aim, Choice, ModelSummary, Selection

__all__ = ["select"]

SIZES = {"parameters": "parameters", "bytes": "bytes", "gflops": "gigaflops", "gmacs": "multiply-adds"}
"""Aims that are sizes, in words."""
UNDER = "  "
"""Indent of the models listed below the smallest of their equivalence class."""


@with_options(question=question, filters=filters)
def select(
    aim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AIM",
            help="Aim: max:top1@cifar10, min:params, min:bytes, min:gflops or min:distance; of the catalogue min:gmacs "
            "(multiply-adds) in place of gflops. Repeatable.",
            show_default="the filtered metric, else the most common one; and min:params",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Only models equivalent to this one: stored name, file or reference."),
    ] = None,
    k: Limit = 20,
    db: Database = None,
    among: AmongRegistries = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find the Pareto front of the aims among the models that pass the constraints.

    Equivalent models of the front form one equivalence class. Its smallest model is listed first, the others below it,
    indented. Models with an unknown value for an aim are left out and counted. If no model is left, the effect of each
    constraint is shown; the exit code is 0.

    With --db catalogue: each row is an architecture at an image size, with the published weights that are the best by
    the first metric that is an aim or bounded. A metric without a data set is then one on that of --dataset.
    """
    names = several_registries(db, among)
    with open_among(names) if names else open_registry(db) as registry:
        found = registry.select(aims=tuple(aim or ()), like=like, k=k, **question, **filters)
    if as_json:
        json_output.write(json_output.selection(found))
    else:
        _show(found, like)
    tables.hint(*note_on_registries(db, among))


def _show(found: Selection, like: str | None) -> None:
    passes, are = ("passes", "is") if found.passed == 1 else ("pass", "are")
    told = f"{passes} the constraints"
    if found.like:
        models = [found.like, *(group.best.model for group in found.classes)]
        told = f"{passes} and {are} {verdict_text.alike_to(models, _named(found.like, like))}"
    tables.say(f"{tables.whole(found.passed)} of {tables.counted(found.models, found.unit)} {told}.")
    tables.say(*verdict_text.assumed(found), *verdict_text.older(found.older, alone=not found.like))
    if not found.classes:
        show_removals(found.removals, found.unit)
        return
    places = {aim.label: aim.place for aim in found.aims}
    for label, count in found.unknown:
        were = "was" if count == 1 else "were"
        tables.say(f"{tables.counted(count, found.unit)} {were} left out: {places[label]} is unknown.")
    front = tables.counted(found.on_front, found.unit)
    if found.unit == "model":
        front += f" in {tables.counted(found.count, 'equivalence class')}"
    tables.say(f"Pareto front ({' and '.join(map(_goal, found.aims))}): {front}.")
    metrics = [(number, aim) for number, aim in enumerate(found.aims) if aim.what not in SIZES]
    shown = [(number, aim) for number, aim in metrics if aim.what != "distance"]
    by = _deciding(found, [aim.place for _, aim in shown])
    columns = (
        "name",
        "registry",
        ">pixels",
        *(f">{aim.place}" for _, aim in shown),
        *(f">{place}" for place in by),
        ">parameters",
        ">size",
        ">gigaflops",
        ">giga multiply-adds",
        ">distance",
        "expected change",
        "licence",
        "weights",
    )
    tables.table(columns, _rows(found, [number for number, _ in shown], by))
    if found.count > len(found.classes):
        hidden = found.count - len(found.classes)
        are = "is" if hidden == 1 else "are"
        noun = "equivalence class" if found.unit == "model" else found.unit
        tables.say(f"{tables.counted(hidden, noun)} {are} not shown; -k shows more.")
    choices = [choice for group in found.classes for choice in (group.best, *group.others)]
    tables.say(*verdict_text.learned(*(choice.expected_change for choice in choices)))
    chosen = [choice.model for choice in choices]
    chosen[:0] = [found.like] if found.like else []
    if found.unit == "row":
        tables.say(*_sources(choices))
    if found.unit == "model" or found.like:
        tables.say(*verdict_text.approximate(*chosen), *verdict_text.incomplete(*chosen))
    if found.like:
        tables.say(verdict_text.expected(found, found.searched))
    elif found.unit == "model":
        tables.say(
            f"Compared by {verdict_text.basis(found.spec, found.distance, found.tolerance)}, "
            f"{verdict_text.calibrated(found.calibration)}."
        )


def _named(model: ModelSummary, asked: str | None) -> str:
    """The model as it was asked for, with its name where it is stored under another."""
    if not asked or not model.created or asked in (model.name, *model.names):
        return model.name
    return f"{asked} (stored as {model.name})"


def _goal(aim: Aim) -> str:
    """An aim in words: ``fewest parameters``, ``smallest distance``, ``highest top1@cifar10``."""
    if aim.what in SIZES:
        return f"{'most' if aim.maximise else 'fewest'} {SIZES[aim.what]}"
    if aim.what == "distance":
        return f"{'largest' if aim.maximise else 'smallest'} distance"
    return f"{'highest' if aim.maximise else 'lowest'} {aim.place}"


def _deciding(found: Selection, aims: list[str]) -> list[str]:
    """Metrics by which published weights were chosen and that are no aims."""
    entries = [group.best.model.catalogue for group in found.classes]
    by = dict.fromkeys(entry.chosen_by for entry in entries if entry and entry.chosen_by)
    return [place for place in by if place not in aims]


def _sources(choices: Sequence[Choice]) -> Iterator[str]:
    """What a row is, and who states its numbers."""
    entries = [choice.model.catalogue for choice in choices if choice.model.catalogue]
    if entries:
        yield "A row is an architecture at an image size with its best weights that pass: archreg ingest WEIGHTS."
    metrics = {metric.source for choice in choices for metric in choice.model.metrics if metric.source}
    stated = {
        "metrics": sorted(metrics),
        "multiply-adds": sorted({entry.gmacs_source for entry in entries if entry.gmacs_source}),
        "licences": sorted({entry.weights.licence_source for entry in entries if entry.weights} - {""}),
    }
    told = [f"{what} from {', '.join(names)}" for what, names in stated.items() if names]
    if told:
        yield tables.sentence("; ".join(told))


def _rows(found: Selection, metrics: list[int], by: list[str]) -> Iterator[tuple[str, ...]]:
    for group in found.classes:
        yield _row(group.best, metrics, by, found.like)
        for other in group.others:
            name, *rest = _row(other, metrics, by, found.like)
            yield (UNDER + name, *rest)


def _expected(choice: Choice, like: ModelSummary | None) -> str:
    """The expected change of a metric of ``like``; empty where a metric of both is stored, which tells the change."""
    if like is None or choice.expected_change is not None:
        return verdict_text.expectation(choice.expected_change)
    places = {metric.place for metric in like.metrics}
    return "not known" if places and places.isdisjoint(metric.place for metric in choice.model.metrics) else ""


def _row(choice: Choice, metrics: list[int], by: list[str], like: ModelSummary | None) -> tuple[str, ...]:
    model, entry = choice.model, choice.model.catalogue
    return (
        model.name,
        ", ".join(model.registries),
        str(entry.image_size) if entry and entry.image_size else "",
        *(f"{choice.values[number]:g}" for number in metrics),
        *(_score(model, place) for place in by),
        tables.whole(model.parameters),
        tables.size(model.bytes),
        "" if model.gflops is None else tables.number(model.gflops),
        "" if entry is None or entry.gmacs is None else tables.number(entry.gmacs),
        "" if choice.distance is None else tables.number(choice.distance),
        _expected(choice, like),
        model.licence,
        entry.weights.reference if entry and entry.weights else "",
    )


def _score(model: ModelSummary, place: str) -> str:
    """The value of the metric at a place; a place without split, or name alone, is that of the first such metric."""
    for metric in model.metrics:
        if place in (metric.place, f"{metric.name}@{metric.dataset}", metric.name):
            return f"{metric.value:g}"
    return ""
