"""Sketches of weights, and what they say of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RELATIONS", "Relation", "RelationVerdict", "Sketches"]

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
