"""Which stored models a question is about."""

from __future__ import annotations

from dataclasses import dataclass

from registry.types.reprs import Shown

__all__ = ["Filter", "MetricBound"]


@dataclass(frozen=True, slots=True, repr=False)
class MetricBound(Shown):
    """A bound on a stored metric: ``name`` at least ``minimum`` and at most ``maximum``, on ``dataset`` if given.

    A model without that metric fails the bound.
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Filter(Shown):
    """Which stored models take part; empty fields let every model through. Unknown values fail a bound.

    ``max_ratio`` of a question is turned into ``max_params`` before. Text compares without regard to case.
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
