"""Constraint reports of empty answers: models removed by each constraint, and filter values that no model has."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.catalog.arguments import FILTER_TEXTS
from registry.catalog.bounds import below
from registry.spelling import counted
from registry.types import Filter, Removal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from registry.catalog.objectives import Figures
    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query
    from registry.storage import Store
    from registry.types import Aim, MetricBound, ModelSummary

__all__ = ["constraints", "removals", "unmatched"]

KIN = {"related_to": "related to", "unrelated_to": "unrelated to"}
BOUNDS = {
    "min_params": ("at least", "parameter"),
    "max_params": ("at most", "parameter"),
    "min_bytes": ("at least", "byte"),
    "max_bytes": ("at most", "byte"),
}


def removals(
    store: Store,
    settings: SearchSettings,
    where: Filter,
    *,
    like: Query | None = None,
    than: ModelSummary | None = None,
    figures: Figures | None = None,
    aims: Sequence[Aim] = (),
) -> tuple[Removal, ...]:
    """For each of c constraints: how many models fail it, and how many would pass if it alone were dropped; O(c n).

    Further constraints: equivalence to ``like``; a known value in ``figures`` for each aim; and being smaller ``than``
    a model. The last cannot be dropped; if no model is smaller, it is the only one reported.
    """
    from registry.catalog.searching import gallery_of
    from registry.storage.models.model_queries import candidate_ids

    every = np.array(store.read(candidate_ids), dtype=np.int64)
    fixed = f"smaller than {than.name}" if than is not None else ""
    rows: list[tuple[str, NDArray[np.bool_], int, tuple[str, ...]]] = []
    for text, field, alone in constraints(where):
        ids = store.read(candidate_ids, alone)
        known = _figure_known(field, alone)
        unknown = 0 if known is None else len(every) - len(store.read(candidate_ids, known))
        rows.append((text, np.isin(every, ids), unknown, () if ids else _near(store, field, alone)))
    if than is not None:
        ids = store.read(candidate_ids, below(than, where))
        if not ids:
            return (Removal(fixed, len(every), 0),)
        rows.append((fixed, np.isin(every, ids), 0, ()))
    if like is not None:
        equivalent, _ = gallery_of(store, like, replace(settings, fixed=True), Filter()).equivalent()
        passing = np.isin(every, [*equivalent.tolist(), like.id])
        rows.append((f"equivalent to {like.model().name}", passing, 0, ()))
    if figures is not None:
        # Other models failed another constraint; for them the values are not read.
        lacking = [(aim, figures.ids[np.isnan(figures.of(aim))]) for aim in aims]
        rows += [(f"a known {aim.place}", ~np.isin(every, ids), len(ids), ()) for aim, ids in lacking]
    failed = ~np.array([passing for _, passing, _, _ in rows]).reshape(len(rows), len(every))
    times = failed.sum(axis=0)
    return tuple(
        Removal(text, int(fails.sum()), 0 if text == fixed else int((fails & (times == 1)).sum()), unknown, near)
        for (text, _, unknown, near), fails in zip(rows, failed, strict=True)
    )


def _figure_known(field: str, alone: Filter) -> Filter | None:
    """A filter for models with a known value of what ``alone`` bounds; None if every model has one."""
    if field == "max_gflops":
        return Filter(max_gflops=sys.float_info.max)
    if field in KIN:
        # Whoever has sketches is related to a model or not.
        return Filter(unrelated_to=replace(getattr(alone, field), ids=()))
    return Filter(metrics=(replace(alone.metrics[0], minimum=None, maximum=None),)) if field == "metrics" else None


def constraints(where: Filter) -> Iterator[tuple[str, str, Filter]]:
    """For each constraint: its text, its field, and a filter with this constraint alone."""
    for field in fields(Filter):
        value = getattr(where, field.name)
        if field.name == "metrics":
            yield from ((_bound(bound), "metrics", Filter(metrics=(bound,))) for bound in value)
        elif field.name == "tags":
            yield from ((f"tag {key}={text}", "tags", Filter(tags=((key, text),))) for key, text in value)
        elif value != field.default:
            yield _words(field.name, value), field.name, Filter(**{field.name: value})


def _words(field: str, value: Any) -> str:
    if field == "max_gflops":
        return f"at most {value:g} gigaflops"
    if field in KIN:
        return f"{KIN[field]} {value}"
    if field not in BOUNDS:
        return f"{field} {value}"
    side, noun = BOUNDS[field]
    return f"{side} {counted(value, noun)}"


def _bound(bound: MetricBound) -> str:
    place = f"{bound.name}@{bound.dataset}" if bound.dataset else bound.name
    least = "" if bound.minimum is None else f" at least {bound.minimum:g}"
    most = "" if bound.maximum is None else f" at most {bound.maximum:g}"
    return f"{place}{least}{most}"


def unmatched(store: Store, where: Filter) -> dict[str, tuple[str, ...]]:
    """For each filter field whose text no model has, up to three similar known texts; O(n).

    Raises ``EmptyRegistryError`` if no model is stored.
    """
    from registry.storage.models.model_queries import candidate_ids, require_models

    store.read(require_models)
    alone = {field: Filter(**{field: getattr(where, field)}) for field in FILTER_TEXTS if getattr(where, field)}
    return {field: _near(store, field, one) for field, one in alone.items() if not store.read(candidate_ids, one)}


def _near(store: Store, field: str, alone: Filter) -> tuple[str, ...]:
    """Known values similar to the text of a filter with one field; empty for fields that are not texts."""
    from registry.storage.models.bulk_figures import near_texts

    return tuple(store.read(near_texts, field, getattr(alone, field))) if field in FILTER_TEXTS else ()
