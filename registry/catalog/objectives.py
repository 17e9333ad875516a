"""Aims of a selection, and the values of models for them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from registry.equivalence import direction, pareto
from registry.errors import UsageError
from registry.spelling import folded
from registry.types import Aim

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from registry.types import Filter, Metric

__all__ = [
    "DISTANCE",
    "OPERATIONS",
    "SIZES",
    "SMALL",
    "Figures",
    "UnknownValueError",
    "default_aims",
    "distinct",
    "front",
    "parse_aim",
    "resolved",
]

SIZES = {
    "params": "parameters",
    "parameters": "parameters",
    "bytes": "bytes",
    "size": "bytes",
    "gflops": "gflops",
    "gmacs": "gmacs",
}
OPERATIONS = {
    "gflops": ("the catalogue states multiply-adds and no gigaflops", "write gmacs in place of gflops"),
    "gmacs": (
        "multiply-adds (gmacs) are known in the catalogue alone; the gigaflops of a stored model are what its source "
        "stated",
        "write gflops in place of gmacs, or ask --db catalogue:",
    ),
}
"""By count of operations: why the models of the other count do not have it, and what to do. A source counts a
multiply-add as one operation or as two, so the two are never converted or compared."""
DISTANCE = "distance"
SHOWN = 6  # known metrics named in an error
SMALL = Aim("parameters", maximise=False)


def parse_aim(text: str) -> Aim:
    """Parse an aim: ``max:top1@cifar10/test``, ``min:params``, ``bytes``, ``gflops``, ``gmacs`` or ``distance``.

    Raises ``UsageError`` for anything else.
    """
    match = re.fullmatch(r"\s*(max|min):([^@]+)(?:@([^/]+)(?:/(.+))?)?", text)
    if match is None or not match[2].strip():
        raise UsageError(
            f"{text!r} is not an aim", "write max:top1@cifar10, min:params, min:bytes, min:gflops or min:gmacs"
        )
    what = match[2].strip()
    size = SIZES.get(what.lower(), DISTANCE if what.lower() == DISTANCE else None)
    if size and match[3]:
        raise UsageError(f"{text!r}: {size} has no dataset", f"write {match[1]}:{what}")
    return Aim(size or what, match[1] == "max", (match[3] or "").strip(), (match[4] or "").strip())


class UnknownValueError(UsageError):
    """No model that passes has a value for an aim."""

    def __init__(self, aim: Aim, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.aim = aim


class Sized(Protocol):
    """What has sizes: a stored model or a row of the catalogue; None where one is unknown."""

    @property
    def model_id(self) -> int: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def bytes(self) -> int | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Sizes and metrics of the models that pass; ``distances`` from the model ``like`` by id, None without one.

    ``operations``: the count of operations that they may have, ``gflops`` or, in the catalogue, ``gmacs``.
    """

    sizes: Sequence[Sized]
    metrics: Sequence[tuple[int, Metric]]
    distances: dict[int, float] | None
    operations: str = "gflops"

    @property
    def ids(self) -> NDArray[np.int64]:
        """Model ids: int64 array of shape (n,), ascending."""
        return np.array([size.model_id for size in self.sizes], dtype=np.int64)

    def of(self, aim: Aim) -> NDArray[np.float64]:
        """Value of each model for an aim: float64 array of shape (n,), NaN if unknown."""
        if aim.what == DISTANCE:
            return np.array([(self.distances or {}).get(size.model_id, np.nan) for size in self.sizes])
        if aim.what in SIZES.values():
            return np.array([getattr(size, aim.what) for size in self.sizes], dtype=np.float64)
        key = _key(aim.what, aim.dataset, aim.split)
        known = {model: m.value for model, m in self.metrics if _key(m.name, m.dataset, m.split) == key}
        return np.array([known.get(size.model_id, np.nan) for size in self.sizes])


