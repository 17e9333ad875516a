"""Commands that change stored models: ``set``, ``tag``, ``rename``, ``rm``, ``refingerprint``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables
from registry.cli.error_output import harmless
from registry.cli.option_values import parse_amount, parse_metric, parse_pair
from registry.cli.options import AsJson, Database, named_fingerprint, open_registry
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry.types import ModelSummary

__all__ = ["refingerprint", "remove", "rename", "set_values", "tag"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a stored model.")]


def _text(help_text: str) -> Any:
    return typer.Option(metavar="TEXT", help=help_text)


def set_values(
    name: Name,
    family: Annotated[str | None, _text("Family: resnet, vit, ...")] = None,
    architecture: Annotated[str | None, _text("Architecture: resnet20, ...")] = None,
    task: Annotated[str | None, _text("Task of the model.")] = None,
    dataset: Annotated[str | None, _text("Training dataset.")] = None,
    licence: Annotated[str | None, _text("Licence of the weights.")] = None,
    training: Annotated[str | None, _text("How it was trained.")] = None,
    recipe: Annotated[str | None, _text("Reference to a description of the training.")] = None,
    revision: Annotated[str | None, _text("Revision of the weights at the source.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the training.")] = None,
    gflops: Annotated[
        float | None, typer.Option(parser=parse_amount, metavar="X", help="Gigaflops of a forward pass.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC", help="Metric: 'top1=92.6', 'top1@cifar10/test=92.63'. Repeatable."),
    ] = None,
    lower_is_better: Annotated[
        bool | None,
        typer.Option("--lower-is-better/--higher-is-better", help="Direction of the given metrics."),
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Set a model's metadata or metrics. An empty text clears a value. Setting a metric again replaces its value."""
    given = {
        "family": family,
        "architecture": architecture,
        "task": task,
        "dataset": dataset,
        "licence": licence,
        "training": training,
        "recipe": recipe,
        "revision": revision,
        "seed": seed,
        "gflops": gflops,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    better = None if lower_is_better is None else not lower_is_better
    figures = [parse_metric(text, higher_is_better=better) for text in metric or ()]
    if not changes and not figures:
        raise UsageError("nothing to set", "archreg set NAME --family TEXT, or --metric 'top1=92.6'")
    with open_registry(db) as registry:
        summary = registry.set(name, **changes) if changes else None
        for figure in figures:
            summary = registry.set_metric(name, figure)
    if summary is not None:
        _tell("Set", summary, as_json=as_json)


def _tell(done: str, summary: ModelSummary, *, as_json: bool) -> None:
    if as_json:
        json_output.write({"model": summary})
        return
    known = {
        "family": summary.family,
        "architecture": summary.architecture,
        "task": summary.task,
        "dataset": summary.dataset,
        "licence": summary.licence,
        "gigaflops": "" if summary.gflops is None else tables.number(summary.gflops),
        "metrics": tables.metrics(summary.metrics),
    }
    facts = ", ".join(f"{key} {value}" for key, value in known.items() if value)
    tables.say(f"{done} {summary.name}: {facts}." if facts else f"{done} {summary.name}.")


def tag(
    name: Name,
    pairs: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Tags to set.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="Tag to remove. Repeatable.")
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Set or remove a model's tags. Without changes, show them."""
    changes: dict[str, str | None] = dict(parse_pair(pair, "KEY=VALUE") for pair in pairs or ())
    changes |= dict.fromkeys(remove or ())
    with open_registry(db) as registry:
        tags = registry.tag(name, **changes)
    if as_json:
        json_output.write({"name": name, "tags": dict(tags)})
    else:
        held = ", ".join(f"{key}={value}" for key, value in tags)
        tables.say(f"Tags of {name}: {held}." if held else f"{name} has no tags.")


def rename(
    old: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Rename a model."""
    with open_registry(db) as registry:
        summary = registry.rename(old, new)
    _tell(f"Renamed {old} to", summary, as_json=as_json)


def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Remove a model with all its names, spectra and fingerprints. The weight files are not touched."""
    with open_registry(db) as registry:
        if not yes and not _confirmed(registry.show(name).summary):
            tables.hint("Nothing was removed.")
            return
        summary = registry.remove(name)
    if as_json:
        json_output.write({"removed": summary})
    else:
        tables.say(f"Removed {', '.join(summary.names) or summary.name}.")


def _confirmed(model: ModelSummary) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"removing '{model.name}' needs confirmation", f"archreg rm {model.name} --yes")
    sys.stderr.write(f"Remove {harmless(', '.join(model.names) or model.name)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def refingerprint(
    fingerprint: Annotated[
        str | None, named_fingerprint(help="Only this fingerprint.", show_default="all shipped")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compute what is missing from the stored spectra.

    It computes missing fingerprints. It also computes conjugacy figures, training classes and tail classes that another
    version computed with other thresholds. After an interruption, run it again.
    """
    with open_registry(db) as registry:
        done = registry.refingerprint(fingerprint=fingerprint, progress=None if quiet else _counter)
    if as_json:
        json_output.write({"computed": done.fingerprints, "judged": done.conjugacy})
        return
    classes = f" and the conjugacy of {tables.counted(done.conjugacy, 'model')}" if done.conjugacy else ""
    tables.say(f"Computed {tables.counted(done.fingerprints, 'fingerprint')}{classes}.")


def _counter(finished: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{finished}/{tables.counted(total, 'model')}" + ("\n" if finished == total else ""))
    elif finished == total or finished % 1000 == 0:
        sys.stderr.write(f"{finished}/{tables.counted(total, 'model')}\n")
