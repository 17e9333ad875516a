"""Rows of the catalogue: an architecture at an image size, with the published weights that pass a filter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.architectures.catalogue_file import Cost
from registry.catalog.arguments import FILTER_TEXTS
from registry.catalog.constraint_report import constraints
from registry.catalog.objectives import SIZES
from registry.errors import UsageError
from registry.spelling import folded, near_spellings
from registry.types import Aim, CatalogueEntry, Filter, Metric, ModelSummary, Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.architectures.catalogue_file import Catalogue
    from registry.types import Architecture, MetricBound, PublishedWeights

__all__ = [
    "Row",
    "architecture_summary",
    "asks_for_weights",
    "best_rows",
    "bounded_metric",
    "passing_rows",
    "placed",
    "read_rows",
    "row_removals",
    "summary_of",
    "unmatched_texts_of",
]

_FLOAT32 = 4  # bytes
_NAMED = 6  # data sets named in an error
_OF_WEIGHTS = ("dataset", "licence", "min_bytes", "max_bytes", "metrics")
_UNANSWERED = {
    "tags": ("tags", "leave the tags out"),
    "related_to": ("weights that could be related", "ask a registry of models: --db FILE"),
    "unrelated_to": ("weights that could be related", "ask a registry of models: --db FILE"),
    "max_gflops": ("gigaflops as a source states them, but multiply-adds", "use the aim min:gmacs"),
}

_OF_SIZES = {
    "parameters": "bound the parameters: --max-params N",
    "bytes": "bound the bytes: --max-bytes N",
    "gflops": "use the aim min:gmacs",
    "gmacs": "use the aim min:gmacs",
}


@dataclass(frozen=True, slots=True)
class Row:
    """An architecture at an image size, with one of its published weights or none. ``model_id``: its place among all.

    ``metrics``: those of the weights at that size. ``cost``: None where no source states multiply-adds at that size.
    """

    model_id: int
    architecture: Architecture
    image_size: int | None
    cost: Cost | None
    weights: PublishedWeights | None
    metrics: tuple[Metric, ...]

    @property
    def parameters(self) -> int | None:
        """Number of trainable values; None where the library has frozen them all, for these are not counted."""
        return self.architecture.parameters or None

    @property
    def bytes(self) -> int | None:
        """Size of the published file, if known."""
        return None if self.weights is None else self.weights.bytes

    @property
    def gmacs(self) -> float | None:
        """Multiply-adds at the image size, in units of 1e9, if known."""
        return None if self.cost is None else self.cost.gmacs

    @property
    def place(self) -> tuple[int, int]:
        """What makes it another line of an answer: its architecture and image size, 0 for none."""
        return self.architecture.id, self.image_size or 0


def read_rows(catalogue: Catalogue) -> tuple[Row, ...]:
    """All rows, by architecture, image size and weights: some ten thousand. The layouts are not read.

    The image sizes of an architecture are its own and those of the metrics and multiply-adds that are stated for it.
    A metric without an image size is one at the architecture's own.
    """
    held: dict[int, list[PublishedWeights]] = {}
    for weights in catalogue.weights():
        held.setdefault(weights.architecture, []).append(weights)
    costs: dict[int, dict[int | None, Cost]] = {}
    for cost in catalogue.costs():
        costs.setdefault(cost.architecture, {})[cost.image_size] = cost
    found: list[Row] = []
    for architecture in catalogue.architectures():
        own, stated = architecture.image_size, costs.get(architecture.id, {})
        if own is not None and own not in stated and architecture.gmacs is not None:
            stated = {**stated, own: Cost(architecture.id, own, architecture.gmacs, architecture.library)}
        sizes: dict[int | None, list[tuple[PublishedWeights | None, tuple[Metric, ...]]]]
        sizes = {size: [] for size in (own, *stated)}
        for weights in held.get(architecture.id, ()):
            measured: dict[int | None, list[Metric]] = {}
            for m in weights.metrics:
                size = own if m.image_size is None else m.image_size
                measured.setdefault(size, []).append(Metric(m.name, m.value, m.dataset, m.split, source=m.source))
            for size, metrics in (measured or {own: []}).items():
                sizes.setdefault(size, []).append((weights, tuple(metrics)))
        for size in sorted(sizes, key=lambda size: size or 0):
            its_cost = stated.get(size)
            found += [
                Row(len(found) + number, architecture, size, its_cost, one, scores)
                for number, (one, scores) in enumerate(sizes[size] or [(None, ())], 1)
            ]
    return tuple(found)


def placed(where: Filter, rows: Iterable[Row]) -> Filter:
    """The filter, refused if the catalogue cannot answer it; a bound on a metric without a data set is given one.

    Weights are scored on several data sets. The bound is on the one that is asked for, where any of the rows has the
    metric on it; else on the only one on which any has it; else it is refused. A data set that no row is of matches
    none, whatever is bounded: the bound is on it.

    Raises
    ------
    UsageError
        It asks for tags, relations or gigaflops, or bounds a metric that is known on several data sets or is a size.
    """
    for field, (what, remedy) in _UNANSWERED.items():
        if getattr(where, field) != getattr(Filter(), field):
            raise UsageError(f"the catalogue has no {what}", remedy)
    if all(bound.dataset for bound in where.metrics):
        return where
    known: dict[str, Counter[str]] = {}
    held: set[str] = set()
    for row in rows:
        held.update(map(_fold, _texts(row, "dataset")))
        for metric in row.metrics:
            known.setdefault(_fold(metric.name), Counter())[metric.dataset] += 1
    for bound in where.metrics:
        size = SIZES.get(_fold(bound.name))
        if size is not None and held and _fold(bound.name) not in known:
            raise UsageError(f"{bound.name} is a size and no metric", _OF_SIZES[size])
    if where.dataset and held and _fold(where.dataset) not in held:
        bounds = (bound if bound.dataset else replace(bound, dataset=where.dataset) for bound in where.metrics)
    else:
        bounds = (bound if bound.dataset else _on_a_data_set(bound, where.dataset, known) for bound in where.metrics)
    return replace(where, metrics=tuple(bounds))


def _on_a_data_set(bound: MetricBound, asked: str, known: Mapping[str, Counter[str]]) -> MetricBound:
    """The bound on one data set. ``known``: of each metric, on which it is known, and how often."""
    counts = known.get(_fold(bound.name), Counter())
    if asked and any(_fold(dataset) == _fold(asked) for dataset in counts):
        return replace(bound, dataset=asked)
    if len(counts) > 1:
        most = [dataset for dataset, _ in counts.most_common()]
        side = f">={bound.minimum:g}" if bound.minimum is not None else f"<={bound.maximum:g}"
        raise UsageError(
            f"{bound.name} is known on {len(most)} data sets: {', '.join(most[:_NAMED])}"
            + (f" and {len(most) - _NAMED} more" if len(most) > _NAMED else ""),
            f"name one: --metric '{bound.name}@{most[0]}{side}', or --dataset {most[0]}",
        )
    return replace(bound, dataset=next(iter(counts), ""))


def passing_rows(rows: Iterable[Row], where: Filter) -> list[Row]:
    """The rows that match a filter. ``architecture`` may be a pattern (``resnet*``), or a label (``timm/resnet50``)."""
    tests = [(field, test) for field, test in _TESTS.items() if getattr(where, field) != getattr(Filter(), field)]
    return [row for row in rows if all(test(row, getattr(where, field)) for field, test in tests)]


def best_rows(rows: Iterable[Row], by: Aim | None) -> list[Row]:
    """Of each architecture and image size the row whose weights are best by a metric; without one, the first.

    Weights that lack the metric come after all others.
    """
    best: dict[tuple[int, int], tuple[float, Row]] = {}
    for row in rows:
        score = None if by is None else _score(row, by)
        cost = inf if score is None or by is None else -score if by.maximise else score
        if row.place not in best or cost < best[row.place][0]:
            best[row.place] = cost, row
    return [row for _, row in best.values()]


def _score(row: Row, aim: Aim) -> float | None:
    """The value of a metric at the row's image size, the best one of several that match; None if it is unknown."""
    values = [m.value for m in row.metrics if _is_metric(m, aim.what, aim.dataset, aim.split)]
    return (max if aim.maximise else min)(values, default=None)


