"""The catalogue's file from what was built."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.architectures.catalogue_file import write_catalogue
from registry.architectures.layout_text import tensors_of
from registry.sources import MATRIX_RULE
from registry.spectral.specs import SHAPES
from registry.types import Architecture, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from scripts.catalogue.recipes import Built, Library

__all__ = ["COMMAND", "similar_layouts", "write"]

COMMAND = "make catalogue"
_SHARED = 0.5  # of a layout's lines


def write(path: Path, libraries: Sequence[Library], built: Mapping[str, Sequence[Built]]) -> Mapping[str, Any]:
    """Write what was built of each library, by its name and in the order of its recipes; return the facts."""
    texts: dict[str, int] = {}
    vectors = {}
    architectures, weights, costs = [], [], []
    for library in libraries:
        ids: dict[str, int] = {}
        stated = {(name, cost.image_size): cost for name, cost in library.costs}
        for recipe, one in zip(library.recipes, built[library.name], strict=True):
            if one.reason:
                continue
            layout = texts.setdefault(one.text, len(texts) + 1)
            if one.vector:
                vectors.setdefault(layout, np.frombuffer(bytes.fromhex(one.vector), "<f2"))
            ids[recipe.name] = len(architectures) + 1
            cost = stated.get((recipe.name, recipe.image_size or 0))
            architectures.append(
                Architecture(
                    ids[recipe.name],
                    recipe.library,
                    recipe.name,
                    layout,
                    one.code,
                    recipe.imports,
                    recipe.family,
                    recipe.task,
                    one.classes,
                    one.channels,
                    one.parameters,
                    recipe.image_size,
                    None if cost is None else cost.gmacs,
                )
            )
        for name, published in library.weights:
            if name in ids:
                weights.append(replace(published, id=len(weights) + 1, architecture=ids[name]))
        costs += [cost._replace(architecture=ids[name]) for name, cost in library.costs if name in ids]
    layouts = [Layout(id_, tensors_of(text)) for text, id_ in texts.items()]
    facts = {
        "asks_metadata": [f"{library.name}/{name}" for library in libraries for name in library.asks_metadata],
        "command": COMMAND,
        "counts": dict(Counter(one.library for one in architectures)),
        "fingerprint": SHAPES.hash,
        "matrix_rule": MATRIX_RULE,
        "not_built": not_built(libraries, built),
        "sources": [source for library in libraries for source in library.sources],
        "versions": {name: version for library in libraries for name, version in sorted(library.versions.items())},
    }
    write_catalogue(
        path,
        layouts,
        architectures,
        weights,
        sorted(costs),
        vectors=vectors,
        similar=similar_layouts({id_: text for text, id_ in texts.items()}),
        facts=facts,
    )
    return facts


def not_built(libraries: Iterable[Library], built: Mapping[str, Sequence[Built]]) -> dict[str, str]:
    """By ``library/name``, why an architecture is not in the catalogue."""
    found = {}
    for library in libraries:
        found.update({f"{library.name}/{name}": reason for name, reason in library.refused.items()})
        for recipe, one in zip(library.recipes, built[library.name], strict=True):
            if one.reason:
                found[recipe.label] = one.reason
    return dict(sorted(found.items()))


def similar_layouts(texts: Mapping[int, str]) -> dict[int, int]:
    """For layouts that share most of their lines with another one, that one, which has none itself.

    Long layouts come first, and each is compared with the earlier ones that have no similar one.
    """
    roots: dict[str, list[int]] = {}
    found = {}
    for layout in sorted(texts, key=lambda one: (-len(texts[one]), one)):
        lines = set(texts[layout].split("\n"))
        shared = Counter(root for line in lines for root in roots.get(line, ()))
        nearest = min(shared, key=lambda root: (-shared[root], root), default=layout)
        if shared[nearest] > _SHARED * len(lines):
            found[layout] = nearest
        else:
            for line in lines:
                roots.setdefault(line, []).append(layout)
    return found
