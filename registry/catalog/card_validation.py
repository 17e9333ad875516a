"""What is said of a model besides its weights: of the right kind, or one line that says what it must be."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf
from typing import Any

from registry.catalog.arguments import number, several, text, whole
from registry.errors import UsageError
from registry.spelling import brief
from registry.types import Metric, ModelCard

__all__ = ["typed_card", "typed_metric", "typed_tag"]

TEXTS = tuple(field.name for field in fields(ModelCard) if field.default == "")


def typed_card(card: ModelCard) -> ModelCard:
    """The card with every field of its kind: NumPy's numbers as Python's, None as unknown.

    Raises ``UsageError`` naming the field that is not.
    """
    if not isinstance(card, ModelCard):
        raise UsageError(f"card is a ModelCard, not {brief(card)}", 'write card=ModelCard(family="resnet")')
    known: dict[str, Any] = {name: text(getattr(card, name) or "", name) for name in TEXTS}
    gflops = None if card.gflops is None else number(card.gflops, "gflops")
    if gflops is not None and not 0.0 <= gflops < inf:
        raise UsageError(f"gflops cannot be {gflops:g}", "give a finite number that is not negative")
    return replace(
        card,
        seed=None if card.seed is None else whole(card.seed, "seed"),
        gflops=gflops,
        metrics=tuple(map(typed_metric, several(card.metrics or (), "metrics"))),
        tags=tuple(map(typed_tag, several(card.tags or (), "tags"))),
        **known,
    )


def typed_metric(metric: Any) -> Metric:
    """The metric with every field of its kind. Raises ``UsageError``."""
    if not isinstance(metric, Metric):
        raise UsageError(f"a metric is a Metric, not {brief(metric)}", 'write Metric("top1", 92.6, "cifar10", "test")')
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


def typed_tag(pair: Any) -> tuple[str, str]:
    """A tag, key and value. Raises ``UsageError``."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UsageError(f"tags holds {brief(pair)}, which is no pair", 'write tags=[("stage", "production")]')
    return text(pair[0], "a tag's key"), text(pair[1], f"the tag {pair[0]}")
