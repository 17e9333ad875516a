"""Requirements of a gate: what must hold of two models, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from registry.catalog.arguments import number, several, text
from registry.errors import UsageError
from registry.spelling import counted, folded
from registry.types import REQUIREMENTS, ModelCard, Requirement
from registry.types.weights import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from registry.types import Comparison, Metric, MetricChange, ModelSummary, Relation

__all__ = ["Conditions", "MaxDrop", "conditions_of", "held", "with_metrics"]

ROUNDING = 1e-9
"""Relative error that is no drop: 92.6 - 92.1 is not 0.5 in binary."""


@dataclass(frozen=True, slots=True)
class MaxDrop:
    """A metric, on all data sets and splits or on the given ones, and by how much b may be worse than a in it."""

    name: str
    dataset: str
    split: str
    drop: float

    @property
    def require(self) -> str:
        """The condition as it is written on the command line."""
        return f"max-drop {place_of(self.name, self.dataset, self.split)}={self.drop:g}"

    def bounds(self, name: str, dataset: str, split: str) -> bool:
        """Whether the metric of that name, data set and split is bounded; case does not count."""
        return (
            folded(name) == folded(self.name)
            and (not self.dataset or folded(dataset) == folded(self.dataset))
            and (not self.split or folded(split) == folded(self.split))
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold of two models; all of it."""

    require: tuple[str, ...] = ()
    drops: tuple[MaxDrop, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.require or self.drops)


def conditions_of(require: Any, max_drop: Any) -> Conditions:
    """Return the conditions of those arguments of ``Registry``, each once.

    Raises ``UsageError`` for an unknown requirement, a name without a metric, or a drop that is negative or not finite.
    """
    wanted = dict.fromkeys(text(each, "a requirement") for each in several(require, "require"))
    for each in wanted:
        if each not in REQUIREMENTS:
            raise UsageError(f"unknown requirement {each!r}", f"known: {', '.join(REQUIREMENTS)}")
    if not isinstance(max_drop or {}, Mapping):
        raise UsageError(f"max_drop must be a mapping, not {max_drop!r}", 'write max_drop={"top1@cifar10": 0.5}')
    return Conditions(tuple(wanted), tuple(_max_drop(key, drop) for key, drop in (max_drop or {}).items()))


def _max_drop(key: Any, drop: Any) -> MaxDrop:
    name, _, place = text(key, "a metric's name").partition("@")
    dataset, _, split = place.rpartition("/") if "/" in place else (place, "", "")
    if not name.strip():
        raise UsageError(f"max_drop has no metric in {key!r}", "write top1 or top1@cifar10")
    most = number(drop, f"the largest drop of {key}")
    if not 0.0 <= most < float("inf"):
        raise UsageError(f"the largest drop of {key} must be finite and not negative, not {most:g}")
    return MaxDrop(name.strip(), dataset.strip(), split.strip(), most)


def with_metrics(model: ModelSummary, metrics: Sequence[Metric]) -> ModelSummary:
    """The model with more metrics; one of the same name, data set and split takes the place of its own."""
    return replace(model, metrics=ModelCard(metrics=model.metrics).updated(ModelCard(metrics=tuple(metrics))).metrics)


def held(compared: Comparison, relation: Relation, wanted: Conditions) -> tuple[Requirement, ...]:
    """Whether each condition holds of the two models, in the order in which they were given; drops come last."""
    found = [Requirement(each, *_TOLD[each](compared, relation)) for each in wanted.require]
    return (*found, *(_within(compared, drop) for drop in wanted.drops))


def _equivalent(compared: Comparison, _relation: Relation) -> tuple[bool, str]:
    verdict = compared.verdict
    if verdict.by_shapes:
        return False, "shapes alone are compared; that weights are equivalent is not known"
    if verdict.equivalent is None:
        return False, f"{compared.spec.label} with {compared.distance} is not calibrated, and no tolerance is given"
    if not verdict.equivalent:
        return False, "; ".join(verdict.reasons)
    within = f"distance {verdict.distance:.3g} is within the tolerance {verdict.tolerance:.3g}"
    if compared.contradicting:
        within += f", but {'; '.join(map(_moved, compared.contradicting))}"
    return True, within


