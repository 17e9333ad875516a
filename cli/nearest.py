"""Command ``nearest``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import unmatched_texts
from registry.cli.error_output import report
from registry.cli.option_values import parse_amount
from registry.cli.options import (
    AmongRegistries,
    AsJson,
    Database,
    filters,
    note_on_registries,
    open_among,
    open_registry,
    question,
    several_registries,
    with_options,
)
from registry.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry import Among, Registry
    from registry.types import ModelSummary, Neighbour, Search

__all__ = ["nearest"]

SOME_FAILED = 3


@with_options(question=question, filters=filters)
def nearest(
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Stored name, file, or reference such as torchvision:resnet18; - reads one per line.",
        ),
    ],
    k: Annotated[
        int | None,
        typer.Option(
            "--k", "-k", min=1, metavar="N", help="Maximum number of neighbours.", show_default="10 without a radius"
        ),
    ] = None,
    radius: Annotated[
        float | None, typer.Option(parser=parse_amount, metavar="X", help="Only models within this distance.")
    ] = None,
    equivalent: Annotated[bool, typer.Option("--equivalent", help="Only equivalent models.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Search all models, even if the database has an index.")
    ] = False,
    db: Database = None,
    among: AmongRegistries = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find the models nearest to a stored model, a file or a reference, and show which are equivalent to it.

    With several queries, a query that fails does not stop the others; the exit code is then 3.

    With --among, at most -k rows rest on weights and at most -k on shapes alone; the two are on different scales. In
    JSON all rows are ranked by ratio, the distance over the tolerance of its fingerprint, and say what they rest on.
    Without any registry of your own, those that ship answer.
    """
    asked = _expanded(queries)
    several = len(asked) > 1 or "-" in queries
    wanted = {
        "k": k,
        "radius": radius,
        "equivalent": equivalent,
        "exact": exact,
        "relations": True,
        **question,
        **filters,
    }
    documents: list[dict[str, Any]] = []
    failed, unmatched = False, dict[str, Sequence[str]]()
    names = several_registries(db, among)
    if names:
        wanted.pop("exact")
    with open_among(names) if names else open_registry(db) as registry:
        for query in asked:
            try:
                answers, document, without = _answer(registry, query, wanted, filters)
            except UsageError:
                raise  # the options are wrong for all queries
            except RegistryError as error:
                if not several:
                    raise
                failed = True
                report(error, about=query)
                documents.append({"query": query, "error": error.message, "remedy": error.remedy})
                continue
            unmatched = unmatched or dict(without)
            documents.append(document)
            if not as_json:
                for found in answers:
                    _show(query, found, equivalent=equivalent)
    if any("error" not in document for document in documents):
        tables.hint(*note_on_registries(db, among))
    if as_json:
        json_output.write({**({"queries": documents} if several else documents[0]), **json_output.unmatched(unmatched)})
    else:
        tables.say(*unmatched_texts(filters, unmatched))
    if failed:
        raise typer.Exit(SOME_FAILED)


def _answer(
    asked: Registry | Among, query: str, wanted: dict[str, Any], filters: dict[str, Any]
) -> tuple[list[Search], dict[str, Any], Mapping[str, Sequence[str]]]:
    """The answers to a query by what they rest on, their document, and filter texts that no model of a registry has."""
    from registry import Among

    if isinstance(asked, Among):
        several = asked.nearest(query, **wanted)
        found = [one for one in (several.by_weights, several.by_shapes) if one is not None]
        return found, json_output.among_search(query, several), {}
    one = asked.search(query, **wanted)
    return [one], json_output.search(query, one), {} if one.searched else asked.unmatched(**filters)


def _expanded(queries: Sequence[str]) -> list[str]:
    """The queries, with ``-`` replaced by the lines of standard input. Raises ``UsageError`` if there are none."""
    found: list[str] = []
    for query in queries:
        found += [line.strip() for line in sys.stdin if line.strip()] if query == "-" else [query]
    if not found:
        raise UsageError("standard input contains no model", "write one name per line")
    return found


def _show(query: str, found: Search, *, equivalent: bool) -> None:
    basis = verdict_text.basis(found.spec, found.distance, found.tolerance)
    taken = f" (taken as {found.model.name})" if found.model.catalogue and query != found.model.name else ""
    tables.say(f"Models nearest to {query}{taken}, compared by {basis}:")
    _show_neighbours(found, equivalent=equivalent)
    if found.searched:
        tables.say(verdict_text.expected(found, found.searched))
    tables.say(*verdict_text.approximate(found.model, *(neighbour.model for neighbour in found.neighbours)))
    tables.say(*verdict_text.incomplete(found.model, *(neighbour.model for neighbour in found.neighbours)))
    tables.say(*verdict_text.assumed(found), *verdict_text.older(found.older), *verdict_text.equals(found.model))
    if found.unknown:
        were = "was" if found.unknown == 1 else "were"
        tables.say(f"{tables.counted(found.unknown, 'model')} {were} left out: a filtered value is unknown.")
    if found.indexed:
        tables.say("The index was used, which can miss models; --exact searches all.")
    if found.note:
        of_catalogue = any(neighbour.model.catalogue for neighbour in found.neighbours)
        (tables.say if of_catalogue else tables.hint)(found.note)


def _show_neighbours(found: Search, *, equivalent: bool) -> None:
    if not found.neighbours:
        tables.say(_empty(found, equivalent=equivalent))
        return
    columns = (
        "name",
        "registry",
        "family",
        ">parameters",
        ">distance",
        ">closer than",
        "verdict",
        "relation",
        "metrics",
    )
    tables.table(columns, (_neighbour(found.model, neighbour) for neighbour in found.neighbours))


def _empty(found: Search, *, equivalent: bool) -> str:
    if not found.searched:
        return "No other model matches the filters."
    if equivalent:
        return "No model is equivalent within the tolerance."
    return f"No model is within the radius {tables.number(found.radius)}."


def _neighbour(asked: ModelSummary, neighbour: Neighbour) -> tuple[str, ...]:
    model, verdict = neighbour.model, neighbour.verdict
    return (
        tables.named(model),
        ", ".join(model.registries),
        model.family,
        tables.whole(model.parameters),
        tables.number(verdict.distance),
        verdict_text.closer(verdict),
        verdict_text.why(verdict, asked, model),
        tables.relation(neighbour.relation),
        tables.metrics(model.metrics),
    )
