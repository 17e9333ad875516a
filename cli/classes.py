"""Command ``classes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import unmatched_texts
from registry.cli.option_values import metavar_of, one_of
from registry.cli.options import AsJson, Database, filters, is_given, open_registry, question_of_all, with_options
from registry.errors import UsageError
from registry.extensions import LINKAGE_RULES

if TYPE_CHECKING:
    from registry.types import KeptPartition, ModelClass, Partition

__all__ = ["classes"]

MEMBERS_SHOWN = 8

Rule = Annotated[
    str | None,
    typer.Option(
        parser=one_of(LINKAGE_RULES),
        metavar=metavar_of(LINKAGE_RULES),
        help="Linkage rule. complete, cover: all pairs within a class are within the tolerance; single: chains.",
        show_default="complete up to 10,000 models, cover beyond",
    ),
]
Identity = Annotated[
    str | None,
    typer.Option("--class", metavar="IDENTITY", help="Show one kept equivalence class with all its members."),
]
Kept = Annotated[bool, typer.Option("--kept", help="List the kept partitions.")]
Forget = Annotated[
    int | None,
    typer.Option(min=1, metavar="NUMBER", help="Forget the kept partition with this number (see --kept)."),
]
Keep = Annotated[
    bool, typer.Option("--keep/--no-keep", help="Keep the equivalence classes and their identities in the database.")
]


@with_options(question=question_of_all, filters=filters)
def classes(
    context: typer.Context,
    rule: Rule = None,
    identity: Identity = None,
    kept: Kept = False,
    forget: Forget = None,
    keep: Keep = True,
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Group the models into equivalence classes.

    If the database is writable, the equivalence classes are kept and read back until a model is added, removed or
    measured again. A class keeps its identity while it shares at least half of its models with its previous state,
    unless its partition is forgotten.
    """
    ways = {"--kept": kept, "--forget": forget is not None, "--class": identity is not None}
    [*others, way] = [name for name, asked in ways.items() if asked] or [""]
    given = [f"--{name.replace('_', '-')}" for name in filters] + ["--rule"] * (rule is not None) + others
    terms = ("fingerprint", "distance", "tolerance", "assume_trained")
    given += [f"--{name.replace('_', '-')}" for name in terms if is_given(context, name)]
    given += ["--keep/--no-keep"] * is_given(context, "keep")
    if way and given:
        raise UsageError(f"{given[0]} cannot be combined with {way}")
    with open_registry(db) as registry:
        if forget is not None:
            _tell_forgotten(registry.partitions.forget(forget), as_json=as_json)
        elif identity is not None:
            _show_class(registry.partitions.get(identity), as_json=as_json)
        elif kept:
            _show_kept(registry.partitions.list(), as_json=as_json)
        else:
            partition = registry.classes(rule=rule, keep=keep, **question, **filters)
            unmatched = {} if partition.models else registry.unmatched(**filters)
            if as_json:
                json_output.write({**json_output.classes(partition), **json_output.unmatched(unmatched)})
            else:
                _show(partition)
                tables.say(*unmatched_texts(filters, unmatched))


def _show(partition: Partition) -> None:
    if not partition.models:
        tables.say("No stored model matches the filters.")
        return
    several = [c for c in partition.classes if len(c.members) > 1]
    alone = len(partition.classes) - len(several)
    tables.say(
        f"{tables.counted(partition.models, 'model')}: {tables.counted(len(several), 'equivalence class')} of several "
        f"models, {tables.counted(alone, 'model')} alone.",
        f"Compared by {verdict_text.basis(partition.spec, partition.distance, partition.tolerance)}.",
        f"Linkage rule: {_rule(partition)}.{_widest(partition)}",
        *verdict_text.assumed(partition),
        *verdict_text.older(partition.older),
    )
    if several:
        rows = [
            (
                c.identity,
                c.medoid,
                tables.whole(len(c.members)),
                _diameter(c),
                c.training_class,
                c.tail_class,
                ", ".join(value for name, value in c.shared if name in ("family", "architecture", "dataset")),
                _members(c),
            )
            for c in several
        ]
        columns = ("class", "medoid", ">models", ">diameter", "training class", "tail class", "in common", "members")
        tables.table(columns, rows)
    pairs = partition.models * (partition.models - 1) // 2
    noun = "pair if it is unrelated" if pairs == 1 else "pairs if all are unrelated"
    tables.say(verdict_text.expected(partition, pairs, noun))
    everyone = [member for c in partition.classes for member in c.members]
    tables.say(*verdict_text.approximate(*everyone), *verdict_text.incomplete(*everyone))
    if partition.note:
        tables.hint(f"The equivalence classes were not kept: {partition.note}.")
    elif partition.kept:
        tables.hint("To show a class with all its members: archreg classes --class IDENTITY")


