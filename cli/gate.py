"""Command ``check``, and how what was required is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables
from registry.cli.option_values import parse_metric
from registry.cli.options import AsJson, Database, open_registry, question_of_two, requirements, with_options
from registry.errors import UnmetError
from registry.spelling import counted
from registry.types import Metric

if TYPE_CHECKING:
    from registry.types import Comparison

__all__ = ["check", "require_all", "show_requirements"]


@with_options(required=requirements, question=question_of_two)
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File or reference; never a stored name.")],
    against: Annotated[
        str, typer.Option("--against", metavar="MODEL", help="Stored name, file or reference to compare it with.")
    ],
    metric: Annotated[
        list[Metric] | None,
        typer.Option(
            parser=parse_metric, metavar="METRIC=VALUE", help="Metric of FILE: 'top1@cifar10/test=92.6'. Repeatable."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Equivalent also means near by depth; see archreg compare.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    required: dict[str, Any],
    question: dict[str, Any],
) -> None:
    """Compare a file with a model, one line for each requirement. Exit code 4 if one does not hold, 0 if all do.

    The file is measured and not stored. Against another file no database is needed.
    """
    with open_registry(db) as registry:
        compared = registry.gate(file, against, metrics=metric or (), strict=strict, **required, **question)
    if as_json:
        json_output.write(json_output.gate(compared))
    else:
        show_requirements(compared)
    require_all(compared)


def show_requirements(compared: Comparison) -> None:
    """One line for each requirement: whether it holds, and why."""
    for each in compared.requirements:
        tables.say(f"{each.require}: {'met' if each.met else 'not met'}: {each.reason}")


def require_all(compared: Comparison) -> None:
    """Raise ``UnmetError`` if something that was required does not hold."""
    if unmet := compared.unmet:
        required = counted(len(compared.requirements), "requirement")
        a, b = compared.asked_a or compared.a.name, compared.asked_b or compared.b.name
        raise UnmetError(f"{len(unmet)} of {required} not met by {b} against {a}: {', '.join(unmet)}")
