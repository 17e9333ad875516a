"""Options that several commands share, and how their texts become values.

Groups of options reach a command as one argument each (`with_options`): ``question`` (fingerprint, distance,
tolerance) or ``measure`` (without the tolerance), ``filters`` (which models take part) and ``card`` (what is known of a
model).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.option_values import (
    metavar_of,
    one_of,
    parse_amount,
    parse_bound,
    parse_bytes,
    parse_fingerprint,
    parse_pair,
    parse_params,
)
from registry.extensions import DISTANCES, FINGERPRINTS
from registry.types import MetricBound, ModelCard

if TYPE_CHECKING:
    from registry import Registry

__all__ = [
    "AsJson",
    "Database",
    "Fingerprint",
    "Limit",
    "Query",
    "card",
    "filters",
    "is_given",
    "measure",
    "named_fingerprint",
    "open_registry",
    "question",
    "question_of_all",
    "question_of_two",
    "with_options",
]


def _inherited(context: typer.Context, value: str | None) -> str | None:
    """The command's own --db, else the one given before the command."""
    return context.find_root().params.get("db") if value is None else value


Database = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", callback=_inherited, help="Database; else ARCHREG_DB, else archreg.db here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
Query = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A stored name, a file, or a reference such as timm:resnet18 or hf:ORG/NAME."),
]
Limit = Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="How many to show.")]

named_fingerprint = functools.partial(typer.Option, parser=parse_fingerprint, metavar=metavar_of(FINGERPRINTS))
"""An option that takes the name of a fingerprint; help shows those of this package."""
Fingerprint = Annotated[
    str,
    named_fingerprint(help="Fingerprint to compare by: resolved by depth, the paper's, or one of another package."),
]
Distance = Annotated[
    str | None,
    typer.Option(
        parser=one_of(DISTANCES),
        metavar=metavar_of(DISTANCES),
        help="Distance between fingerprints.",
        show_default="the fingerprint's own",
    ),
]


def measure(fingerprint: Fingerprint = "layered", distance: Distance = None) -> dict[str, Any]:
    """What distances are of, as keyword arguments of a Registry's questions."""
    return {"fingerprint": fingerprint, "distance": distance}


_tolerance = functools.partial(
    typer.Option, parser=parse_amount, metavar="X", help="Largest distance that still counts as equivalent."
)


def question(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None,
        _tolerance(show_default="calibrated, or less, so that among many one false pass is expected at most"),
    ] = None,
) -> dict[str, Any]:
    """How a look-up judges, as keyword arguments of a Registry's questions."""
    return {**measure(fingerprint, distance), "tolerance": tolerance}


def question_of_two(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None, _tolerance(show_default="calibrated, as two alone are judged: 1 in 100 unrelated pairs pass")
    ] = None,
) -> dict[str, Any]:
    """How two models are judged; as `question`."""
    return question(fingerprint, distance, tolerance)


def question_of_all(
    fingerprint: Fingerprint = "layered",
    distance: Distance = None,
    tolerance: Annotated[
        float | None, _tolerance(show_default="calibrated, however many there are: 1 in 100 unrelated pairs pass")
    ] = None,
) -> dict[str, Any]:
    """How all models are judged, so that classes last as more come; as `question`."""
    return question(fingerprint, distance, tolerance)


def filters(
    family: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models of this family.")] = None,
    architecture: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models of this architecture.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models for this task.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models trained on this data set.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Only models under this licence.")] = None,
    min_params: Annotated[
        int | None, typer.Option(parser=parse_params, metavar="N", help="At least so many parameters: 200k, 1.5M, 1e6.")
    ] = None,
    max_params: Annotated[
        int | None, typer.Option(parser=parse_params, metavar="N", help="At most so many parameters.")
    ] = None,
    min_bytes: Annotated[
        int | None, typer.Option(parser=parse_bytes, metavar="N", help="At least so many bytes: 500k, 2G.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(parser=parse_bytes, metavar="N", help="At most so many bytes.")
    ] = None,
    max_gflops: Annotated[
        float | None, typer.Option(parser=parse_amount, metavar="X", help="At most so many gigaflops a forward pass.")
    ] = None,
    metric: Annotated[
        list[MetricBound] | None,
        typer.Option(
            parser=parse_bound, metavar="BOUND", help="Only models within: 'top1>=92', 'top1@cifar10>=92'. Repeatable."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only models with this tag. Repeatable.")
    ] = None,
) -> dict[str, Any]:
    """Which models take part, as keyword arguments of a Registry's questions; only what was given."""
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
    }
    return {name: value for name, value in given.items() if value is not None}


def card(
    family: Annotated[str | None, typer.Option(metavar="TEXT", help="Family: resnet, vit, ...")] = None,
    architecture: Annotated[str | None, typer.Option(metavar="TEXT", help="Architecture: resnet20, ...")] = None,
    task: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model is for.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="TEXT", help="Data set it was trained on.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Licence of the weights.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Tag to set. Repeatable.")] = None,
) -> ModelCard:
    """What is known of the models besides their weights."""
    return ModelCard(
        family=family or "",
        architecture=architecture or "",
        task=task or "",
        dataset=dataset or "",
        licence=licence or "",
        tags=tuple(parse_pair(text, "--tag") for text in tag or ()),
    )


def with_options(**groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whole groups of options.

    Parameters
    ----------
    **groups
        By the name of the command's parameter, the function whose parameters are the options and whose result is the
        argument. Typer sees the command's other parameters followed by the groups'.
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
    """Whether an option was written on the command line, be it with its default's value."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def open_registry(url: str | None) -> Registry:
    """The registry at ``url``; nothing is opened, and the library is not imported, before this is called."""
    from registry import Registry

    return Registry(url)