def summary_of(row: Row, by: Aim | None = None) -> ModelSummary:
    """The row as a model in one line; ``by``: the metric that its weights are the best by."""
    found, weights = architecture_summary(row.architecture), row.weights
    entry = CatalogueEntry(
        row.architecture.library,
        row.architecture.line(),
        row.image_size,
        row.gmacs,
        "" if row.cost is None else row.cost.source,
        weights,
        "" if weights is None or by is None else by.place,
    )
    if weights is None:
        return replace(found, catalogue=entry)
    return replace(
        found,
        bytes=found.bytes if weights.bytes is None else weights.bytes,
        dataset=weights.dataset,
        licence=weights.licence,
        source=weights.url,
        location=weights.reference,
        metrics=row.metrics,
        catalogue=entry,
    )


def architecture_summary(architecture: Architecture, equal: Sequence[Architecture] = ()) -> ModelSummary:
    """An architecture as a model in one line, with no weights named. ``equal``: others that it is not told from."""
    return ModelSummary(
        id=0,
        name=architecture.label,
        names=(architecture.label, *(other.label for other in equal)),
        content_hash="",
        topology="",
        parameters=architecture.parameters,
        bytes=_FLOAT32 * architecture.parameters,
        layers=0,
        matrix_rule="",
        created="",
        family=architecture.family,
        architecture=architecture.name,
        task=architecture.task,
        format=architecture.library,
        weights_read=False,
        catalogue=CatalogueEntry(
            architecture.library,
            architecture.line(),
            architecture.image_size,
            architecture.gmacs,
            "" if architecture.gmacs is None else architecture.library,
        ),
    )


