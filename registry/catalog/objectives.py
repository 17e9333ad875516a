"""What a selection aims at, and the figures that it goes by."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.equivalence import direction
from registry.errors import UsageError
from registry.types import Aim

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from registry.storage import Size
    from registry.types import Filter, Metric

__all__ = ["Figures", "default_aims", "distinct", "parse_aim", "resolved"]

SIZES = {"params": "parameters", "parameters": "parameters", "bytes": "bytes", "size": "bytes", "gflops": "gflops"}
DISTANCE = "distance"
SHOWN = 6  # of the metrics that could have been meant
SMALL = Aim("parameters", maximise=False)


def parse_aim(text: str) -> Aim:
    """``max:top1@cifar10``, ``max:top1@cifar10/test``, ``min:params``, ``min:bytes``, ``min:gflops``, ``min:distance``.

    Raises ``UsageError`` for anything else.
    """
    match = re.fullmatch(r"\s*(max|min):([^@]+)(?:@([^/]+)(?:/(.+))?)?", text)
    if match is None or not match[2].strip():
        raise UsageError(f"{text!r} is no aim", "write it as max:top1@cifar10, min:params, min:bytes or min:gflops")
    what = match[2].strip()
    size = SIZES.get(what.lower(), DISTANCE if what.lower() == DISTANCE else None)
    if size and match[3]:
        raise UsageError(f"{text!r}: {size} is measured on no data set", f"write it as {match[1]}:{what}")
    return Aim(size or what, match[1] == "max", (match[3] or "").strip(), (match[4] or "").strip())


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Sizes and metrics of the models that pass; ``distances`` by id, None where there is nothing to be like."""

    sizes: Sequence[Size]
    metrics: Sequence[tuple[int, Metric]]
    distances: dict[int, float] | None

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,), ascending."""
        return np.array([size.model_id for size in self.sizes], dtype=np.int64)

    def of(self, aim: Aim) -> NDArray[np.float64]:
        """The figure of each model (n,), NaN where it is not known."""
        if aim.what == DISTANCE:
            return np.array([(self.distances or {}).get(size.model_id, np.nan) for size in self.sizes])
        if aim.what in SIZES.values():
            return np.array([getattr(size, aim.what) for size in self.sizes], dtype=np.float64)
        key = _key(aim.what, aim.dataset, aim.split)
        known = {model: m.value for model, m in self.metrics if _key(m.name, m.dataset, m.split) == key}
        return np.array([known.get(size.model_id, np.nan) for size in self.sizes])


def resolved(aim: Aim, figures: Figures) -> Aim:
    """The aim with the one data set and split on which its metric is known, spelt as stored.

    Raises ``UsageError`` where none of the models has the figure, or has the metric on several data sets or splits.
    """
    if aim.what == DISTANCE and figures.distances is None:
        raise UsageError("the distance is from the model to be like, and none is given", "add --like MODEL")
    if aim.what == DISTANCE or aim.what in SIZES.values():
        if np.isnan(figures.of(aim)).all():
            raise UsageError(
                f"{aim.what} is not known of any model that passes", f"archreg set NAME --{aim.what} X, or drop the aim"
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
        raise UsageError(
            f"no model that passes has the metric {aim.place}",
            f"known of them: {_some(known)}"
            if known
            else "set one: archreg set NAME --metric 'top1@cifar10/test=92.6'",
        )
    if len(found) > 1:
        way = "max" if aim.maximise else "min"
        raise UsageError(
            f"{aim.place} is known in several ways, which do not compare: {_some(places)}",
            f"say which: --aim {way}:{places[0]}",
        )
    return next(iter(found.values()))


def distinct(aims: Iterable[Aim]) -> tuple[Aim, ...]:
    """The aims, each once. Raises ``UsageError`` for one that is to be large and small, by which none beats another."""
    found: dict[str, Aim] = {}
    for aim in aims:
        if found.setdefault(aim.place, aim).maximise != aim.maximise:
            raise UsageError(f"{aim.place} cannot be aimed at both ways, max and min", "drop one of the aims")
    return tuple(found.values())


def default_aims(where: Filter, figures: Figures) -> tuple[Aim, ...]:
    """The metrics that the filter bounds, else the one that most of the models have; and few parameters.

    Of metrics only those whose direction is known count. Without any, near what they are to be like.
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


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")


def _key(name: str, dataset: str, split: str) -> tuple[str, str, str]:
    """Texts compare without regard to case."""
    return name.lower(), dataset.lower(), split.lower()
