"""Argument checks of ``Registry``: type and range of values.

Databases compare a text with a number by different rules, so wrong types are refused before a query.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from math import ceil, floor, inf, isfinite
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.spelling import brief, folded
from registry.types import Filter, Kin, Metric, MetricBound, ModelCard

__all__ = [
    "FILTER_TEXTS",
    "card_of",
    "consistent",
    "filter_of",
    "metric_bounds",
    "number",
    "path",
    "place",
    "refuse_unknown",
    "several",
    "text",
    "typed_card",
    "typed_metric",
    "whole",
]

RENAMED = {"accuracy": ("tolerance", "tolerance=0.1"), "metric": ("distance", 'distance="l1"')}
"""Renamed keywords with their new name and an example."""

FILTER_TEXTS = ("family", "architecture", "task", "dataset", "licence")
CARD_TEXTS = tuple(field.name for field in fields(ModelCard) if field.default == "")
SIZES: dict[str, Callable[[float], int]] = {
    "min_params": ceil,
    "max_params": floor,
    "min_bytes": ceil,
    "max_bytes": floor,
}
LARGEST = 2**63 - 1  # largest integer of a database column


def number(value: Any, name: str) -> float:
    """Return a real number as a float. Raises ``UsageError`` for other types, also for texts and booleans."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {brief(value)}")
    return float(value)


def whole(value: Any, name: str, least: int | None = None) -> int:
    """Return a whole number of at least ``least``. Raises ``UsageError``, also for booleans."""
    try:
        found = None if isinstance(value, bool) else index(value)
    except TypeError:
        found = None
    if found is None:
        raise UsageError(f"{name} must be a whole number, not {brief(value)}")
    if least is not None and found < least:
        raise UsageError(f"{name} must be at least {least}, not {found}")
    return found


