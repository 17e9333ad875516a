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
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.equivalence.sketches import SKETCH_VERSION, SMALLEST, folded, variances
from registry.types.weight_relations import Relation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix
    from registry.types.weight_relations import RelationVerdict, Sketches

__all__ = [
    "Matched",
    "SketchedLayers",
    "Verdicts",
    "aligned",
    "drawn",
    "judged",
    "judged_all",
    "judged_by_signs",
    "matched",
    "related_layers",
    "sketched",
]

_CLIP = 4.0
_RELATED_Z, _RELATED_R = 5.0, 0.10
_INDEPENDENT_Z, _INDEPENDENT_R = 3.3, 0.3
_FEW = 3  # layers; fewer tell by a high correlation alone
_FEW_R, _FEW_RATIO, _FEW_SHARE = 0.5, 8.0, 0.5
_ROWS = 8_192  # models whose signs are compared at a time: they stay in the processor's cache
_MOST_ALIGNED = 25_000_000  # cells of the table by which unnamed layers are aligned, a bit each


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
    shapes = np.array([(each.p, each.q // math.prod(each.kernel), math.prod(each.kernel)) for each in layers], np.int64)
    return drawn(tuple(each.name for each in layers), shapes.reshape(-1, 3), sketches)


def drawn(names: Sequence[str], shapes: NDArray[np.int64], sketches: Sketches) -> SketchedLayers | None:
    """As `sketched`, of layers by names (n,) and int64 shapes (n, 3)."""
    if sketches.version != SKETCH_VERSION:
        return None
    weights = int(shapes.prod(axis=1).sum())
    has = sketches.values.any(axis=1) & (shapes.prod(axis=1) >= SMALLEST) & (shapes[:, 0] > 1)
    kept = tuple(name for name, there in zip(names, has.tolist(), strict=True) if there)
    return SketchedLayers(kept, shapes[has], sketches.values[has].astype(np.float32), weights)


def aligned(one: SketchedLayers, other: SketchedLayers) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of layers of equal shape that belong together: those of equal names, else by the order of the shapes.

    Where at least half of the smaller model's layers have a partner of their name and shape, those are the pairs. Else
    names mean nothing, and the longest common subsequence of shapes decides; beyond 25,000,000 pairs of layers names
    decide alone.
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
    """The longest common subsequence by shape; of several, the one that pairs as early as possible.

    By Hyyro's bit vectors ("Bit-parallel LCS-length computation revisited", 2004), a row of the table in one integer
    of Python's: time O(K1 K2 / 64), and as many words of memory.
    """
    mine, theirs = list(map(tuple, one.tolist())), list(map(tuple, other.tolist()))
    width = len(theirs)
    places: dict[tuple[int, ...], int] = {}
    for at, shape in enumerate(reversed(theirs)):
        places[shape] = places.get(shape, 0) | 1 << at
    # Rows from the last layer on. A bit that is zero at j tells that one more is common to what begins before it.
    full = (1 << width) - 1
    rows = [full]
    for shape in reversed(mine):
        row, hits = rows[-1], places.get(shape, 0)
        taken = row & hits
        rows.append(((row + taken) | (row - taken)) & full)
    rows.reverse()

    def length(i: int, j: int) -> int:
        """Of the longest common subsequence of what begins at i and j."""
        kept = width - j
        return kept - (rows[i] & ((1 << kept) - 1)).bit_count()

    pairs, i, j = [], 0, 0
    while i < len(mine) and j < width:
        if mine[i] == theirs[j] and length(i, j) == length(i + 1, j + 1) + 1:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif length(i + 1, j) >= length(i, j + 1):
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


class Matched(NamedTuple):
    """How the layers of a model belong to those of a topology: ``mine`` and ``theirs`` (K,), in depth order.

    ``v`` (K,) variances of the cosines at so many ``buckets``; ``sizes`` (K,) elements of the pairs; ``weights``:
    elements of the larger of the two.
    """

    mine: NDArray[np.intp]
    theirs: NDArray[np.intp]
    v: NDArray[np.float64]
    sizes: NDArray[np.int64]
    weights: int
    buckets: int

    @property
    def share(self) -> float:
        """Part of the larger model's weights in the pairs."""
        return float(self.sizes.sum() / self.weights) if self.weights else 0.0


def matched(model: SketchedLayers, shapes: NDArray[np.int64], buckets: int) -> Matched:
    """Match a model's layers with those of a topology, int64 (L, 3), by the order of the shapes alone.

    ``theirs`` are positions among all L layers; the sketches of the topology have so many ``buckets``.
    """
    may = np.flatnonzero((shapes.prod(axis=1) >= SMALLEST) & (shapes[:, 0] > 1))
    if np.array_equal(model.shapes, shapes[may]):
        mine, theirs = np.arange(len(may)), may
    else:
        pairs = np.array(_common(model.shapes, shapes[may]), np.intp).reshape(-1, 2)
        mine, theirs = pairs[:, 0], may[pairs[:, 1]]
    fewest = min(buckets, model.values.shape[1])
    weights = max(model.weights, int(shapes.prod(axis=1).sum()))
    v = variances(model.shapes[mine], fewest)
    return Matched(mine, theirs, v, model.sizes[mine], weights, fewest)


class Verdicts(NamedTuple):
    """What `judged` tells, of n models at once: arrays (n,); ``layers`` are those that have a sketch in both."""

    r: NDArray[np.float64]
    s: NDArray[np.float64]
    Z: NDArray[np.float64]
    layers: NDArray[np.int64]
    share: NDArray[np.float64]

    @property
    def related(self) -> NDArray[np.bool_]:
        """Which of them are related: the rule of `judged`."""
        few = (self.r >= _FEW_R) & (self.r / self.s >= _FEW_RATIO) & (self.share >= _FEW_SHARE)
        return np.where(self.layers < _FEW, (self.layers > 0) & few, (self.Z >= _RELATED_Z) & (self.r >= _RELATED_R))


def judged_all(model: SketchedLayers, values: NDArray[np.floating], pairs: Matched) -> Verdicts:
    """Compare a model with n others of one topology by position: O(n K m).

    Parameters
    ----------
    model
        The model that they are compared with.
    values
        Sketches (n, L, m) of the others, rows of zeros where a layer has none.
    pairs
        As `matched` gives them.
    """
    theirs = values[:, pairs.theirs].astype(np.float32)
    there = theirs.any(axis=2)
    own = folded(model.values[pairs.mine], pairs.buckets).astype(np.float32)
    parts = theirs.shape[2] // pairs.buckets
    theirs = theirs.reshape(*theirs.shape[:2], parts, pairs.buckets).sum(axis=2) if parts > 1 else theirs
    c = np.einsum("nij,ij->ni", theirs, own).astype(np.float64)
    layers, told = there.sum(axis=1), np.where(there, 1 / pairs.v, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r, s = (c * told).sum(axis=1) / told.sum(axis=1), 1 / np.sqrt(told.sum(axis=1))
        Z = (np.clip(c / np.sqrt(pairs.v), -_CLIP, _CLIP) * there).sum(axis=1) / np.sqrt(layers)
    share = (there * pairs.sizes).sum(axis=1) / max(1, pairs.weights)
    return Verdicts(np.nan_to_num(r), s, np.nan_to_num(Z), layers, share)


def judged_by_signs(model: SketchedLayers, bits: NDArray[np.uint8], pairs: Matched) -> NDArray[np.float64]:
    """Estimate r (n,) of a model and n others from the signs of their sketches alone; O(n K m / 64).

    Two numbers of correlation c have unequal signs with probability arccos(c) / pi, which is 1/2 - c / pi up to third
    order. The estimate is that of an r that is small, and rises with r.

    Parameters
    ----------
    model, pairs
        As for `judged_all`.
    bits
        uint8 (n, L buckets / 8), as ``packbits`` gives them, at the buckets of ``pairs``.
    """
    word = min(64, pairs.buckets)
    dtype, each = np.dtype(f"u{word // 8}"), pairs.buckets // word
    own = np.packbits(folded(model.values[pairs.mine], pairs.buckets) > 0, axis=1).view(dtype)
    columns = (pairs.theirs[:, None] * each + np.arange(each)).reshape(-1)
    share = np.repeat(1 / pairs.v / (1 / pairs.v).sum(), each).astype(np.float32) / pairs.buckets
    words = np.ascontiguousarray(bits).view(dtype)
    whole = np.array_equal(columns, np.arange(words.shape[1]))
    found = np.empty(len(words), np.float64)
    for start in range(0, len(words), _ROWS):
        rows = words[start : start + _ROWS] if whole else words[start : start + _ROWS, columns]
        found[start : start + _ROWS] = _ones(rows ^ own.reshape(-1)).astype(np.float32) @ share
    return math.pi / 2 * (1 - 2 * found)


def _ones(words: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Bits that are set in each word."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words), np.uint8)
    counts = _ones_of_16()[np.ascontiguousarray(words).view(np.uint16)]  # before NumPy 2
    return np.asarray(counts.reshape(*words.shape, -1).sum(axis=-1), np.uint8)


@lru_cache(maxsize=1)
def _ones_of_16() -> NDArray[np.uint8]:
    return np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


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
    # The estimate of a copy scatters about 1, which a correlation does not exceed. Collisions of correlated weights
    # have 1 + r^2 times the variance of those of unrelated ones.
    shown = min(max(r, -1.0), 1.0)
    return Relation(verdict, shown, s * math.sqrt(1 + shown * shown), Z, int(c.size), share, reason)
