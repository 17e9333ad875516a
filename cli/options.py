"""Options that several commands share.

`with_options` passes a group of options to a command as one argument: ``question`` (fingerprint, distance, tolerance,
training classes), ``measure`` (fingerprint and distance), ``filters`` (which models are used) or ``card`` (metadata of
a model).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.option_values import (
    metavar_of,
    one_of,
    parse_amount,
    parse_bound,
    parse_bytes,
    parse_drop,
    parse_fingerprint,
    parse_pair,
    parse_params,
)
from registry.defaults import default_database, no_file
from registry.errors import UsageError
from registry.extensions import DISTANCES, FINGERPRINTS
from registry.shipped import SHIPPED
from registry.types import REQUIREMENTS, Metric, MetricBound, ModelCard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry import Among, Registry

__all__ = [
    "AmongRegistries",
    "AsJson",
    "Database",
    "Fingerprint",
    "Limit",
    "Query",
    "card",
    "filters",
    "is_given",
    "measure",
    "note_on_registries",
    "open_among",
    "several_registries",
    "named_fingerprint",
    "open_registry",
    "question",
    "question_of_all",
    "question_of_two",
    "requirements",
    "with_options",
]


SHIPPED_WORDS = tuple(f"{word}:" for word in SHIPPED)
"""The registries that ship, as they are named."""


def _inherited(context: typer.Context, value: str | None) -> str | None:
    """The --db of the command, else the one given before the command."""
    return context.find_root().params.get("db") if value is None else value


Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        callback=_inherited,
        help="Database: a path, a URL, or what ships, read-only: published:, catalogue:. Default: ARCHREG_DB, else "
        "archreg.db.",
    ),
]
AmongRegistries = Annotated[
    str | None,
    typer.Option(
        "--among",
        metavar="LIST",
        help="Ask several registries at once, in place of --db: published:,catalogue:,team.db. Rows that rest on "
        "weights and rows that rest on shapes alone are kept apart, and each names its registry.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Query = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Stored name, file, or reference: timm:resnet18, hf:ORG/NAME."),
]
Limit = Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="Maximum number of rows.")]

named_fingerprint = functools.partial(typer.Option, parser=parse_fingerprint, metavar=metavar_of(FINGERPRINTS))
"""An option that takes the name of a fingerprint; help shows those of this package."""
Fingerprint = Annotated[
    str,
    named_fingerprint(
        help="Fingerprint: layered (resolved by depth), mme (the paper's), shapes (without weights), or of another "
        "package."
    ),
]
Distance = Annotated[
    str | None,
    typer.Option(
        parser=one_of(DISTANCES),
        metavar=metavar_of(DISTANCES),
        help="Distance between fingerprints.",
        show_default="that of the fingerprint",
    ),
]


def measure(fingerprint: Fingerprint = "layered", distance: Distance = None) -> dict[str, Any]:
    """Fingerprint and distance, as keyword arguments of `Registry` methods."""
    return {"fingerprint": fingerprint, "distance": distance}


_tolerance = functools.partial(
    typer.Option, parser=parse_amount, metavar="X", help="Largest distance of equivalent models."
)


AssumeTrained = Annotated[
    bool,
    typer.Option(
        "--assume-trained",
        help="Judge models of undetermined training class as trained; else each is equivalent to itself alone.",
    ),
]


def question(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None,
        _tolerance(show_default="calibrated; smaller for many models, so that at most one false pass is expected"),
    ] = None,
    assume_trained: AssumeTrained = False,
) -> dict[str, Any]:
    """Fingerprint, distance, tolerance and `AssumeTrained` of a search, as keyword arguments of `Registry` methods."""
    return {**measure(fingerprint, distance), "tolerance": tolerance, "assume_trained": assume_trained}


def question_of_two(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None, _tolerance(show_default="calibrated for one pair: 1 in 100 unrelated pairs pass")
    ] = None,
    assume_trained: AssumeTrained = False,
) -> dict[str, Any]:
    """As `question`, with the default tolerance for two models."""
    return question(fingerprint, distance, tolerance, assume_trained)


def question_of_all(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None, _tolerance(show_default="calibrated, for any number of models: 1 in 100 unrelated pairs pass")
    ] = None,
    assume_trained: AssumeTrained = False,
) -> dict[str, Any]:
    """As `question`, with a default tolerance that does not change as models are added."""
    return question(fingerprint, distance, tolerance, assume_trained)


def requirements(
    require: Annotated[
        list[str] | None,
        typer.Option(
            parser=one_of(REQUIREMENTS),
            metavar=metavar_of(REQUIREMENTS),
            help="What must hold, else the exit code is 4. Repeatable. related: the weights have a common start, also "
            "where units are permuted or all is identical. identical: by content. same-shape: one topology.",
        ),
    ] = None,
    same_shape: Annotated[bool, typer.Option("--same-shape", help="The same as --require same-shape.")] = False,
    max_drop: Annotated[
        list[Metric] | None,
        typer.Option(
            parser=parse_drop,
            metavar="METRIC=DROP",
            help="By how much a metric may be worse: top1=0.5, top1@cifar10=0.5. Both models must have it on one data "
            "set and split. Repeatable.",
        ),
    ] = None,
) -> dict[str, Any]:
    """What must hold of two models, as keyword arguments of `Registry` methods."""
    drops: dict[str, float] = {}
    for each in max_drop or ():
        drops[each.place] = min(each.value, drops.get(each.place, each.value))
    given = [*(require or ()), *(["same-shape"] if same_shape else [])]
    return {name: value for name, value in (("require", given), ("max_drop", drops)) if value}


def filters(
    family: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models of this family.")] = None,
    architecture: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models of this architecture.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models for this task.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models trained on this dataset.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models under this licence.")] = None,
    min_params: Annotated[
        int | None,
        typer.Option(parser=parse_params, metavar="N", help="Minimum number of parameters: 200k, 1.5M, 1e6."),
    ] = None,
    max_params: Annotated[
        int | None, typer.Option(parser=parse_params, metavar="N", help="Maximum number of parameters.")
    ] = None,
    min_bytes: Annotated[
        int | None, typer.Option(parser=parse_bytes, metavar="N", help="Minimum number of bytes: 500k, 2G.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(parser=parse_bytes, metavar="N", help="Maximum number of bytes.")
    ] = None,
    max_gflops: Annotated[
        float | None, typer.Option(parser=parse_amount, metavar="X", help="Maximum gigaflops of a forward pass.")
    ] = None,
    metric: Annotated[
        list[MetricBound] | None,
        typer.Option(
            parser=parse_bound,
            metavar="BOUND",
            help="Only models within a bound: 'top1>=92', 'top1@cifar10>=92'. Repeatable.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only models with this tag. Repeatable.")
    ] = None,
    related_to: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only models whose weights are related to this one, and itself.")
    ] = None,
    unrelated_to: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only models that were not found related to this one.")
    ] = None,
) -> dict[str, Any]:
    """The filters that were given, as keyword arguments of `Registry` methods."""
    given: dict[str, Any] = {
        "family": family,
        "architecture": architecture,
        "task": task,
        "dataset": dataset,
        "licence": licence,
        "min_params": min_params,
        "max_params": max_params,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "max_gflops": max_gflops,
        "metrics": tuple(metric or ()) or None,
        "tags": tuple(parse_pair(text, "--tag") for text in tag or ()) or None,
        "related_to": related_to,
        "unrelated_to": unrelated_to,
    }
    return {name: value for name, value in given.items() if value is not None}


def card(
    family: Annotated[str | None, typer.Option(metavar="TEXT", help="Family: resnet, vit, ...")] = None,
    architecture: Annotated[str | None, typer.Option(metavar="TEXT", help="Architecture: resnet20, ...")] = None,
    task: Annotated[str | None, typer.Option(metavar="TEXT", help="Task of the model.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="TEXT", help="Training dataset.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Licence of the weights.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Tag to set. Repeatable.")] = None,
) -> ModelCard:
    """Metadata of the models that an ingest reads."""
    return ModelCard(
        family=family or "",
        architecture=architecture or "",
        task=task or "",
        dataset=dataset or "",
        licence=licence or "",
        tags=tuple(parse_pair(text, "--tag") for text in tag or ()),
    )


def with_options(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that adds groups of options to a command.

    Parameters
    ----------
    **groups
        The key is a parameter of the command. The value is a function: its parameters are the options, its result is
        the argument. Typer sees the command's other parameters, then those of the groups.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        shared = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            built = {
                name: groups[name](**{option: given.pop(option) for option in options})
                for name, options in shared.items()
            }
            command(**given, **built)

        merged = [parameter for name, parameter in own.items() if name not in groups]
        merged += [parameter for options in shared.values() for parameter in options.values()]
        merged = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in merged]
        run.__dict__["__signature__"] = inspect.Signature(merged, return_annotation=None)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return run

    return decorate


def is_given(context: typer.Context, option: str) -> bool:
    """Whether an option was given on the command line, even with its default value."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def several_registries(db: str | None, among: str | None) -> tuple[str, ...]:
    """The registries of ``--among``; what ships, where nothing is named and there is no default file; else none.

    Raises ``UsageError`` for ``--among`` beside ``--db``, or an empty name in it.
    """
    if among is None:
        alone = db is None and not os.environ.get("ARCHREG_DB") and no_file(default_database())
        return SHIPPED_WORDS if alone else ()
    if db is not None:
        raise UsageError("--db and --among both say what is asked", "name every registry in --among")
    names = tuple(name.strip() for name in among.split(","))
    if not all(names):
        raise UsageError(f"--among {among!r} has an empty name", "write --among published:,catalogue:,team.db")
    return names


def open_among(names: Sequence[str]) -> Among:
    """Several registries as one. The library is imported here and not earlier; nothing is opened yet."""
    from registry import Among

    return Among(*names)


def note_on_registries(db: str | None, among: str | None) -> tuple[str, ...]:
    """Sentences on who answered and how to add a registry of one's own, where nothing was named; else none."""
    if among is not None or not several_registries(db, among):
        return ()
    return (
        f"There is no registry of your own yet: {' and '.join(SHIPPED_WORDS)} answered. Add yours: archreg ingest "
        f"FILE_OR_FOLDER, then --among {','.join(SHIPPED_WORDS)},{default_database()}.",
    )


def open_registry(url: str | None) -> Registry:
    """The registry at ``url``. The library is imported here and not earlier; nothing is opened yet."""
    from registry import Registry

    return Registry(url)
