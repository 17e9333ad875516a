"""Sketches of weights, and what they say of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types.models import ModelSummary

__all__ = [
    "RELATIONS",
    "Related",
    "Relation",
    "RelationEdge",
    "RelationForest",
    "RelationTree",
    "RelationVerdict",
    "Relative",
    "Sketches",
]

RelationVerdict = Literal["identical", "permuted", "related", "independent", "undecided", "not comparable"]
RELATIONS: tuple[RelationVerdict, ...] = (
    "identical",
    "permuted",
    "related",
    "independent",
    "undecided",
    "not comparable",
)


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Count sketches of a model's layers, in depth order.

    ``version``: of the hash and the centring; sketches of different versions are not compared. ``values``: float16
    (layers, buckets), each row of a layer that was scaled to norm 1, of zeros where a layer has no sketch.
    """

    version: int
    values: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Relation:
    """What the weights of two models say of a common start or descent.

    ``verdict``: ``identical``: the same content. ``permuted``: equal spectra of uncorrelated weights, as units in
    another order have. ``related``: weights correlate beyond what independent trainings do: a common start, or one
    descends from the other. ``independent``, ``undecided``, ``not comparable``: no layers of equal shape, or no
    sketches, with the ``reason``.

    ``correlation``: r, the mean correlation of the weights of matched layers, weighted by how well each tells it, and
    ``error``, its standard error; ``score``: Z, the sum of what is improbable among strangers; None where nothing could
    be compared. ``layers``: matched layers of equal shape; ``share``: the part of the larger model's weights in them.
    """

    verdict: RelationVerdict
    correlation: float | None = None
    error: float | None = None
    score: float | None = None
    layers: int = 0
    share: float = 0.0
    reason: str = ""

    @property
    def short(self) -> str:
        """A word or number for an edge: r of related models with two decimals, else the verdict."""
        related = self.verdict == "related" and self.correlation is not None
        return f"{self.correlation:.2f}" if related else self.verdict


@dataclass(frozen=True, slots=True)
class Relative:
    """A stored model, and what its weights say of the model of the question."""

    model: ModelSummary
    relation: Relation


@dataclass(frozen=True, slots=True)
class Related:
    """The stored models whose weights correlate with those of ``model``, the highest correlation first.

    ``model``: the model of the question, with ``id`` 0 if it is not stored; it is left out. ``relatives``: at most as
    many as were asked for, of ``found`` related ones; with all verdicts asked for, also others of those compared
    exactly. Of the models that match the filters, ``compared`` have layers of equal shape, three or more or half of the
    weights; ``exactly`` of them were compared by all numbers of their sketches, the others ruled out by the signs of
    these. ``unlike`` have too few layers of equal shape, ``unsketched`` no sketches. ``cut``: models that were not
    compared because there were too many, and ``unchecked``: models that the signs did not rule out and that were too
    many to be compared exactly; zero except in very large registries.
    """

    model: ModelSummary
    relatives: tuple[Relative, ...]
    found: int
    compared: int
    exactly: int
    unlike: int = 0
    unsketched: int = 0
    cut: int = 0
    unchecked: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class RelationEdge:
    """Two related models of a tree, ``a`` and ``b`` by name, and their relation. ``a`` is nearer to the root."""

    a: str
    b: str
    relation: Relation


@dataclass(frozen=True, slots=True)
class RelationTree:
    """Models that are connected by relations, and a spanning tree of highest correlations.

    ``models``: the root, which is the oldest stored, and the others as a walk through the tree meets them; ``edges``:
    one for each model but the root, in the same order. No direction of descent is claimed.
    """

    models: tuple[ModelSummary, ...]
    edges: tuple[RelationEdge, ...]


@dataclass(frozen=True, slots=True)
class RelationForest:
    """The trees of related models, the largest first.

    Of the models that match, ``compared`` have sketches, ``alone`` of these have no relatives among them, and
    ``unsketched`` have no sketches.
    """

    trees: tuple[RelationTree, ...]
    compared: int
    alone: int
    unsketched: int