def bounded_metric(where: Filter) -> Aim | None:
    """The first metric that a filter bounds, as an aim towards the bounded side; None if it bounds none."""
    for bound in where.metrics:
        return Aim(bound.name, bound.minimum is not None, bound.dataset)
    return None


def row_removals(
    every: Sequence[Row],
    where: Filter,
    others: Iterable[tuple[str, NDArray[np.bool_], bool]] = (),
    *,
    than: tuple[str, Filter] | None = None,
) -> tuple[Removal, ...]:
    """For each constraint, how many lines fail it, and how many would pass if it alone were dropped; none passes now.

    A line is an architecture at an image size; it passes by any of its weights. ``others``: further constraints: texts,
    masks over the rows, and whether it is that a value is known; ``than``: the name of a model and the filter for
    smaller ones, which cannot be dropped. If nothing is smaller, it is the only one reported.
    """
    at = {place: number for number, place in enumerate(dict.fromkeys(row.place for row in every))}
    lines = np.array([at[row.place] for row in every], np.intp)

    def count(mask: NDArray[np.bool_]) -> int:
        return len(set(lines[mask].tolist()))

    rows: list[tuple[str, NDArray[np.bool_], int, tuple[str, ...]]] = []
    fixed = "" if than is None else f"smaller than {than[0]}"
    if than is not None:
        below = _mask(every, than[1])
        if not below.any():
            return (Removal(fixed, len(at), 0),)
        rows.append((fixed, below, 0, ()))
    for text, field, alone in constraints(where):
        passes = _mask(every, alone)
        known = _with_value(every, field, alone)
        near = () if passes.any() or field not in FILTER_TEXTS else _near(every, field, getattr(alone, field))
        rows.append((text, passes, 0 if known is None else len(at) - count(known), near))
    rows += [(text, passes, len(at) - count(passes) if value else 0, ()) for text, passes, value in others]
    fails = ~np.array([passes for _, passes, _, _ in rows]).reshape(len(rows), len(every))
    alone_failed = fails & (fails.sum(axis=0) == 1)
    return tuple(
        Removal(text, len(at) - count(passes), 0 if text == fixed else count(only), unknown, near)
        for (text, passes, unknown, near), only in zip(rows, alone_failed, strict=True)
    )


