"""Bounds that a question sets, and those that exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor, inf, isfinite, nextafter
from numbers import Integral
from typing import TYPE_CHECKING, Any

from registry.catalog.arguments import number, several, text
from registry.catalog.card_validation import typed_tag
from registry.errors import UsageError
from registry.types import Filter, MetricBound

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.types import ModelSummary

__all__ = ["TEXTS", "asked", "below", "consistent", "metric_bounds", "smaller", "typed"]

TEXTS = ("family", "architecture", "task", "dataset", "licence")
SIZES: dict[str, Callable[[float], int]] = {
    "min_params": ceil,
    "max_params": floor,
    "min_bytes": ceil,
    "max_bytes": floor,
}
LARGEST = 2**63 - 1  # that a database holds


def typed(where: Filter) -> Filter:
    """The filter with every field of its kind; sizes may be given as floats such as 1e6, None is no filter.

    Raises ``UsageError`` naming the field that is not.
    """
    given: dict[str, Any] = {name: text(getattr(where, name) or "", name) for name in TEXTS}
    for name, rounded in SIZES.items():
        value = getattr(where, name)
        given[name] = None if value is None else _held(rounded(_finite(value, name)), name)
    given["max_gflops"] = None if where.max_gflops is None else _finite(where.max_gflops, "max_gflops")
    given["metrics"] = tuple(map(_typed_bound, several(where.metrics or (), "metrics")))
    given["tags"] = tuple(map(typed_tag, several(where.tags or (), "tags")))
    return Filter(**given)


def _finite(value: Any, name: str) -> float:
    if not isfinite(found := number(value, name)):
        raise UsageError(f"{name} must be finite, not {value}", "leave it out")
    return int(value) if isinstance(value, Integral) else found  # a float does not hold every int


def _held(value: int, name: str) -> int:
    if not -LARGEST <= value <= LARGEST:
        raise UsageError(f"{name} must be below 2^63, not {value:.3g}", "leave it out")
    return value


def _typed_bound(bound: Any) -> MetricBound:
    if not isinstance(bound, MetricBound):
        raise UsageError(
            f"metrics holds {bound!r}, which is no bound",
            'write metrics=[MetricBound("top1", minimum=92)]',
        )
    text(bound.name, "a bound's name")
    text(bound.dataset, "a bound's dataset")
    name = f"the bound on {bound.name}"
    least, most = (None if value is None else _finite(value, name) for value in (bound.minimum, bound.maximum))
    return replace(bound, minimum=least, maximum=most)


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


def asked(model: ModelSummary, where: Filter, max_ratio: float | None) -> Filter:
    """The filter with ``max_ratio``, of the model's parameters, in (0, 1], as a bound. Raises ``UsageError``."""
    if max_ratio is None:
        return where
    if not 0.0 < number(max_ratio, "max_ratio") <= 1.0:
        raise UsageError(f"max_ratio must lie in (0, 1], not {max_ratio}")
    return _both(where, Filter(max_params=int(max_ratio * model.parameters)))


def below(model: ModelSummary, where: Filter) -> Filter:
    """What is smaller than ``model`` in whatever ``where`` bounds from above and is known of it: else in parameters."""
    by_bytes, by_gflops = where.max_bytes is not None, where.max_gflops is not None and model.gflops is not None
    return Filter(
        max_params=model.parameters - 1 if where.max_params is not None or not (by_bytes or by_gflops) else None,
        max_bytes=model.bytes - 1 if by_bytes else None,
        max_gflops=nextafter(model.gflops, -inf) if by_gflops and model.gflops is not None else None,
    )


def smaller(model: ModelSummary, where: Filter) -> Filter:
    """The filter, narrowed to what is `below` the model. Raises ``UsageError`` where nothing can be so small."""
    return consistent(_both(where, below(model, where)))


def _both(where: Filter, most: Filter) -> Filter:
    """``where``, and at most what ``most`` bounds."""
    bounds: dict[str, Any] = {}
    for name in ("max_params", "max_bytes", "max_gflops"):
        known = [bound for bound in (getattr(where, name), getattr(most, name)) if bound is not None]
        bounds[name] = min(known, default=None)
    return replace(where, **bounds)


def metric_bounds(least: Mapping[str, float], most: Mapping[str, float]) -> tuple[MetricBound, ...]:
    """Bounds by ``name`` or ``name@dataset``, one for each. Raises ``UsageError`` for what is no mapping of texts."""
    for name, given in (("min_metric", least), ("max_metric", most)):
        if not isinstance(given, Mapping):
            raise UsageError(f"{name} must be a mapping, not {given!r}", f'write {name}={{"top1@cifar10": 92}}')
    found = []
    for key in dict.fromkeys([*least, *most]):
        name, _, dataset = text(key, "a metric's name").partition("@")
        found.append(MetricBound(name, least.get(key), most.get(key), dataset))
    return tuple(found)
