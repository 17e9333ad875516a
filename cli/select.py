"""``archreg select``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.empty_answers import show_removals
from registry.cli.options import AsJson, Database, Limit, filters, open_registry, question, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Choice, Selection

__all__ = ["select"]

UNDER = "  "
"""Before the names of models that stand under the smallest of their class."""


@with_options(question=question, filters=filters)
def select(
    aim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AIM",
            help="max:top1@cifar10, min:params, min:bytes, min:gflops or min:distance. Repeatable.",
            show_default="the metric bounded, or known of most; few parameters",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Only models equivalent to this one: a stored name, a file, a reference."),
    ] = None,
    k: Limit = 20,
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Find the models worth choosing from under constraints: those that no other beats in every aim.

    Equivalent ones are one class, shown by its smallest; the others that no model beats stand under it, set in. Models
    that have no figure for an aim are left out, and how many is said. Where nothing is left, what each constraint
    removed is shown, and which one, dropped, would help; the exit code is still 0.
    """
    with open_registry(db) as registry:
        found = registry.select(aims=tuple(aim or ()), like=like, k=k, **question, **filters)
    if as_json:
        json_output.write(json_output.selection(found))
        return
    _show(found)


def _show(found: Selection) -> None:
    of = f" and are equivalent to {found.like.name}" if found.like else ""
    passes = "passes" if found.passed == 1 else "pass"
    tables.say(f"{tables.whole(found.passed)} of {tables.counted(found.models, 'model')} {passes} the constraints{of}")
    if not found.classes:
        show_removals(found.removals)
        return
    for aim, count in found.unknown:
        verb = "is" if count == 1 else "are"
        tables.say(f"{tables.whole(count)} of them {verb} left out: no figure is known for {aim}")
    aims = " and ".join(aim.label for aim in found.aims)
    classes = tables.counted(found.count, "class")
    tables.say(f"{tables.whole(found.on_front)} that none beats in {aims}, in {classes} of equivalents:")
    metrics = [
        (number, aim) for number, aim in enumerate(found.aims) if aim.what not in ("parameters", "bytes", "gflops")
    ]
    shown = [(number, aim) for number, aim in metrics if aim.what != "distance"]
    columns = (
        "name",
        *(f">{aim.place}" for _, aim in shown),
        ">parameters",
        ">size",
        ">gigaflops",
        ">distance",
        "licence",
    )
    tables.table(columns, _rows(found, [number for number, _ in shown]))
    if found.count > len(found.classes):
        tables.say(f"and {tables.counted(found.count - len(found.classes), 'class')} more; -k shows more")
    chosen = (choice.model for group in found.classes for choice in (group.best, *group.others))
    tables.say(*verdict_text.approximate(*((found.like,) if found.like else ()), *chosen))
    if found.like:
        tables.say(verdict_text.judged(found, found.searched))
    else:
        tables.say(
            f"{verdict_text.basis(found.spec, found.distance, found.tolerance)}, "
            f"{verdict_text.calibrated(found.calibration)}"
        )


def _rows(found: Selection, metrics: list[int]) -> Iterator[tuple[str, ...]]:
    for group in found.classes:
        yield _row(group.best, metrics)
        for other in group.others:
            name, *rest = _row(other, metrics)
            yield (UNDER + name, *rest)


def _row(choice: Choice, metrics: list[int]) -> tuple[str, ...]:
    model = choice.model
    return (
        model.name,
        *(f"{choice.values[number]:g}" for number in metrics),
        tables.whole(model.parameters),
        tables.size(model.bytes),
        "" if model.gflops is None else tables.number(model.gflops),
        "" if choice.distance is None else tables.number(choice.distance),
        model.licence,
    )
