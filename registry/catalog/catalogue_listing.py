"""Architectures of the catalogue as a list, in detail and in number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.catalog.catalogue_rows import (
    architecture_summary,
    asks_for_weights,
    best_rows,
    bounded_metric,
    passing_rows,
    placed,
    read_rows,
    summary_of,
    unmatched_texts_of,
)
from registry.errors import AmbiguousError, UnknownModelError
from registry.shipped import CATALOGUE, shipped_file
from registry.spectral.specs import SHAPES
from registry.spelling import near_spellings
from registry.types import CatalogueStats, Filter, ModelDetails, Stats

if TYPE_CHECKING:
    from registry.architectures.catalogue_file import Catalogue
    from registry.types import Architecture, ModelSummary

__all__ = ["architecture_details", "architecture_named", "catalogue_stats", "list_architectures", "unmatched_texts"]


def list_architectures(catalogue: Catalogue, where: Filter) -> tuple[ModelSummary, ...]:
    """The architectures that match a filter, by label; with the best weights that pass, where it asks for weights.

    ``id`` is that of the architecture. Each is listed once, at the smallest image size at which it passes.
    """
    if where == Filter():
        found = [replace(architecture_summary(one), id=one.id) for one in catalogue.architectures()]
    else:
        every = read_rows(catalogue)
        where = placed(where, every)
        by = bounded_metric(where)
        rows = {row.architecture.id: row for row in reversed(best_rows(passing_rows(every, where), by))}
        plain = not asks_for_weights(where)
        found = [
            replace(architecture_summary(row.architecture) if plain else summary_of(row, by), id=row.architecture.id)
            for row in rows.values()
        ]
    return tuple(sorted(found, key=lambda model: model.name))


def unmatched_texts(catalogue: Catalogue, where: Filter) -> dict[str, tuple[str, ...]]:
    """For each text of a filter that no architecture and no weights have, up to three similar ones, by field."""
    every = read_rows(catalogue)
    return unmatched_texts_of(every, placed(where, every))


def architecture_named(catalogue: Catalogue, name: str) -> Architecture:
    """The architecture of a label (``timm/resnet50``), or of a name that one library alone has.

    Raises
    ------
    UnknownModelError
        None is called so; the remedy has similar names.
    AmbiguousError
        Several libraries have one of that name.
    """
    found = catalogue.named(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousError(f"{name!r} is {' and '.join(one.label for one in found)}", f"name {found[0].label}")
    near = near_spellings(name, sorted({text for one in catalogue.architectures() for text in (one.name, one.label)}))
    raise UnknownModelError(
        f"the catalogue has no architecture {name!r}",
        f"similar: {', '.join(near)}" if near else "archreg list --db catalogue: shows all",
    )


def architecture_details(catalogue: Catalogue, name: str) -> ModelDetails:
    """Everything that the catalogue states of an architecture, without the tensors; its weights as ``published``."""
    one = architecture_named(catalogue, name)
    ids, _ = catalogue.vectors()
    others = [other for other in catalogue.of_layouts([one.layout]) if other.id != one.id]
    weights = catalogue.weights([one.id])
    costs = [cost for cost in catalogue.costs() if cost.architecture == one.id]
    by_source: dict[str, list[str]] = {}
    for cost in costs:
        by_source.setdefault(cost.source, []).append(f"{cost.gmacs:g} at {cost.image_size} pixels")
    notes = [f"giga multiply-adds: {', '.join(told)}; by {source}" for source, told in by_source.items()]
    if others:
        notes.append(f"the same tensors: {', '.join(other.label for other in others)}")
    return ModelDetails(
        summary=replace(architecture_summary(one), id=one.id),
        layers=(),
        skipped=(),
        conjugacy=None,
        tags=(),
        fingerprints=(SHAPES.label,) if one.layout in ids else (),
        has_spectra=False,
        notes=tuple(notes),
        published=weights,
    )


def catalogue_stats(catalogue: Catalogue) -> Stats:
    """Counts of the catalogue, in ``models`` and ``names`` those of architectures."""
    every = catalogue.architectures()
    families = Counter(one.family for one in every)
    ids, _ = catalogue.vectors()
    layouts, _ = catalogue.sizes()
    weights = catalogue.weights()
    facts = catalogue.facts
    held = CatalogueStats(
        architectures=len(every),
        libraries=tuple(Counter(one.library for one in every).most_common()),
        layouts=len(layouts),
        weights=len(weights),
        metrics=sum(len(one.metrics) for one in weights),
        costs=len(catalogue.costs()),
        versions=tuple((str(name), str(version)) for name, version in facts.get("versions", {}).items()),
        command=str(facts.get("command", "")),
    )
    return Stats(
        models=len(every),
        names=len(every),
        layers=0,
        families=tuple(sorted(families.items(), key=lambda pair: (-pair[1], pair[0]))),
        fingerprints=((SHAPES.label, len(ids)),),
        training_classes=(),
        tail_classes=(),
        schema_version=f"catalogue {catalogue.facts['format']}",
        bytes=shipped_file(CATALOGUE).stat().st_size,
        catalogue=held,
    )