def text(value: Any, name: str) -> str:
    """Return a text. Raises ``UsageError`` for other types."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not {brief(value)}")
    return value


def path(value: Any, name: str) -> Path:
    """Return a path, given as a path or a text. Raises ``UsageError`` for other types."""
    return Path(place(value, name, "a path"))


def place(value: Any, name: str, kind: str = "a URL or a path") -> str:
    """Return a URL or a path as a text. Raises ``UsageError`` for other types, also for paths of bytes."""
    found = value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(found, str):
        raise UsageError(f"{name} must be {kind}, not {brief(value)}", "give a text or a pathlib.Path")
    return found


def several(values: Any, name: str) -> tuple[Any, ...]:
    """Return an iterable as a tuple. Raises ``UsageError`` for other types, also for a single text."""
    if isinstance(values, str):
        raise UsageError(f"{name} must be a list, not the text {values!r}", f"write [{values!r}]")
    if not isinstance(values, Iterable):
        raise UsageError(f"{name} must be a list, not {brief(values)}", "write a list: [...]")
    return tuple(values)


def refuse_unknown(given: Iterable[str], noun: str = "keyword", known: Iterable[str] = ()) -> None:
    """Raise ``UsageError`` for the first of the unknown keywords, with the new name if it was renamed."""
    for name in sorted(given):
        if name in RENAMED:
            new, example = RENAMED[name]
            raise UsageError(f"{name!r} is now {new!r}", f"write {example}")
        raise UsageError(f"unknown {noun} {name!r}", f"known: {', '.join(known)}" if known else None)


def filter_of(given: Mapping[str, Any]) -> Filter:
    """Return the filter of those keywords; None is no filter.

    Raises ``UsageError`` for an unknown keyword, a value of the wrong type, or bounds that exclude each other.
    """
    if not given:
        return Filter()
    refuse_unknown(given.keys() - Filter.__slots__, "filter", Filter.__slots__)
    return consistent(_typed(Filter(**given)))


def card_of(given: Mapping[str, Any]) -> ModelCard:
    """Return the card of those keywords. Raises ``UsageError`` for an unknown keyword or a wrong type."""
    if not given:
        return ModelCard()
    refuse_unknown(given.keys() - ModelCard.__slots__, "field", ModelCard.__slots__)
    return typed_card(ModelCard(**given))


def _typed(where: Filter) -> Filter:
    """Return the filter with checked types. Sizes may be floats such as 1e6; None is no filter.

    Raises ``UsageError`` that names a field of the wrong type.
    """
    given: dict[str, Any] = {name: text(getattr(where, name) or "", name) for name in FILTER_TEXTS}
    for name, rounded in SIZES.items():
        value = getattr(where, name)
        given[name] = None if value is None else _held(rounded(_finite(value, name)), name)
    given["max_gflops"] = None if where.max_gflops is None else _finite(where.max_gflops, "max_gflops")
    given["metrics"] = tuple(map(_typed_bound, several(where.metrics or (), "metrics")))
    given["tags"] = tuple(map(_typed_tag, several(where.tags or (), "tags")))
    for name in ("related_to", "unrelated_to"):
        model = getattr(where, name)
        unset = model is None or (isinstance(model, str) and not model)
        given[name] = None if unset else model if isinstance(model, Kin) else Kin(model)
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
            f"metrics must hold MetricBound objects, not {bound!r}",
            'write metrics=[MetricBound("top1", minimum=92)]',
        )
    text(bound.name, "a bound's name")
    text(bound.dataset, "a bound's dataset")
    name = f"the bound on {bound.name}"
    least, most = (None if value is None else _finite(value, name) for value in (bound.minimum, bound.maximum))
    return replace(bound, minimum=least, maximum=most)


def consistent(where: Filter) -> Filter:
    """Return the filter. Raises ``UsageError`` for two bounds that no model can satisfy together."""
    for what in ("params", "bytes"):
        least, most = getattr(where, f"min_{what}"), getattr(where, f"max_{what}")
        if least is not None and most is not None and least > most:
            raise UsageError(
                f"no model can have at least {least:,} and at most {most:,} {what}", "drop one of the bounds"
            )
    for bound in where.metrics:
        if bound.minimum is not None and bound.maximum is not None and bound.minimum > bound.maximum:
            raise UsageError(
                f"no {bound.name} can be at least {bound.minimum:g} and at most {bound.maximum:g}",
                "drop one of the bounds",
            )
    values: dict[str, str] = {}
    for key, value in where.tags:
        if folded(values.setdefault(folded(key), value)) != folded(value):
            raise UsageError(
                f"no model can have both tags {key}={values[folded(key)]} and {key}={value}", "drop one of the tags"
            )
    return where


def metric_bounds(least: Mapping[str, float], most: Mapping[str, float]) -> tuple[MetricBound, ...]:
    """Return one bound per metric ``name`` or ``name@dataset``. Raises ``UsageError`` for other types than mappings."""
    for name, given in (("min_metric", least), ("max_metric", most)):
        if not isinstance(given, Mapping):
            raise UsageError(f"{name} must be a mapping, not {given!r}", f'write {name}={{"top1@cifar10": 92}}')
    found = []
    for key in dict.fromkeys([*least, *most]):
        name, _, dataset = text(key, "a metric's name").partition("@")
        found.append(MetricBound(name, least.get(key), most.get(key), dataset))
    return tuple(found)


def typed_card(card: ModelCard) -> ModelCard:
    """Return the card with checked types: NumPy numbers become Python numbers, None is unknown.

    Raises ``UsageError`` that names a field of the wrong type.
    """
    if not isinstance(card, ModelCard):
        raise UsageError(f"card must be a ModelCard, not {brief(card)}", 'write card=ModelCard(family="resnet")')
    known: dict[str, Any] = {name: text(getattr(card, name) or "", name) for name in CARD_TEXTS}
    gflops = None if card.gflops is None else number(card.gflops, "gflops")
    if gflops is not None and not 0.0 <= gflops < inf:
        raise UsageError(f"gflops must be finite and not negative, not {gflops:g}")
    return replace(
        card,
        seed=None if card.seed is None else whole(card.seed, "seed"),
        gflops=gflops,
        metrics=tuple(map(typed_metric, several(card.metrics or (), "metrics"))),
        tags=tuple(map(_typed_tag, several(card.tags or (), "tags"))),
        **known,
    )


def typed_metric(metric: Any) -> Metric:
    """Return the metric with checked types. Raises ``UsageError`` for a wrong type."""
    if not isinstance(metric, Metric):
        raise UsageError(
            f"a metric must be a Metric, not {brief(metric)}", 'write Metric("top1", 92.6, "cifar10", "test")'
        )
    better = metric.higher_is_better
    if better not in (None, True, False):
        raise UsageError(f"higher_is_better of {metric.name} must be True, False or None, not {brief(better)}")
    return Metric(
        text(metric.name, "a metric's name"),
        number(metric.value, f"the metric {metric.name}"),
        text(metric.dataset, "a metric's dataset"),
        text(metric.split, "a metric's split"),
        None if better is None else bool(better),
        text(metric.source, "a metric's source"),
    )


def _typed_tag(pair: Any) -> tuple[str, str]:
    """Return a tag as key and value. Raises ``UsageError`` for other types."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UsageError(f"tags must hold pairs, not {brief(pair)}", 'write tags=[("stage", "production")]')
    return text(pair[0], "a tag's key"), text(pair[1], f"the tag {pair[0]}")
