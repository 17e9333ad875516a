"""Command ``identify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.error_output import report
from registry.cli.options import AmongRegistries, AsJson, Database, open_among, open_registry, several_registries
from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.types import (
        ArchitectureMatch,
        AskedRegistry,
        Identification,
        Identified,
        PublishedWeights,
        Recognised,
        Relative,
        TensorDifference,
        Training,
    )

__all__ = ["identify"]

SOME_FAILED = 3
PUBLISHED = "published:"
NAMED = 5
"""Architectures or models that a cell names at most."""
TRAINED_BEYOND = 3.3
STATE_DICTS = frozenset({"torch", "safetensors", "shards", "torchvision", "timm", "hf", "module"})
"""Sources that give the names of a state dict as they are stored."""
PLACES = 12
"""Tensors that differ, shown at most."""
CLOSE = ("identical", "permuted", "related")


def identify(
    references: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="File, folder, or reference: hf:ORG/NAME, https://HOST/FILE."),
    ],
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, metavar="N", help="Nearest architectures and related models, at most.")
    ] = 5,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Entry of a checkpoint that holds several models, which are all shown without it."
        ),
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Read the headers and no weights: the architecture alone.")
    ] = False,
    db: Database = None,
    among: AmongRegistries = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a checkpoint is: architecture, published weights, trained or not, related to what, sound or not.

    Nothing has to be prepared, and nothing is stored. The architecture is looked up among those that torchvision, timm
    and transformers build, and the weights among the published models that ship with the package; a registry is asked,
    too, where one is named or archreg.db exists. With --among, those that it names are asked and no others. No spectra
    are computed: archreg audit does that.

    With several files, one that cannot be read does not stop the others; the exit code is then 3.
    """
    names = several_registries(db, among) if among is not None else ()
    with open_among(names) if names else open_registry(db) as registry:
        found = registry.identify(references, k=k, key=key, headers_only=headers_only)
    if as_json:
        json_output.write(json_output.identified(found))
    elif len(found.files) == 1 and not found.failed:
        _show(found.files[0])
    else:
        _show_table(found)
    for failed in found.failed:
        report(RegistryError(failed.error, failed.remedy), about=failed.asked)
    tables.hint(*(f"archreg: {problem}" for problem in found.damaged))
    if found.failed or found.damaged:
        raise typer.Exit(SOME_FAILED)


def _show(file: Identification) -> None:
    tables.say(f"{file.asked} {_headline(file)}.")
    tables.table(("question", "answer", "evidence"), list(_questions(file)))
    recognised = file.architecture
    if recognised is not None and recognised.verdict == "near":
        _show_differences(recognised.matches[0])
    if file.findings:
        columns = ("severity", "rule", "layer", "finding", "remedy")
        tables.table(columns, [(one.severity, one.rule, one.layer, one.message, one.remedy) for one in file.findings])
    tables.say(*(tables.sentence(note.rstrip(".")) for note in file.notes))
    tables.say(*(f"Not known: {each}." for each in file.not_known))


def _headline(file: Identification) -> str:
    if file.adapter is not None and file.architecture is None:
        base = file.adapter.base or "a base that it does not name"
        return f"is a {file.adapter.kind} adapter for {base}"
    recognised = file.architecture
    if recognised is None:
        return "was read; its architecture was not looked up"
    if not recognised.matches:
        return "is no architecture of the catalogue, and none is near"
    best = recognised.matches[0]
    label = best.architecture.label
    if recognised.verdict == "exact":
        others = len(recognised.matches) - 1
        have = "has" if others == 1 else "have"
        equal = f" ({tables.counted(others, 'other architecture')} {have} equal shapes)" if others else ""
        head = " without its head" if recognised.headless else ""
        return f"is {label}{head}{equal}"
    shares = f"{tables.percent(best.share, 0)} of the shapes are those of {label}"
    if recognised.verdict == "near":
        return f"is no architecture of the catalogue; {shares}"
    return f"is no architecture of the catalogue, and none is near: {shares}"


def _questions(file: Identification) -> Iterator[tuple[str, str, str]]:
    if file.adapter is not None:
        yield ("adapter?", *_adapter(file))
    recognised = file.architecture
    if recognised is not None:
        yield ("architecture?", *_architecture(recognised, dequantised=file.dequantised))
        if recognised.verdict == "exact":
            yield from _fit(file, recognised.matches[0], headless=recognised.headless)
    if (known := _published(file)) is not None:
        yield ("published?", *known)
    if (stored := _stored(file)) is not None:
        yield ("stored?", *stored)
    if file.training is not None:
        yield ("trained?", file.training.training_class, "; ".join(_training(file.training)))
    yield from (("related?", *_relatives(each)) for each in file.registries)
    if file.rules:
        yield ("sound?", *_soundness(file))
    yield ("stored as", file.precision, ", ".join(_sizes(file)))


