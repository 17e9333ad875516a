"""Commands that show stored models: ``list``, ``show``, ``stats``, ``spectra``."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import array_files, json_output, tables, verdict_text
from registry.cli.empty_answers import unmatched_texts
from registry.cli.options import AsJson, Database, filters, open_registry, with_options
from registry.errors import EmptyRegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry import Registry
    from registry.types import (
        CatalogueStats,
        Duplicates,
        LayerFigures,
        Membership,
        ModelDetails,
        ModelSummary,
        PublishedWeights,
        Stats,
        WeightsMetric,
    )

__all__ = ["list_models", "show", "spectra", "stats"]

PAGE = 50
"""Rows of the catalogue that are listed where no other number is asked for."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a stored model.")]


@with_options(filters=filters)
def list_models(
    duplicates: Annotated[
        bool,
        typer.Option(
            "--duplicates",
            help="Only models that are there several times: identical, permuted or related, with their places.",
        ),
    ] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "--k", "-k", min=1, metavar="N", help="Maximum number of rows.", show_default="all; of the catalogue 50"
        ),
    ] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, metavar="N", help="Leave out the first N rows.")] = 0,
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """List the stored models that match the filters, or the architectures of the catalogue.

    --duplicates groups them. identical: one model of several names or places; permuted: the same weights with units in
    another order; related: of a common start, which is no waste. Places are those of ingests; no file is looked at.

    -k and --skip show a part of the list. Of the catalogue 50 rows are shown, unless -k or --json asks for others.
    """
    if duplicates and (skip or k is not None):
        raise UsageError("--duplicates lists groups whole", "leave -k and --skip out")
    if duplicates:
        _list_duplicates(db, filters, as_json=as_json)
        return
    with open_registry(db) as registry:
        models = registry.models(**filters)
        unmatched, why = ({}, []) if models else _none(registry, filters)
    noun = "architecture" if models and all(model.catalogue for model in models) else "model"
    most = PAGE if k is None and noun == "architecture" and not as_json else k
    shown = models[skip:] if most is None else models[skip : skip + most]
    if as_json:
        part = {} if len(shown) == len(models) else {"total": len(models), "skipped": skip}
        json_output.write({"models": shown, **part, **json_output.unmatched(unmatched)})
        return
    if shown:
        columns = (
            "name",
            "family",
            ">parameters",
            ">size",
            ">layers",
            "precision",
            "weights",
            "training class",
            "tail class",
            "metrics",
            "format",
            "location",
        )
        tables.table(columns, map(_row, shown))
    if len(shown) < len(models):
        tables.hint(_page(shown, models, noun, skip))
    elif models:
        tables.hint(f"{tables.counted(len(models), noun)}.")
    for sentence in why:
        tables.hint(sentence)


def _page(shown: Sequence[ModelSummary], models: Sequence[ModelSummary], noun: str, skip: int) -> str:
    """Which rows of how many are shown, and how the next are."""
    told = tables.counted(len(models), noun)
    if not shown:
        return f"There are {told}: --skip {skip} leaves out all."
    after = skip + len(shown)
    rest = f"; the next: --skip {after}" if after < len(models) else ""
    return f"{tables.whole(skip + 1)} to {tables.whole(after)} of {told}{rest}."


def _list_duplicates(db: str | None, filters: dict[str, Any], *, as_json: bool) -> None:
    with open_registry(db) as registry:
        found = registry.duplicates(**filters)
    if as_json:
        json_output.write(json_output.duplicates(found))
        return
    if found.groups:
        tables.table(("group", "kind", "model", ">correlation", ">size", "place"), _copies(found))
    else:
        tables.say(f"Of {tables.counted(found.models, 'model')} none is there twice, and none is related to another.")
    if any(group.kind != "related" for group in found.groups):
        tables.say(f"{tables.size(found.freeable)} could be freed by keeping one of each identical or permuted group.")
    if found.unsketched:
        tables.hint(
            f"{tables.counted(found.unsketched, 'model')} without sketches: compared by content alone. "
            "archreg db check lists them."
        )


