"""Command ``related``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables
from registry.cli.empty_answers import unmatched_texts
from registry.cli.options import AsJson, Database, Limit, Query, filters, open_registry, with_options

if TYPE_CHECKING:
    from registry.types import Related, Relative

__all__ = ["related"]


@with_options(filters=filters)
def related(
    query: Query,
    k: Limit = 10,
    every: Annotated[
        bool, typer.Option("--all", help="Also models that are not related, of those compared exactly.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Find the stored models whose weights correlate with those of a model.

    They have a common start, or one descends from the other: no direction is claimed, and a shared seed is a common
    start, too. Layers of equal shape are compared by sketches of their weights.
    """
    with open_registry(db) as registry:
        found = registry.related(query, k, every=every, **filters)
        nothing = not (found.compared or found.unlike or found.unsketched)
        unmatched = registry.unmatched(**filters) if nothing else {}
    if as_json:
        json_output.write({"query": query, **json_output.plain(found), **json_output.unmatched(unmatched)})
        return
    _show(query, found, every=every)
    tables.say(*unmatched_texts(filters, unmatched))


def _show(query: str, found: Related, *, every: bool) -> None:
    if found.relatives:
        tables.say(f"Models {'compared with' if every else 'related to'} {query} by their weights:")
        columns = ("name", "relation", ">r", ">layers", ">share", "family")
        tables.table(columns, map(_row, found.relatives))
    else:
        tables.say(f"No stored model is related to {query}.")
    shown = sum(each.relation.verdict in ("identical", "permuted", "related") for each in found.relatives)
    if found.found > shown:
        tables.say(f"{tables.counted(found.found - shown, 'more related model')} not shown.")
    tables.say(f"{_were(found.compared)} compared{_by_signs(found)}.")
    if found.unlike:
        tables.say(f"{_were(found.unlike)} left out: fewer than three layers of equal shape.")
    if found.unsketched:
        tables.say(f"{_were(found.unsketched)} left out: no sketches; ingest their weights.")
    if found.cut:
        tables.say(f"{_were(found.cut)} not compared, those with the least in common: too many. Use a filter.")
    if found.unchecked:
        tables.say(
            f"{_were(found.unchecked)} not ruled out by the signs of the sketches, but too many to compare exactly: "
            "those with low correlations may be missing. Use a filter."
        )


def _were(count: int) -> str:
    return f"{tables.counted(count, 'model')} {'was' if count == 1 else 'were'}"


def _by_signs(found: Related) -> str:
    if found.exactly == found.compared:
        return ""
    return f", {tables.whole(found.exactly)} of them exactly; the signs of their sketches ruled out the others"


def _row(relative: Relative) -> tuple[str, ...]:
    relation = relative.relation
    r = tables.number(relation.correlation)
    if relation.error:
        r = f"{relation.correlation:.2f} ± {relation.error:.2f}"
    return (
        relative.model.name,
        relation.verdict,
        r,
        tables.whole(relation.layers),
        tables.percent(relation.share, 0),
        relative.model.family,
    )
