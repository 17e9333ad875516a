"""``archreg compress``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import jsonout, tables, verdicts
from registry.cli.options import AsJson, Database, Limit, Query, filters, open_registry, question, with_options
from registry.cli.values import parse_ratio

if TYPE_CHECKING:
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
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find smaller models equivalent to this one: what they save and what is known to change.

    Without --max-ratio, --max-params or --max-bytes, anything smaller than the model counts. Where none is equivalent,
    the nearest smaller ones are shown, marked as not equivalent, and the exit code is still 0.
    """
    with open_registry(db) as registry:
        found = registry.compress(query, max_ratio=max_ratio, k=k, **question, **filters)
    if as_json:
        jsonout.write(jsonout.compression(found))
        return
    _show_compression(found)


def _show_compression(found: Compression) -> None:
    model = found.model
    tables.say(
        f"{model.name}: {tables.whole(model.parameters)} parameters, {tables.size(model.bytes)}; "
        + verdicts.basis(found.spec, found.metric, found.accuracy)
    )
    if not found.candidates:
        tables.say("no smaller model passes the filters")
        return
    if not found.equivalent:
        tables.say(
            f"none of the {tables.whole(found.searched)} smaller models is equivalent; the nearest, not equivalent:"
        )
    columns = ("name", ">parameters", ">saved", ">size", ">saved", ">distance", "verdict", "known changes")
    tables.table(columns, map(_candidate, found.candidates))
    best = found.candidates[0]
    tables.say(f"{best.model.name} saves {verdicts.savings(best)}: {verdicts.sentence(best.verdict, found.searched)}")


def _candidate(candidate: Candidate) -> tuple[str, ...]:
    model = candidate.model
    return (
        model.name,
        tables.whole(model.parameters),
        tables.percent(candidate.params_saved),
        tables.size(model.bytes),
        tables.percent(candidate.bytes_saved),
        tables.number(candidate.verdict.distance),
        verdicts.why(candidate.verdict),
        ", ".join(
            f"{change.name} {change.change:+.3g}" + (f" ({change.dataset})" if change.dataset else "")
            for change in candidate.changes
        ),
    )