def _moved(change: MetricChange) -> str:
    way = "lower" if change.change < 0 else "higher"
    at = " ".join(part for part in (change.dataset, change.split) if part)
    return f"{change.name} is {abs(change.change):.3g} {way}" + (f" on {at}" if at else "")


def _related(_compared: Comparison, relation: Relation) -> tuple[bool, str]:
    if relation.verdict == "identical":
        return True, "the contents are identical"
    if relation.verdict == "permuted":
        return (
            True,
            "the weights are the same but for the order of units, or a rotation: spectra of all layers are equal",
        )
    if relation.verdict == "not comparable":
        return False, relation.reason
    told = f"correlation {relation.correlation:.3g}, standard error {relation.error:.1g}, in " + (
        f"{counted(relation.layers, 'layer')} with {100 * relation.share:.0f} % of the weights"
    )
    if relation.verdict == "related":
        return True, told
    return False, f"{relation.verdict}: " + (f"{relation.reason}; {told}" if relation.reason else told)


def _identical(compared: Comparison, relation: Relation) -> tuple[bool, str]:
    if unread := [model.name for model in (compared.a, compared.b) if not model.weights_read]:
        return False, f"the weights of {' and '.join(unread)} were not read"
    if relation.verdict == "identical":
        return True, f"both are sha256 {compared.a.content_hash[:12]}"
    hashes = f"sha256 {compared.a.content_hash[:12]} against {compared.b.content_hash[:12]}"
    more = {"permuted": "; equal but for the order of units", "related": "; the weights are related"}
    return False, f"the contents differ, {hashes}{more.get(relation.verdict, '')}"


def _same_shape(compared: Comparison, _relation: Relation) -> tuple[bool, str]:
    a, b = compared.a, compared.b
    if a.topology == b.topology:
        return True, f"both have topology {a.topology}, {counted(a.layers, 'layer')}"
    if a.layers != b.layers:
        return False, f"{counted(a.layers, 'layer')} against {b.layers:,}"
    return False, f"layers of other shapes: topology {a.topology} against {b.topology}"


_TOLD: dict[str, Callable[[Comparison, Relation], tuple[bool, str]]] = {
    "equivalent": _equivalent,
    "related": _related,
    "identical": _identical,
    "same-shape": _same_shape,
}


def _within(compared: Comparison, wanted: MaxDrop) -> Requirement:
    """Whether b is worse than a by at most the drop, wherever both have the metric on one data set and split."""
    both = [each for each in compared.changes if wanted.bounds(each.name, each.dataset, each.split)]
    if not both:
        return Requirement(wanted.require, False, _not_both(compared.a, compared.b, wanted))
    told, met = [], True
    for each in both:
        values = f"{each.place} {each.original:.6g} to {each.candidate:.6g}"
        if each.higher_is_better is None:
            met = False
            told.append(
                f"{values}: whether higher is better is not known; archreg set {compared.a.name} "
                f"--metric {each.place}={each.original:.6g} --higher-is-better tells it"
            )
            continue
        drop = -each.change if each.higher_is_better else each.change
        within = drop <= wanted.drop + ROUNDING * max(abs(each.original), abs(each.candidate))
        met &= within
        told.append(f"{values}, {_drop(drop)}" + ("" if within else f", beyond {wanted.drop:g}"))
    return Requirement(wanted.require, met, "; ".join(told))


def _drop(drop: float) -> str:
    return f"{drop:.3g} worse" if drop > 0 else f"{-drop:.3g} better" if drop < 0 else "the same"


def _not_both(a: ModelSummary, b: ModelSummary, wanted: MaxDrop) -> str:
    """Why no metric of that name can be compared: who has none, or on what each has it."""
    places = [sorted(_places(model, wanted)) for model in (a, b)]
    if all(places):
        return (
            f"{wanted.name} is not known of both on one data set and split: {a.name} has {', '.join(places[0])}, "
            f"{b.name} has {', '.join(places[1])}"
        )
    lack = [model.name for model, known in zip((a, b), places, strict=True) if not known]
    return f"{place_of(wanted.name, wanted.dataset, wanted.split)} is not known of {' and '.join(lack)}"


def _places(model: ModelSummary, wanted: MaxDrop) -> Iterator[str]:
    return (each.place for each in model.metrics if wanted.bounds(each.name, each.dataset, each.split))
