"""``archreg nearest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import jsonout, tables, verdicts
from registry.cli.options import AsJson, Database, Limit, Query, filters, open_registry, question, with_options

if TYPE_CHECKING:
    from registry.types import Neighbour, Search

__all__ = ["nearest"]


@with_options(question=question, filters=filters)
def nearest(
    query: Query,
    k: Limit = 10,
    equivalent: Annotated[
        bool, typer.Option("--equivalent", help="Only models equivalent within the accuracy.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find the models nearest to a stored model, a file or a reference, and say which are equivalent to it."""
    with open_registry(db) as registry:
        found = registry.search(query, k, equivalent=equivalent, **question, **filters)
    if as_json:
        jsonout.write(jsonout.search(query, found))
        return
    tables.say(f"nearest to {query}: {verdicts.basis(found.spec, found.metric, found.accuracy)}")
    _show_neighbours(found, equivalent=equivalent)
    tables.say(verdicts.judged(found.accuracy, found.rate, found.searched, found.calibration))


def _show_neighbours(found: Search, *, equivalent: bool) -> None:
    if not found.neighbours:
        tables.say("none is equivalent within the accuracy" if equivalent else "no other model passes the filters")
        return
    columns = ("name", "family", ">parameters", ">distance", ">closer than", "verdict", "metrics")
    tables.table(columns, map(_neighbour, found.neighbours))


def _neighbour(neighbour: Neighbour) -> tuple[str, ...]:
    model, verdict = neighbour.model, neighbour.verdict
    return (
        model.name,
        model.family,
        tables.whole(model.parameters),
        tables.number(verdict.distance),
        verdicts.closer(verdict),
        verdicts.why(verdict),
        tables.metrics(model.metrics),
    )
