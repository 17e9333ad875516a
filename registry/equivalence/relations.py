"""Relations between networks by their weights: whether two have a common start, or one descends from the other.

Each pair of layers of one shape gives an estimate c of the cosine between the centred layers: the dot product of their
sketches (`registry.equivalence.sketches`). Of unrelated layers it has mean 0 and a variance v that follows from its
shape and the number of buckets. Over K pairs, with z = c / sqrt(v):

    Z = sum clip(z, -4, 4) / sqrt(K)        r = sum(c / v) / sum(1 / v)        s = 1 / sqrt(sum(1 / v))

Z is what is improbable among strangers; the clip keeps a few layers that strangers share (one-hot tables, fixed
filters) from deciding. r is the correlation, weighted by how well each layer tells it, and s its standard error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.equivalence.sketches import SKETCH_VERSION, SMALLEST, folded, variances
from registry.types.relations import Relation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix
    from registry.types.relations import RelationVerdict, Sketches

__all__ = ["SketchedLayers", "aligned", "judged", "related_layers", "sketched"]

_CLIP = 4.0
_RELATED_Z, _RELATED_R = 5.0, 0.10
_INDEPENDENT_Z, _INDEPENDENT_R = 3.3, 0.3
_FEW = 3  # layers; fewer tell by a high correlation alone
_FEW_R, _FEW_RATIO, _FEW_SHARE = 0.5, 8.0, 0.5
_MOST_ALIGNED = 4_000_000  # cells of the table by which unnamed layers are aligned


class SketchedLayers(NamedTuple):
    """The layers of a model that have a sketch, in depth order.

    ``names`` (n,); ``shapes``: int64 (n, 3) of outputs, inputs and kernel positions; ``values``: float32 (n, buckets);
    ``weights``: elements of all layers, also of those without a sketch.
    """

    names: tuple[str, ...]
    shapes: NDArray[np.int64]
    values: NDArray[np.float32]
    weights: int

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Elements of each layer, (n,)."""
        return np.asarray(self.shapes.prod(axis=1))


def sketched(layers: Sequence[LayerMatrix], sketches: Sketches) -> SketchedLayers | None:
    """Join layers with their sketches; None where the sketches are of another version."""
    if sketches.version != SKETCH_VERSION:
        return None
    shapes = np.array([(each.p, each.q // math.prod(each.kernel), math.prod(each.kernel)) for each in layers], np.int64)
    weights = int(shapes.prod(axis=1).sum())
    has = sketches.values.any(axis=1) & (shapes.prod(axis=1) >= SMALLEST) & (shapes[:, 0] > 1)
    names = tuple(each.name for each, there in zip(layers, has.tolist(), strict=True) if there)
    return SketchedLayers(names, shapes[has], sketches.values[has].astype(np.float32), weights)


def aligned(one: SketchedLayers, other: SketchedLayers) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of layers of equal shape that belong together: those of equal names, else by the order of the shapes.

    Where at least half of the smaller model's layers have a partner of their name and shape, those are the pairs. Else
    names mean nothing, and the longest common subsequence of shapes decides, in time and memory O(K1 K2); beyond
    4,000,000 pairs of layers names decide alone.
    """
    places = {name: at for at, name in enumerate(other.names)}
    named = [
        (at, partner)
        for at, name in enumerate(one.names)
        if (partner := places.get(name)) is not None and (one.shapes[at] == other.shapes[partner]).all()
    ]
    fewer = min(len(one.names), len(other.names))
    if 2 * len(named) < fewer and len(one.names) * len(other.names) <= _MOST_ALIGNED:
        named = _common(one.shapes, other.shapes)
    pairs = np.array(named, np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The longest common subsequence by shape; of several, the one that pairs as early as possible."""
    _, kinds = np.unique(np.concatenate((one, other)), axis=0, return_inverse=True)
    a, b = np.split(kinds.reshape(-1), [len(one)])
    lengths = np.zeros((len(a) + 1, len(b) + 1), np.int32)
    for i in range(len(a) - 1, -1, -1):
        taken = np.where(b == a[i], lengths[i + 1, 1:] + 1, lengths[i + 1, :-1])
        lengths[i, :-1] = np.maximum.accumulate(taken[::-1])[::-1]
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j] and lengths[i, j] == lengths[i + 1, j + 1] + 1:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def related_layers(one: SketchedLayers, other: SketchedLayers) -> Relation:
    """What the weights of two models say of a common start; symmetric in the two.

    Time O(K1 + K2) where names agree, else O(K1 K2).
    """
    mine, theirs = aligned(one, other)
    buckets = min(one.values.shape[1], other.values.shape[1])
    c = np.einsum("ij,ij->i", folded(one.values[mine], buckets), folded(other.values[theirs], buckets))
    return judged(c, variances(one.shapes[mine], buckets), int(one.sizes[mine].sum()) / max(one.weights, other.weights))


def judged(c: NDArray[np.float64], v: NDArray[np.float64], share: float) -> Relation:
    """The relation of two models by the estimated cosines c (K,) of their matched layers.

    Parameters
    ----------
    c, v
        float64 (K,): estimates, and their variances for unrelated layers.
    share
        Part of the larger model's weights in these layers.
    """
    if not c.size:
        return Relation("not comparable", reason="no layers of equal shape")
    Z = float(np.clip(c / np.sqrt(v), -_CLIP, _CLIP).sum() / math.sqrt(c.size))
    r, s = float((c / v).sum() / (1 / v).sum()), float(1 / math.sqrt((1 / v).sum()))
    reason = ""
    verdict: RelationVerdict
    if c.size < _FEW:
        sure = r >= _FEW_R and r / s >= _FEW_RATIO and share >= _FEW_SHARE
        verdict = "related" if sure else "undecided"
        reason = "" if sure else f"fewer than {_FEW} layers of equal shape"
    elif Z >= _RELATED_Z and r >= _RELATED_R:
        verdict = "related"
    elif Z < _INDEPENDENT_Z and r + 2.6 * s < _INDEPENDENT_R:
        verdict = "independent"
    else:
        verdict = "undecided"
        few = r + 2.6 * s >= _INDEPENDENT_R and r < _RELATED_R
        reason = (
            "too few weights are in layers of equal shape"
            if few
            else "the correlation lies between what relatives and what strangers have"
        )
    # The estimate of a copy scatters about 1, which a correlation does not exceed.
    return Relation(verdict, min(max(r, -1.0), 1.0), s, Z, int(c.size), share, reason)