def resolved(aim: Aim, figures: Figures) -> Aim:
    """Return the aim with the dataset and split of its metric, spelt as stored.

    Raises ``UsageError`` if no model has a value, or the metric is stored for several datasets or splits.
    """
    if aim.what == DISTANCE and figures.distances is None:
        raise UsageError("the aim distance needs a model to compare with", "add --like MODEL")
    if aim.what in OPERATIONS and aim.what != figures.operations:
        raise UsageError(*OPERATIONS[aim.what])
    if aim.what == DISTANCE or aim.what in SIZES.values():
        if np.isnan(figures.of(aim)).all():
            raise UnknownValueError(
                aim, f"no model that passes has known {aim.what}", f"archreg set NAME --{aim.what} X, or drop the aim"
            )
        return aim
    wanted = _key(aim.what, aim.dataset, aim.split)
    found: dict[tuple[str, str, str], Aim] = {}
    for _, metric in figures.metrics:
        key = _key(metric.name, metric.dataset, metric.split)
        if all(not asked or asked == has for asked, has in zip(wanted, key, strict=True)):
            found.setdefault(key, replace(aim, what=metric.name, dataset=metric.dataset, split=metric.split))
    places = sorted(one.place for one in found.values())
    if not found:
        known = sorted({Aim(m.name, True, m.dataset, m.split).place for _, m in figures.metrics})
        raise UnknownValueError(
            aim,
            f"no model that passes has the metric {aim.place}",
            f"known metrics: {_some(known)}"
            if known
            else "set one: archreg set NAME --metric 'top1@cifar10/test=92.6'",
        )
    if len(found) > 1:
        way = "max" if aim.maximise else "min"
        raise UsageError(
            f"{aim.place} is ambiguous: {_some(places)}",
            f"choose one: --aim {way}:{places[0]}",
        )
    return next(iter(found.values()))


def distinct(aims: Iterable[Aim]) -> tuple[Aim, ...]:
    """The aims without duplicates. Raises ``UsageError`` if one quantity is both minimised and maximised."""
    found: dict[str, Aim] = {}
    for aim in aims:
        if found.setdefault(aim.place, aim).maximise != aim.maximise:
            raise UsageError(f"{aim.place} cannot be both maximised and minimised", "drop one of the aims")
    return tuple(found.values())


def default_aims(where: Filter, figures: Figures) -> tuple[Aim, ...]:
    """Default aims: the metrics that the filter bounds, else the most common metric; and fewest parameters.

    Only metrics with a known direction are used. Without any, the distance to the model ``like``, if there is one.
    """
    bounded = tuple(
        Aim(bound.name, maximise=bound.minimum is not None, dataset=bound.dataset)
        for bound in where.metrics
        if (bound.minimum is None) != (bound.maximum is None)
    )
    if bounded:
        return (*bounded, SMALL)
    held: dict[tuple[str, str, str], list[Metric]] = {}
    for _, metric in figures.metrics:
        held.setdefault(_key(metric.name, metric.dataset, metric.split), []).append(metric)
    ways = {key: way for key, records in held.items() if (way := direction(*records)) is not None}
    counts = Counter({key: len(held[key]) for key in sorted(ways)})
    if counts:
        [(key, _)] = counts.most_common(1)
        first = held[key][0]
        return (Aim(first.name, ways[key], first.dataset, first.split), SMALL)
    return (SMALL,) if figures.distances is None else (Aim(DISTANCE, maximise=False), SMALL)


def front(values: NDArray[np.float64], aims: Sequence[Aim]) -> NDArray[np.intp]:
    """Rows of the Pareto front of n models with known values (n, a), in order of the first aim, then of the others."""
    if not len(values):
        return np.empty(0, np.intp)
    costs = values * np.array([-1.0 if aim.maximise else 1.0 for aim in aims])
    rows = pareto(costs)
    return rows[np.lexsort(costs[rows].T[::-1])]


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")


def _key(name: str, dataset: str, split: str) -> tuple[str, str, str]:
    """Key for comparisons, folded as filters fold texts."""
    return folded(name), folded(dataset), folded(split)