def asks_for_weights(where: Filter) -> bool:
    """Whether a filter has conditions on published weights, and not on architectures alone."""
    return any(getattr(where, field) != getattr(Filter(), field) for field in _OF_WEIGHTS)


def _mask(every: Sequence[Row], where: Filter) -> NDArray[np.bool_]:
    passing = {row.model_id for row in passing_rows(every, where)}
    return np.array([row.model_id in passing for row in every], np.bool_)


def _with_value(every: Sequence[Row], field: str, alone: Filter) -> NDArray[np.bool_] | None:
    """Mask of the rows with a known value of what a filter of one constraint bounds; None if every row has one."""
    if field == "metrics":
        return _mask(every, Filter(metrics=(replace(alone.metrics[0], minimum=None, maximum=None),)))
    if field in ("min_params", "max_params"):
        return np.array([row.parameters is not None for row in every], np.bool_)
    if field in ("min_bytes", "max_bytes"):
        return np.array([row.bytes is not None for row in every], np.bool_)
    return None


def _near(every: Iterable[Row], field: str, asked: str) -> tuple[str, ...]:
    """Up to three values of a text field of a filter that are spelt similarly to the one that was asked for."""
    return tuple(near_spellings(asked, sorted({value for row in every for value in _texts(row, field) if value})))


def unmatched_texts_of(every: Sequence[Row], where: Filter) -> dict[str, tuple[str, ...]]:
    """For each text of a filter that no row has, up to three similar known ones, by field."""
    alone = {field: Filter(**{field: getattr(where, field)}) for field in FILTER_TEXTS if getattr(where, field)}
    return {
        field: _near(every, field, getattr(one, field)) for field, one in alone.items() if not passing_rows(every, one)
    }


@lru_cache(maxsize=4096)
def _fold(text: str) -> str:
    return folded(text)


def _is_metric(metric: Metric, name: str, dataset: str, split: str = "") -> bool:
    return (
        _fold(metric.name) == _fold(name)
        and (not dataset or _fold(metric.dataset) == _fold(dataset))
        and (not split or _fold(metric.split) == _fold(split))
    )


def _texts(row: Row, field: str) -> Iterator[str]:
    """The values of a row for a text field of a filter."""
    if field == "architecture":
        yield from (row.architecture.name, row.architecture.label)
    elif field in ("family", "task"):
        yield getattr(row.architecture, field)
    elif row.weights is not None:
        yield getattr(row.weights, field)
        if field == "dataset":
            yield from (metric.dataset for metric in row.metrics)


def _has_text(field: str) -> Callable[[Row, str], bool]:
    def has(row: Row, asked: str) -> bool:
        return any(_fold(value) == _fold(asked) for value in _texts(row, field))

    return has


def _is_called(row: Row, asked: str) -> bool:
    return any(fnmatchcase(_fold(value), _fold(asked)) for value in _texts(row, "architecture"))


def _is_within(row: Row, bounds: Iterable[MetricBound]) -> bool:
    return all(
        any(
            _is_metric(metric, bound.name, bound.dataset)
            and (bound.minimum is None or metric.value >= bound.minimum)
            and (bound.maximum is None or metric.value <= bound.maximum)
            for metric in row.metrics
        )
        for bound in bounds
    )


# Weights are of a data set also where they were scored on it, as stored models are.
_TESTS: Mapping[str, Callable[[Row, Any], bool]] = {
    **{field: _has_text(field) for field in FILTER_TEXTS},
    "architecture": _is_called,
    "min_params": lambda row, least: row.parameters is not None and row.parameters >= least,
    "max_params": lambda row, most: row.parameters is not None and row.parameters <= most,
    "min_bytes": lambda row, least: row.bytes is not None and row.bytes >= least,
    "max_bytes": lambda row, most: row.bytes is not None and row.bytes <= most,
    "metrics": _is_within,
}
