"""``archreg compress``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import show_removals
from registry.cli.option_values import parse_ratio
from registry.cli.options import AsJson, Database, Limit, Query, filters, open_registry, question, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Candidate, Compression

__all__ = ["compress"]


@with_options(question=question, filters=filters)
def compress(
    query: Query,
    max_ratio: Annotated[
        float | None,
        typer.Option(parser=parse_ratio, metavar="X", help="At most this fraction of the model's parameters: 0.5."),
    ] = None,
    k: Limit = 10,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where each differs: part of the spectrum, depth, layers.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find smaller models equivalent to this one: what they save and what is known to change.

    Smaller in what --max-ratio, --max-params, --max-bytes or --max-gflops bound; in parameters without any of them, and
    where --max-gflops stands alone and the model's own are not known. The best come first: the smallest, in gigaflops
    or bytes where those alone are bounded, else in parameters; of equal size, the nearest. Where none is equivalent,
    the nearest smaller ones are shown, marked as not equivalent, and the exit code is still 0.

    Only a metric that is stored of both models, on the same data set and split, says anything of what is lost.
    """
    with open_registry(db) as registry:
        found = registry.compress(query, max_ratio=max_ratio, k=k, explain=explain, **question, **filters)
    if as_json:
        json_output.write(json_output.compression(found))
        return
    _show_compression(found)
    if explain:
        tables.say(*_explanations(found))


def _show_compression(found: Compression) -> None:
    model = found.model
    cost = "" if model.gflops is None else f", {tables.number(model.gflops)} gigaflops"
    tables.say(
        f"{model.name}: {tables.whole(model.parameters)} parameters, {tables.size(model.bytes)}{cost}; "
        + verdict_text.basis(found.spec, found.distance, found.tolerance)
    )
    if found.note:
        tables.say(found.note)
    if not found.candidates:
        tables.say("no smaller model passes")
        show_removals(found.removals)
        return
    tables.say(_headline(found))
    columns = (
        "name", ">parameters", ">saved", ">size", ">saved", ">gigaflops", ">saved", ">distance", "why not",
        "known changes",
    )  # fmt: skip
    tables.table(columns, (_candidate(candidate, found.equivalent) for candidate in found.candidates))
    best = found.candidates[0]
    evidence = verdict_text.sentence(best.verdict, found.calibration, found.searched)
    tables.say(
        f"{best.model.name} saves {verdict_text.savings(best)}: {evidence} "
        f"({verdict_text.calibrated(found.calibration)})"
    )
    tables.say(*verdict_text.approximate(model, *(candidate.model for candidate in found.candidates)))
    if not any(candidate.changes for candidate in found.candidates):
        tables.say("no stored metric is shared: nothing is known of what would be lost; archreg set NAME --metric ...")


def _headline(found: Compression) -> str:
    """Over the table: among how many smaller models its rows were found, and whether they are equivalent."""
    if found.searched == 1:
        return f"the only smaller model is {'' if found.equivalent else 'not '}equivalent:"
    among = tables.counted(found.searched, "smaller model")
    if not found.equivalent:
        return f"none of the {among} is equivalent; the nearest, not equivalent:"
    several = len(found.candidates) > 1
    return f"of the {among} {'these are equivalent, the best first' if several else 'this one is equivalent'}:"


def _candidate(candidate: Candidate, equivalent: bool) -> tuple[str, ...]:
    model = candidate.model
    cost, saved = model.gflops, candidate.gflops_saved
    return (
        model.name,
        tables.whole(model.parameters),
        tables.percent(candidate.params_saved),
        tables.size(model.bytes),
        tables.percent(candidate.bytes_saved),
        "" if cost is None else tables.number(cost),
        "" if saved is None else tables.percent(saved),
        tables.number(candidate.verdict.distance),
        "" if equivalent else verdict_text.unlike(candidate.verdict),
        "; ".join(map(verdict_text.change, candidate.changes)),
    )


def _explanations(found: Compression) -> Iterator[str]:
    for candidate in found.candidates:
        yield ""
        yield f"{candidate.model.name} against {found.model.name}:"
        for sentence in verdict_text.differences(candidate.contrast, found.model.name, candidate.model.name):
            yield f"  {sentence}"
