"""Questions: ``nearest``, ``compare``, ``classes``, ``compress``, ``distances``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import arrays, jsonout, tables, verdicts
from registry.cli.options import AsJson, Database, filters, measure, open_registry, question, with_options
from registry.cli.values import parse_ratio

if TYPE_CHECKING:
    from registry.types import Candidate, Comparison, Compression, Conjugacy, ModelSummary, Neighbour, Partition, Search

__all__ = ["classes", "compare", "compress", "distances", "nearest"]

MEMBERS_SHOWN = 8

Query = Annotated[
    str, typer.Argument(metavar="MODEL", help="A stored name, a file, or a reference such as torchvision:resnet18.")
]
Limit = Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="How many to show.")]


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
    tables.say(verdicts.judged(found.accuracy, found.rate, found.searched))


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
        tables.percent(verdict.closer_than),
        verdicts.why(verdict),
        tables.metrics(model.metrics),
    )


@with_options(question=question)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A stored name, a file or a reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
) -> None:
    """Say whether two models are equivalent within the accuracy, with the evidence. The exit code is 0 either way."""
    with open_registry(db) as registry:
        compared = registry.compare(a, b, **question)
    if as_json:
        jsonout.write(jsonout.comparison(compared))
        return
    tables.say(
        f"{compared.a.name} and {compared.b.name}: {verdicts.why(compared.verdict)}",
        verdicts.sentence(compared.verdict),
        verdicts.basis(compared.spec, compared.metric, compared.verdict.accuracy)
        + "; distances: "
        + ", ".join(f"{metric} {tables.number(distance)}" for metric, distance in compared.distances),
        *verdicts.differences(compared),
    )
    _show_sides(compared)


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
        "data set": model.dataset,
        "parameters": tables.whole(model.parameters),
        "size": tables.size(model.bytes),
        "layers": tables.whole(model.layers),
        "metrics": tables.metrics(model.metrics),
        "training class": conjugacy.training_class if conjugacy else model.training_class,
        "tail class": conjugacy.tail_class if conjugacy else model.tail_class,
        **{f"conjugate within {delta:g} from x =": tables.number(x) for delta, x in tail.items()},
        "widths of the Wishart band": tables.number(conjugacy.z) if conjugacy else "",
        "tail decays as": conjugacy.decay.law if conjugacy and conjugacy.decay else "",
        "topology": model.topology,
    }


@with_options(question=question, filters=filters)
def classes(
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Sort the models into classes within which every two are equivalent within the accuracy."""
    with open_registry(db) as registry:
        partition = registry.classes(**question, **filters)
    if as_json:
        jsonout.write(jsonout.classes(partition))
        return
    _show_classes(partition)


def _show_classes(partition: Partition) -> None:
    several = [c for c in partition.classes if len(c.members) > 1]
    alone = len(partition.classes) - len(several)
    tables.say(
        f"{tables.whole(partition.models)} models, {len(several)} classes of several, {alone} models alone: "
        + verdicts.basis(partition.spec, partition.metric, partition.accuracy)
    )
    if several:
        rows = [
            (
                c.medoid,
                str(len(c.members)),
                tables.number(c.diameter),
                f"{c.training_class} {c.tail_class}",
                _members(c),
            )
            for c in several
        ]
        tables.table(("around", ">models", ">diameter", "classes", "members"), rows)
    pairs = partition.models * (partition.models - 1) // 2
    tables.say(verdicts.judged(partition.accuracy, partition.rate, pairs, "pairs, were all unrelated"))


def _members(group: Any) -> str:
    names = [member.name for member in group.members]
    more = f" and {len(names) - MEMBERS_SHOWN} more" if len(names) > MEMBERS_SHOWN else ""
    return ", ".join(names[:MEMBERS_SHOWN]) + more


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


@with_options(measure=measure, filters=filters)
def distances(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.npz", help="File to write.")],
    db: Database = None,
    as_json: AsJson = False,
    *,
    measure: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Write all distances between models to a NumPy file with the arrays names and distances."""
    import numpy as np

    arrays.check_output(output)
    with open_registry(db) as registry:
        names, matrix = registry.distances(**measure, **filters)
    arrays.write_arrays(output, names=np.array(names, dtype=np.str_), distances=matrix)
    if as_json:
        jsonout.write({"file": str(output), "models": len(names), **measure})
    else:
        tables.say(f"wrote the distances between {tables.whole(len(names))} models to {output}")
