"""Relation of two models by their weights: identical, permuted, related, independent, or not to be told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.types import Relation

if TYPE_CHECKING:
    from registry.catalog.subjects import Query
    from registry.types import Spectrum

__all__ = ["relation"]

PERMUTED_WITHIN = 1e-5
"""Relative difference of eigenvalues, by the largest, up to which two spectra are those of permuted weights."""
PERMUTED_ORDER = 8
"""Smallest order of a layer whose spectrum tells permuted weights: smaller ones agree by chance too often."""
FLAT = 1.05
"""Ratio of the largest to the smallest eigenvalue below which a layer is orthogonal, as strangers' layers may be."""


def relation(a: Query, b: Query) -> Relation:
    """What the weights of two models say of a common start; time O(layers) where names agree, else O(layers^2)."""
    from registry.equivalence.relations import related_layers

    of_a, of_b = a.model(), b.model()
    if of_a.weights_read and of_a.content_hash == of_b.content_hash:
        return Relation("identical", 1.0, 0.0, None, of_a.layers, 1.0)
    sketches = []
    for query, model in ((a, of_a), (b, of_b)):
        drawn = query.sketches() if model.weights_read else None
        if drawn is None:
            why = "its weights were not read" if not model.weights_read else "it has no sketches of this version"
            return Relation("not comparable", reason=f"{model.name}: {why}; ingest its weights")
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
