"""Models that are stored several times, in the same or another form, and where their weights lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from registry.types.models import ModelSummary

__all__ = ["Duplicate", "DuplicateGroup", "Duplicates", "WeightsPlace"]


@dataclass(frozen=True, slots=True)
class WeightsPlace:
    """A path or reference from which weights were ingested, and its size in bytes then."""

    location: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A model of a group, and the places from which it was ingested, as far as they were recorded.

    ``correlation``: of a related model, with the one that it is next to in the tree of relations; None for the first.
    """

    model: ModelSummary
    places: tuple[WeightsPlace, ...]
    correlation: float | None = None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Models that are the same, or have a common start.

    ``kind``: ``identical``: one model, of several names or from several places. ``permuted``: models whose weights are
    the same but for the order of units. ``related``: models of one tree of relations. ``freeable``: bytes that could be
    freed if one place of each identical model, or one of the permuted models, were kept; 0 for related ones.
    """

    kind: Literal["identical", "permuted", "related"]
    members: tuple[Duplicate, ...]
    freeable: int = 0


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of duplicates among ``models`` models: identical ones, permuted ones, related ones, the largest first.

    A model can be in a group of each kind; no bytes are counted twice. ``unsketched``: number of models that were not
    compared with others because they have no sketches.
    """

    groups: tuple[DuplicateGroup, ...]
    models: int
    unsketched: int = 0

    @property
    def freeable(self) -> int:
        """Bytes that could be freed in all."""
        return sum(group.freeable for group in self.groups)