def _adapter(file: Identification) -> tuple[str, str]:
    adapter = file.adapter
    assert adapter is not None  # noqa: S101 - as the caller found
    told = [f"rank {adapter.rank}"] if adapter.rank is not None else []
    told += [f"base {adapter.base}"] if adapter.base else []
    told += [f"modules {', '.join(adapter.modules)}"] if adapter.modules else []
    return adapter.kind, "; ".join(told)


def _architecture(recognised: Recognised, *, dequantised: bool) -> tuple[str, str]:
    matches = recognised.matches
    read = "; shapes as the forward pass uses them" if dequantised else ""
    if recognised.verdict == "exact":
        answer = matches[0].architecture.label
        if len(matches) == 1:
            return answer, f"exact: no other architecture has these shapes{read}"
        return answer, f"exact; equal in shapes: {_labels(matches[1:])}{read}"
    listed = ", ".join(f"{each.architecture.label} {tables.percent(each.share, 0)}" for each in matches[:NAMED])
    return recognised.verdict, f"nearest by shapes: {listed}{read}" if listed else "no shape in common"


def _labels(matches: Sequence[ArchitectureMatch]) -> str:
    more = f" and {len(matches) - NAMED} more" if len(matches) > NAMED else ""
    return ", ".join(each.architecture.label for each in matches[:NAMED]) + more


def _fit(file: Identification, match: ArchitectureMatch, *, headless: bool) -> Iterator[tuple[str, str, str]]:
    if match.classes is not None and not headless:
        yield "classes?", tables.whole(match.classes), f"head {', '.join(match.head)}" if match.head else ""
    if match.channels is not None:
        yield "input?", tables.counted(match.channels, "channel"), f"stem {', '.join(match.stem)}" if match.stem else ""
    line = match.architecture.line(match.classes, match.channels)
    if headless:
        line += ".load_state_dict(..., strict=False)"
    yield "loads?", _loads(file, match, headless=headless), line


def _loads(file: Identification, match: ArchitectureMatch, *, headless: bool) -> str:
    """Whether the state dict fits, and what has to be taken out of or off it before."""
    steps = [f"entry {file.entry}"] if file.entry else []
    if prefix := file.wrapper + match.prefix:
        steps.append(f"without the prefix {prefix}")
    if headless and match.named:
        told = "all but the head"
    elif match.strict:
        told = "strictly" if file.format in STATE_DICTS else "strictly, by the names as read"
    elif match.named:
        told = "not strictly: buffers or tied tensors differ"
    else:
        told = "not by its names: shapes agree, names differ"
    return ", ".join([told, *steps])


def _published(file: Identification) -> tuple[str, str] | None:
    """Weights whose published file this is, and published models with the same content."""
    asked = [each for each in file.registries if each.label == PUBLISHED and not each.problem]
    told = [
        (each.reference, f"the file's sha256 is that of the published one{_described(each)}") for each in file.published
    ]
    told += [(each.stored.name, f"the same content, in {each.label}") for each in asked if each.stored is not None]
    if told:
        return _listed(told)
    if not asked:
        return None
    exact = file.architecture is not None and file.architecture.verdict == "exact"
    hashed = ", and its sha256 that of no published file of the architecture" if file.file_sha256 and exact else ""
    return "not known", f"{_of_none(asked[0])}{hashed}"


def _stored(file: Identification) -> tuple[str, str] | None:
    """Models of one's own registries with the same content."""
    asked = [each for each in file.registries if each.label != PUBLISHED and each.models]
    told = [(each.stored.name, f"the same content, in {each.label}") for each in asked if each.stored is not None]
    if told:
        return _listed(told)
    return ("no", "; ".join(map(_of_none, asked))) if asked else None


def _listed(told: Sequence[tuple[str, str]]) -> tuple[str, str]:
    return ", ".join(name for name, _ in told[:NAMED]), "; ".join(evidence for _, evidence in told[:NAMED])


def _of_none(asked: AskedRegistry) -> str:
    return f"the content is that of none of {tables.counted(asked.models, 'model')} in {asked.label}"


def _described(weights: PublishedWeights) -> str:
    parts = [weights.dataset, weights.licence]
    parts += [f"{one.name} {one.value:g} ({one.dataset} {one.split})" for one in weights.metrics[:2]]
    told = ", ".join(part for part in parts if part)
    return f" ({told})" if told else ""


