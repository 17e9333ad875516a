"""Relation of two models by their weights: identical, permuted, related, independent, or not to be told."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

from registry.errors import SpecMismatchError
from registry.types import Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from registry.equivalence.relations import SketchedLayers
    from registry.storage import Store
    from registry.types import ModelSummary, Spectrum

__all__ = ["Weighed", "relation", "relations_with", "require_sketches", "weighed"]


class Weighed(Protocol):
    """What a relation rests on: a model, its sketches and its spectra, read on demand; None if there are none."""

    @property
    def model(self) -> Callable[[], ModelSummary]:
        """The model."""

    @property
    def sketches(self) -> Callable[[], SketchedLayers | None]:
        """Its layers with their sketches; None also if these are of another version."""

    @property
    def spectra(self) -> Callable[[], tuple[Spectrum, ...] | None]:
        """Its spectra."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """A stored model, `Weighed`."""

    model: Callable[[], ModelSummary]
    sketches: Callable[[], SketchedLayers | None]
    spectra: Callable[[], tuple[Spectrum, ...] | None]


PERMUTED_WITHIN = 1e-5
"""Relative difference of eigenvalues, by the largest, up to which two spectra are those of permuted weights."""
PERMUTED_ORDER = 8
"""Smallest order of a layer whose spectrum tells permuted weights: smaller ones agree by chance too often."""
FLAT = 1.05
"""Ratio of the largest to the smallest eigenvalue below which a layer is orthogonal, as strangers' layers may be."""


def weighed(store: Store, models: Iterable[ModelSummary]) -> list[Weighed]:
    """Stored models with their sketches, in order; two queries, however many."""
    from registry.equivalence.relations import drawn
    from registry.storage.models.sketch_reads import read_drawn
    from registry.storage.models.vectors import read_spectra

    models = list(models)
    read = store.read(read_drawn, [model.id for model in models])

    def of(model: ModelSummary) -> Weighed:
        held = read.get(model.id)
        layers = None if held is None else drawn(*held[0], held[1])
        return _Stored(lambda: model, lambda: layers, lambda: store.read(read_spectra, model.id))

    return [of(model) for model in models]


def relations_with(store: Store, query: Weighed, models: Iterable[ModelSummary]) -> list[Relation]:
    """Relation of a query with each of some stored models, whose sketches are read by two statements."""
    once = _Stored(query.model, cache(query.sketches), cache(query.spectra))
    return [relation(once, each) for each in weighed(store, models)]


def require_sketches(query: Weighed) -> SketchedLayers:
    """The layers of a model with their sketches. Raises ``SpecMismatchError`` if it has none."""
    model = query.model()
    found = query.sketches() if model.weights_read else None
    if found is None:
        again = f": archreg ingest {shlex.quote(model.location)}" if model.location else ""
        raise SpecMismatchError(f"{model.name}: {_without(model)}", f"{_REMEDY}{again}")
    return found


_REMEDY = "ingest its weights"


def _without(model: ModelSummary) -> str:
    return "it has no sketches of this version" if model.weights_read else "its weights were not read"


def relation(a: Weighed, b: Weighed) -> Relation:
    """What the weights of two models say of a common start; time O(layers) where names agree, else O(layers^2)."""
    from registry.equivalence.relations import related_layers

    of_a, of_b = a.model(), b.model()
    if of_a.weights_read and of_a.content_hash == of_b.content_hash:
        return Relation("identical", 1.0, 0.0, None, of_a.layers, 1.0)
    sketches = []
    for query, model in ((a, of_a), (b, of_b)):
        drawn = query.sketches() if model.weights_read else None
        if drawn is None:
            return Relation("not comparable", reason=f"{model.name}: {_without(model)}; {_REMEDY}")
        sketches.append(drawn)
    found = related_layers(*sketches)
    if found.verdict in ("independent", "undecided") and _permuted(a.spectra(), b.spectra()):
        return replace(found, verdict="permuted", reason="")
    return found


def _permuted(a: tuple[Spectrum, ...] | None, b: tuple[Spectrum, ...] | None) -> bool:
    """Whether two networks have the same spectra throughout, in layers of order 8 or more that are not orthogonal."""
    import numpy as np

    if a is None or b is None or len(a) != len(b):
        return False
    told = False
    for one, other in zip(a, b, strict=True):
        if one.values.size != other.values.size or (one.method or other.method):
            return False
        if one.values.size < PERMUTED_ORDER or one.values[-1] < FLAT * one.values[0]:
            continue
        x, y = one.values.astype(np.float64) * one.mean, other.values.astype(np.float64) * other.mean
        if np.abs(x - y).max() > PERMUTED_WITHIN * max(x[-1], y[-1]):
            return False
        told = True
    return told