def _copies(found: Duplicates) -> Iterator[tuple[str, ...]]:
    """A row for each place of each model of each group; what a row shares with the one above is written once."""
    for number, group in enumerate(found.groups, 1):
        head: tuple[str, str] = (str(number), group.kind)
        for member in group.members:
            name = ", ".join(member.model.names) or member.model.name
            r = "" if member.correlation is None else tables.number(member.correlation)
            for place in member.places or (None,):
                size = member.model.bytes if place is None else place.bytes
                yield (*head, name, r, tables.size(size), "" if place is None else place.location)
                head, name, r = ("", ""), "", ""


def _row(model: ModelSummary) -> tuple[str, ...]:
    return (
        ", ".join(model.names) or model.name,
        model.family,
        tables.whole(model.parameters),
        tables.size(model.bytes),
        "" if model.catalogue else tables.whole(model.layers),
        model.precision,
        "" if model.weights_read else "not read",
        model.training_class,
        model.tail_class,
        tables.metrics(model.metrics),
        model.format,
        _place(model),
    )


def _place(model: ModelSummary) -> str:
    """Where the weights were read from, with the entry of a wrapped checkpoint: ``/runs/last.pt[ema]``."""
    return f"{model.location}[{model.entry}]" if model.entry else model.location


def _quoted(model: ModelSummary) -> str:
    return shlex.quote(model.location)


def _none(registry: Registry, filters: dict[str, Any]) -> tuple[Mapping[str, Sequence[str]], list[str]]:
    """Filter values that no model has, and the sentences that explain the empty list."""
    try:
        unmatched = registry.unmatched(**filters)
    except EmptyRegistryError as error:
        return {}, [f"{error.message}; {error.remedy}"]
    return unmatched, ["No stored model matches the filters.", *unmatched_texts(filters, unmatched)]


