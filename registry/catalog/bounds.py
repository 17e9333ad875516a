"""Bounds that a question sets, and those that exclude each other."""

from __future__ import annotations

from dataclasses import replace
from math import nextafter
from typing import TYPE_CHECKING

from registry.errors import UsageError
from registry.types import MetricBound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.types import Filter, ModelSummary

__all__ = ["consistent", "metric_bounds", "smaller"]


def consistent(where: Filter) -> Filter:
    """The filter. Raises ``UsageError`` naming two bounds that no model can fulfil together."""
    for what in ("params", "bytes"):
        least, most = getattr(where, f"min_{what}"), getattr(where, f"max_{what}")
        if least is not None and most is not None and least > most:
            raise UsageError(f"no model has at least {least:,} and at most {most:,} {what}", "drop one of the bounds")
    for bound in where.metrics:
        if bound.minimum is not None and bound.maximum is not None and bound.minimum > bound.maximum:
            raise UsageError(
                f"no {bound.name} is at least {bound.minimum:g} and at most {bound.maximum:g}", "drop one of the bounds"
            )
    values: dict[str, str] = {}
    for key, value in where.tags:
        if values.setdefault(key.lower(), value).lower() != value.lower():
            raise UsageError(
                f"no model has both tags {key}={values[key.lower()]} and {key}={value}", "a key has one value: drop one"
            )
    return where


def smaller(model: ModelSummary, where: Filter, max_ratio: float | None) -> Filter:
    """The filter, narrowed to models smaller than ``model`` in whatever it bounds from above: parameters by default.

    ``max_ratio``: of its parameters, in (0, 1]. Raises ``UsageError`` for another, and where nothing can be so small.
    """
    by_params = where.max_params is not None or max_ratio is not None
    if max_ratio is not None and not 0.0 < max_ratio <= 1.0:
        raise UsageError(f"max_ratio must lie in (0, 1], not {max_ratio}")
    if by_params or (where.max_bytes is None and where.max_gflops is None):
        bounds = [model.parameters - 1, int((1.0 if max_ratio is None else max_ratio) * model.parameters)]
        where = replace(where, max_params=min([*bounds, *([] if where.max_params is None else [where.max_params])]))
    if where.max_bytes is not None:
        where = replace(where, max_bytes=min(where.max_bytes, model.bytes - 1))
    if where.max_gflops is not None and model.gflops is not None:
        where = replace(where, max_gflops=min(where.max_gflops, nextafter(model.gflops, 0.0)))
    return consistent(where)


def metric_bounds(least: Mapping[str, float], most: Mapping[str, float]) -> tuple[MetricBound, ...]:
    """Bounds by ``name`` or ``name@dataset``, one for each."""
    found = []
    for text in dict.fromkeys([*least, *most]):
        name, _, dataset = text.partition("@")
        found.append(MetricBound(name, least.get(text), most.get(text), dataset))
    return tuple(found)
