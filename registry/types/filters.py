"""Filters that select stored models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from registry.types.reprs import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Filter", "Filters", "Kin", "MetricBound"]


@dataclass(frozen=True, slots=True, repr=False)
class MetricBound(Shown):
    """A bound on a stored metric: ``name`` between ``minimum`` and ``maximum``, on ``dataset`` if given.

    A model without that metric fails the bound.
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Kin:
    """A model and the stored models related to it: what a filter on relations compares with.

    ``model``: a query model; ``ids``: of the related ones and its own, if it is stored, None before they are looked
    for; ``version``: of the sketches that they were compared by.
    """

    model: Any
    ids: tuple[int, ...] | None = None
    version: int = 0

    def __str__(self) -> str:
        """The model of the question, as it was given."""
        return str(self.model) if isinstance(self.model, str | Path) else "the given network"


@dataclass(frozen=True, slots=True, repr=False)
class Filter(Shown):
    """Conditions on stored models; empty fields pass every model. Unknown values fail a condition.

    ``related_to``: only models whose weights are related to those of this one, and it itself; ``unrelated_to``: only
    models that were not found related to it. Models without sketches fail both.

    ``max_ratio`` of a question is first converted to ``max_params``. Text is compared without regard to case.
    """

    family: str = ""
    architecture: str = ""
    task: str = ""
    dataset: str = ""
    licence: str = ""
    min_params: int | None = None
    max_params: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    max_gflops: float | None = None
    metrics: tuple[MetricBound, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    related_to: Kin | None = None
    unrelated_to: Kin | None = None


class Filters(TypedDict, total=False):
    """The fields of `Filter` as keywords of a question. None is no filter; sizes may be floats such as 1e6."""

    family: str | None
    architecture: str | None
    task: str | None
    dataset: str | None
    licence: str | None
    min_params: float | None
    max_params: float | None
    min_bytes: float | None
    max_bytes: float | None
    max_gflops: float | None
    metrics: Iterable[MetricBound] | None
    tags: Iterable[tuple[str, str]] | None
    related_to: Any  # a query model
    unrelated_to: Any
