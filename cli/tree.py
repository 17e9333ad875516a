"""Command ``tree``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.cli import json_output, tables
from registry.cli.empty_answers import unmatched_texts
from registry.cli.options import AsJson, Database, filters, open_registry, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import RelationForest, RelationTree

__all__ = ["tree"]


@with_options(filters=filters)
def tree(
    style: Annotated[
        Literal["text", "dot"],
        typer.Option("--format", help="Text, or a graph for Graphviz: archreg tree | dot -Tsvg."),
    ] = "text",
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Show which stored models are related, as trees of highest correlations.

    The oldest stored model of each tree stands first. No direction of descent is claimed. At most 10,000 models.
    """
    with open_registry(db) as registry:
        found = registry.tree(**filters)
        unmatched = {} if found.compared or found.unsketched else registry.unmatched(**filters)
    if as_json:
        json_output.write({**json_output.forest(found), **json_output.unmatched(unmatched)})
    elif style == "dot":
        tables.lines(*_dot(found))
    else:
        _show(found)
        tables.say(*unmatched_texts(filters, unmatched))


def _show(found: RelationForest) -> None:
    for each in found.trees:
        tables.lines(*_branches(each))
    count, compared = len(found.trees), tables.counted(found.compared, "model")
    if count:
        tables.say(
            f"{tables.counted(count, 'tree')} among {compared}, with the correlation r of each edge. The oldest stored "
            "stands first: no direction is claimed."
        )
    else:
        tables.say(f"No two of {compared} are related.")
    if found.alone and count:
        tables.say(f"{tables.counted(found.alone, 'model')} {_have(found.alone)} no relatives.")
    if found.unsketched:
        left_out = "was" if found.unsketched == 1 else "were"
        tables.say(
            f"{tables.counted(found.unsketched, 'model')} {left_out} left out: no sketches; ingest their weights."
        )


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _branches(given: RelationTree) -> Iterator[str]:
    """Lines of a tree with box characters; a deep tree is walked without recursion."""
    below: dict[str, list[tuple[str, str]]] = {}
    for edge in given.edges:
        below.setdefault(edge.a, []).append((edge.b, edge.relation.short))
    root = given.models[0].name
    yield root
    waiting = [(name, label, "", at == 0) for at, (name, label) in enumerate(reversed(below.get(root, [])))]
    while waiting:
        name, label, margin, last = waiting.pop()
        yield f"{margin}{'└─' if last else '├─'} {label}  {name}"
        inner = margin + ("   " if last else "│  ")
        children = reversed(below.get(name, []))
        waiting += [(child, of, inner, at == 0) for at, (child, of) in enumerate(children)]


def _dot(found: RelationForest) -> list[str]:
    """The trees as an undirected graph in Graphviz's language."""
    lines = ["graph relations {", "  node [shape=box];"]
    for each in found.trees:
        lines += [f"  {_quoted(model.name)};" for model in each.models]
        lines += [
            f"  {_quoted(edge.a)} -- {_quoted(edge.b)} [label={_quoted(edge.relation.short)}];" for edge in each.edges
        ]
    return [*lines, "}"]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