def _training(found: Training) -> Iterator[str]:
    """What decided, and the evidence in short; JSON has each statistic."""
    yield f"by {found.decided_by}"
    if found.z is not None:
        yield f"all matrices {found.z:.1f} standard deviations (trained beyond {TRAINED_BEYOND})"
    vectors = found.vectors
    counts = (
        (vectors.gains_moved, vectors.gains, "gains"),
        (vectors.statistics_moved, vectors.statistics, "statistics"),
        (vectors.biases_moved, vectors.biases, "biases"),
    )
    told = [f"{moved:,} of {count:,} {what}" for moved, count, what in counts if count]
    if told:
        yield f"{', '.join(told)} have left their start"


def _relatives(asked: AskedRegistry) -> tuple[str, str]:
    if asked.problem:
        return "not asked", f"{asked.label}: {asked.problem}"
    if asked.related is None:
        return "no", f"{asked.label} holds no models"
    found = asked.related
    close = [each for each in found.relatives if each.relation.verdict in CLOSE]
    of_all = f"{tables.whole(found.compared)} of {tables.counted(asked.models, 'model')} in {asked.label} compared"
    if not close:
        return "no", f"{of_all}; the others have other shapes" if found.unlike else of_all
    best = "; ".join(map(_relative, close[:NAMED]))
    more = f"; {found.found - len(close)} more" if found.found > len(close) else ""
    return "yes", f"{best}{more}; {of_all}"


def _relative(each: Relative) -> str:
    relation = each.relation
    if relation.verdict != "related" or relation.correlation is None:
        return f"{each.model.name} ({relation.verdict})"
    layers = tables.counted(relation.layers, "layer")
    return f"{each.model.name} (r {relation.short}, {layers} with {tables.percent(relation.share, 0)} of the weights)"


def _soundness(file: Identification) -> tuple[str, str]:
    answer, told = verdict_text.found(file.findings)
    return answer, f"{told} by {tables.counted(len(file.rules), 'rule')}: {', '.join(file.rules)}"


def _sizes(file: Identification) -> Iterator[str]:
    if file.parameters is not None:
        yield tables.counted(file.parameters, "parameter")
    yield tables.counted(file.tensors, "tensor")
    if file.layers is not None:
        yield f"{tables.counted(file.layers, 'layer')} as matrices"
    if file.bytes is not None:
        yield tables.size(file.bytes)
    yield f"read as {file.format}"
    if file.entry:
        yield f"entry {file.entry}"


def _show_differences(match: ArchitectureMatch) -> None:
    if not match.differences:
        return
    tables.say(f"Where it differs from {match.architecture.label}:")
    tables.table(("tensor", "shape", "expected", "its shape"), map(_difference, match.differences[:PLACES]))
    if len(match.differences) > PLACES:
        tables.say(f"{len(match.differences) - PLACES:,} more differ.")


def _difference(one: TensorDifference) -> tuple[str, str, str, str]:
    return (
        one.name or "-",
        tables.layer_shape(one.shape) if one.name else "",
        one.expected or "-",
        tables.layer_shape(one.expected_shape) if one.expected else "",
    )


def _show_table(found: Identified) -> None:
    columns = (
        "file",
        "architecture",
        "match",
        ">classes",
        "trained",
        "related to",
        "sound",
        ">parameters",
        "precision",
    )
    if found.files:
        tables.table(columns, map(_row, found.files))


def _row(file: Identification) -> tuple[str, ...]:
    recognised = file.architecture
    best = recognised.matches[0] if recognised is not None and recognised.matches else None
    label, match, classes = "-", "-", ""
    if file.adapter is not None and recognised is None:
        label = f"{file.adapter.kind} adapter for {file.adapter.base or 'an unnamed base'}"
    if recognised is not None:
        match = recognised.verdict
        if best is not None and recognised.verdict != "unknown":
            label = best.architecture.label
            equal = f", 1 of {len(recognised.matches)} equal" if len(recognised.matches) > 1 else ""
            match = f"exact{equal}" if recognised.verdict == "exact" else f"near, {tables.percent(best.share, 0)}"
            classes = "" if best.classes is None else tables.whole(best.classes)
    kin = [one for each in file.registries if each.related for one in each.related.relatives]
    close = [one.model.name for one in kin if one.relation.verdict in CLOSE]
    return (
        file.asked,
        label,
        match,
        classes,
        "-" if file.training is None else file.training.training_class,
        ", ".join(close[:2]) + (f" and {len(close) - 2} more" if len(close) > 2 else "") or "-",
        _soundness(file)[0] if file.rules else "-",
        "" if file.parameters is None else tables.whole(file.parameters),
        file.precision,
    )
