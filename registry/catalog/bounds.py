"""Size bounds of ``compress``: the filter for models smaller than a given one."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from registry.catalog.arguments import consistent, number
from registry.errors import UsageError
from registry.types import Filter

if TYPE_CHECKING:
    from registry.types import ModelSummary

__all__ = ["below", "smaller", "with_max_ratio"]


def with_max_ratio(model: ModelSummary, where: Filter, max_ratio: float | None) -> Filter:
    """The filter with ``max_ratio`` in (0, 1] as a bound on parameters relative to the model. Raises ``UsageError``."""
    if max_ratio is None:
        return where
    if not 0.0 < number(max_ratio, "max_ratio") <= 1.0:
        raise UsageError(f"max_ratio must lie in (0, 1], not {max_ratio}")
    return _both(where, Filter(max_params=int(max_ratio * model.parameters)))


def below(model: ModelSummary, where: Filter) -> Filter:
    """The filter for models smaller than ``model`` in each size that ``where`` bounds; by default in parameters."""
    by_bytes, by_gflops = where.max_bytes is not None, where.max_gflops is not None and model.gflops is not None
    return Filter(
        max_params=model.parameters - 1 if where.max_params is not None or not (by_bytes or by_gflops) else None,
        max_bytes=model.bytes - 1 if by_bytes else None,
        max_gflops=nextafter(model.gflops, -inf) if by_gflops and model.gflops is not None else None,
    )


def smaller(model: ModelSummary, where: Filter) -> Filter:
    """The filter combined with `below`. Raises ``UsageError`` if the bounds exclude each other."""
    return consistent(_both(where, below(model, where)))


def _both(where: Filter, most: Filter) -> Filter:
    """``where`` with the upper bounds of ``most`` added."""
    bounds: dict[str, Any] = {}
    for name in ("max_params", "max_bytes", "max_gflops"):
        known = [bound for bound in (getattr(where, name), getattr(most, name)) if bound is not None]
        bounds[name] = min(known, default=None)
    return replace(where, **bounds)