def _rule(partition: Partition) -> str:
    from registry.equivalence import RULES

    return RULES[partition.rule].title


def _widest(partition: Partition) -> str:
    """The largest diameter, if it exceeds the tolerance."""
    widest = max(partition.classes, key=lambda c: c.diameter, default=None)
    if widest is None or widest.diameter <= partition.tolerance:
        return ""
    return f" The largest diameter is {_diameter(widest)}."


def _diameter(group: ModelClass) -> str:
    return ("<= " if group.bounded else "") + tables.number(group.diameter)


def _members(group: ModelClass) -> str:
    names = [member.name for member in group.members]
    more = f" and {tables.whole(len(names) - MEMBERS_SHOWN)} more" if len(names) > MEMBERS_SHOWN else ""
    return ", ".join(names[:MEMBERS_SHOWN]) + more


def _show_class(partition: Partition, *, as_json: bool) -> None:
    if as_json:
        json_output.write(json_output.classes(partition))
        return
    [group] = partition.classes
    facts = {
        "medoid": group.medoid or "a model that is no longer stored",
        "models": tables.whole(len(group.members)),
        "diameter": _diameter(group),
        "training class": group.training_class,
        "tail class": group.tail_class,
        **dict(group.shared),
        "compared by": verdict_text.basis(partition.spec, partition.distance, partition.tolerance),
        "linkage rule": _rule(partition),
        "undetermined": "judged as trained" if partition.assume_trained else "",
        "created": tables.moment(partition.created),
    }
    tables.table((group.identity, ""), [(fact, value) for fact, value in facts.items() if value])
    rows = [
        (m.name, m.family, tables.whole(m.parameters), tables.size(m.bytes), tables.metrics(m.metrics))
        for m in group.members
    ]
    tables.table(("member", "family", ">parameters", ">size", "metrics"), rows)
    tables.say(*verdict_text.approximate(*group.members), *verdict_text.incomplete(*group.members))


def _tell_forgotten(forgotten: KeptPartition, *, as_json: bool) -> None:
    if as_json:
        json_output.write({"forgotten": forgotten})
        return
    terms = f"{forgotten.fingerprint}, {forgotten.distance}, tolerance {tables.number(forgotten.tolerance)}"
    terms += f", {forgotten.rule}"
    scope = "".join(f", {name} {value}" for name, value in forgotten.scope)
    classes, models = tables.counted(forgotten.classes, "equivalence class"), tables.counted(forgotten.models, "model")
    tables.say(f"Forgot {classes} of {models} ({terms}{scope}).")


def _show_kept(partitions: tuple[KeptPartition, ...], *, as_json: bool) -> None:
    if as_json:
        json_output.write({"partitions": partitions})
        return
    if not partitions:
        tables.hint("No equivalence classes are kept. Make them: archreg classes")
        return
    rows = [
        (
            str(p.id),
            tables.moment(p.created),
            f"{p.fingerprint}, {p.distance}",
            tables.number(p.tolerance),
            p.rule,
            tables.whole(p.models),
            tables.whole(p.classes),
            ", ".join(f"{name} {value}" for name, value in p.scope),
        )
        for p in partitions
    ]
    columns = (">number", "created", "compared by", ">tolerance", "rule", ">models", ">equivalence classes", "filters")
    tables.table(columns, rows)