def show(
    name: Name,
    layers: Annotated[bool, typer.Option("--layers", help="Also show each layer and each tensor left out.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show everything stored about one model: metadata, provenance, spectral figures."""
    with open_registry(db) as registry:
        details = registry.show(name)
    if as_json:
        json_output.write(json_output.plain(details))
        return
    tables.table((details.summary.name, ""), _facts(details))
    if details.summary.catalogue:
        if details.published:
            _show_published(details.published)
        return
    if not layers:
        tables.hint("Add --layers to show each layer.")
        return
    columns = ("layer", "kind", "shape", ">p", ">q", ">mean", ">largest", ">stable rank", ">entropy", "method")
    tables.table(
        columns,
        (
            (x.name, x.kind, tables.layer_shape(x.shape), str(x.p), str(x.q), *_figures(x), x.method or "exact")
            for x in details.layers
        ),
    )
    if details.skipped:
        rows = ((x.name, x.dtype, tables.layer_shape(x.shape), x.reason) for x in details.skipped)
        tables.table(("tensor left out", "dtype", "shape", "reason"), rows)


def _figures(layer: LayerFigures) -> Iterator[str]:
    return map(tables.number, (layer.mean, layer.largest, layer.stable_rank, layer.entropy))


def _facts(details: ModelDetails) -> Iterator[tuple[str, str]]:
    model, conjugacy = details.summary, details.conjugacy
    facts = {
        "names": ", ".join(model.names) if len(model.names) > 1 else "",
        "family": model.family,
        "architecture": model.architecture,
        "task": model.task,
        "dataset": model.dataset,
        "licence": model.licence,
        "parameters": tables.whole(model.parameters),
        "size": tables.size(model.bytes),
        "gigaflops": tables.number(model.gflops) if model.gflops is not None else "",
        "precision": model.precision,
        "format": model.format,
        "location": model.location,
        "entry": model.entry,
        "weights": _weights(model),
        **_entry(details),
        "not read": _part(model.unread, model.parameters),
        "not finite": tables.counted(model.nonfinite, "value") if model.nonfinite else "",
        "layers": f"{tables.whole(model.layers)}, {tables.counted(len(details.skipped), 'tensor')} left out"
        if not model.catalogue
        else "",
        "metrics": tables.metrics(model.metrics),
        "training class": verdict_text.training(conjugacy, details.evidence) if conjugacy else model.training_class,
        "training evidence": verdict_text.training_evidence(details.evidence) if details.evidence else "",
        "sound": _soundness(details),
        "tail class": verdict_text.tail(conjugacy) if conjugacy else model.tail_class,
        "conjugate from": verdict_text.conjugate(conjugacy) if conjugacy else "",
        "tail decays as": verdict_text.decay(conjugacy.decay) if conjugacy and conjugacy.decay else "",
        "member of": ", ".join(map(_membership, details.memberships)),
        "tags": ", ".join(f"{key}={value}" for key, value in details.tags),
        "fingerprints": ", ".join(details.fingerprints),
        "spectra": "stored" if details.has_spectra else "" if model.catalogue else "not stored",
        "approximate": _approximate(model.approximate),
        "source": model.source,
        "revision": details.revision,
        "recipe": details.recipe,
        "training": details.training,
        "seed": "" if details.seed is None else str(details.seed),
        "content hash": model.content_hash if model.weights_read else "",
        "header": "" if model.weights_read else model.content_hash,
        "topology": model.topology,
        "matrix rule": model.matrix_rule,
        "notes": "; ".join(details.notes),
        "stored": _stored(details),
    }
    return ((fact, value) for fact, value in facts.items() if value)


def _soundness(details: ModelDetails) -> str:
    """What the rules of an audit found that look at the model alone; empty where none could be applied."""
    if not details.rules:
        return ""
    answer, told = verdict_text.found(details.findings)
    if answer == "yes" and not details.summary.weights_read:
        answer, told = "not known", f"the weights were not read; {told}"
    again = f"; archreg audit {shlex.quote(details.summary.name)}" if details.findings else ""
    return f"{answer}: {told} by {tables.counted(len(details.rules), 'rule')}{again}"


def _weights(model: ModelSummary) -> str:
    if model.weights_read or model.catalogue:
        return ""
    return f"not read: shapes alone are known; archreg ingest {_quoted(model)}"


def _entry(details: ModelDetails) -> dict[str, str]:
    """What the catalogue states of an architecture; empty for a model."""
    entry = details.summary.catalogue
    if entry is None:
        return {}
    return {
        "built by": entry.code,
        "image size": f"{entry.image_size} pixels" if entry.image_size else "",
        "published weights": f"{tables.whole(len(details.published))}, at their image sizes: below"
        if details.published
        else "none known",
    }


def _show_published(published: Sequence[PublishedWeights]) -> None:
    """A table of published weights, one row for each image size, the best first, on the data set of most metrics."""
    counts = Counter(m.dataset for weights in published for m in weights.metrics)
    [(place, _)] = counts.most_common(1) or [("", 0)]
    rows = []
    for weights in published:
        scored: dict[int | None, list[WeightsMetric]] = {}
        for metric in weights.metrics:
            if metric.dataset == place:
                scored.setdefault(metric.image_size, []).append(metric)
        rows += [(weights, size, metrics) for size, metrics in (scored or {None: []}).items()]
    rows.sort(key=lambda row: -_first(row[2], "top1", *(m.name for m in row[2])))
    columns = ("published weights", "data set", "licence", ">pixels", ">top1", ">top5", "other metrics", ">size")
    tables.table(columns, (_published(*row) for row in rows))
    told = {
        f"metrics on {place}": {m.source for weights in published for m in weights.metrics if m.dataset == place},
        "licences": {weights.licence_source for weights in published},
    }
    said = [f"{what} from {', '.join(sorted(names - {''}))}" for what, names in told.items() if names - {""}]
    if said:
        tables.say(tables.sentence("; ".join(said)))
    if len(counts) > 1:
        others = ", ".join(sorted(counts.keys() - {place}))
        tables.hint(f"Metrics on {others}: --json.")


def _first(metrics: Sequence[WeightsMetric], *names: str) -> float:
    """The value of the first of these metrics that is there; below all others where none is."""
    return next((m.value for name in names for m in metrics if m.name == name), -math.inf)


def _published(weights: PublishedWeights, size: int | None, metrics: Sequence[WeightsMetric]) -> tuple[str, ...]:
    values = {m.name: f"{m.value:g}" for m in metrics}
    return (
        weights.reference,
        weights.dataset,
        weights.licence,
        "" if size is None else str(size),
        values.pop("top1", ""),
        values.pop("top5", ""),
        ", ".join(f"{name} {value}" for name, value in values.items()),
        "" if weights.bytes is None else tables.size(weights.bytes),
    )


def _stored(details: ModelDetails) -> str:
    if not details.summary.created:  # an architecture of the catalogue
        return ""
    return tables.moment(details.summary.created) + (f" by {details.tool_version}" if details.tool_version else "")


def _membership(found: Membership) -> str:
    """A kept equivalence class: ``class 1f0c8a2b9d3e of 12 models (layered v2, l1, tolerance 0.384, complete)``."""
    judged = f"{found.fingerprint}, {found.distance}, tolerance {tables.number(found.tolerance)}, {found.rule}"
    return f"class {found.identity} of {tables.counted(found.members, 'model')} ({judged})"


def _part(count: int, parameters: int) -> str:
    return f"{tables.counted(count, 'weight')} of {tables.whole(parameters)}" if count else ""


def _approximate(count: int) -> str:
    return f"{tables.counted(count, 'layer')}, by stochastic Lanczos quadrature" if count else ""


def stats(db: Database = None, as_json: AsJson = False) -> None:
    """Show counts of models, layers, families, training and tail classes, fingerprints, and the size.

    Of the catalogue: architectures, layouts, published weights, metrics, versions of libraries, and what built it.
    """
    with open_registry(db) as registry:
        held = registry.stats()
    if as_json:
        json_output.write(json_output.plain(held))
        return
    if held.catalogue is not None:
        tables.table(("catalogue", ""), _of_catalogue(held, held.catalogue))
        return
    counts = {
        "families": held.families,
        "training classes": held.training_classes,
        "tail classes": held.tail_classes,
        "fingerprints": held.fingerprints,
    }
    rows = [
        ("models", tables.whole(held.models)),
        ("names", tables.whole(held.names)),
        ("layers", tables.whole(held.layers)),
        *(
            (title, ", ".join(f"{name or 'unknown'} {count:,}" for name, count in pairs))
            for title, pairs in counts.items()
        ),
        ("schema", held.schema_version),
        ("size", tables.size(held.bytes)),
    ]
    tables.table(("registry", ""), rows)


def _of_catalogue(held: Stats, found: CatalogueStats) -> list[tuple[str, str]]:
    libraries = ", ".join(f"{name} {tables.whole(count)}" for name, count in found.libraries)
    rows = [
        ("architectures", f"{tables.whole(found.architectures)}: {libraries}"),
        ("layouts", f"{tables.whole(found.layouts)} distinct state dicts"),
        ("families", tables.whole(len(held.families))),
        ("published weights", tables.whole(found.weights)),
        ("metrics", tables.whole(found.metrics)),
        ("multiply-adds", f"{tables.whole(found.costs)}, each of an architecture at an image size"),
        ("fingerprints", ", ".join(f"{name} {tables.whole(count)}" for name, count in held.fingerprints)),
        ("built with", ", ".join(f"{name} {version}" for name, version in found.versions)),
        ("built by", found.command),
        ("format", held.schema_version),
        ("size", tables.size(held.bytes)),
    ]
    return [(fact, value) for fact, value in rows if value]


def spectra(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.npz", help="Output file.")],
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Write a model's eigenvalues to a NumPy file.

    Arrays, one entry per layer: names, p, q, mean. The eigenvalues of layer l, divided by their mean, are
    values[offsets[l]:offsets[l + 1]].
    """
    array_files.check_output(output)
    with open_registry(db) as registry:
        written = array_files.spectra_arrays(registry.spectrum(name))
    array_files.write_arrays(output, **written)
    layers, values = len(written["names"]), len(written["values"])
    if as_json:
        json_output.write({"file": str(output), "layers": layers, "eigenvalues": values})
    else:
        tables.say(f"Wrote {tables.counted(values, 'eigenvalue')} of {tables.counted(layers, 'layer')} to {output}.")
