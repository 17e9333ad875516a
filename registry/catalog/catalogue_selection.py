"""Selection in the catalogue: the Pareto front of several aims among architectures at an image size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import whole
from registry.catalog.catalogue_rows import (
    best_rows,
    bounded_metric,
    passing_rows,
    placed,
    read_rows,
    row_removals,
    summary_of,
)
from registry.catalog.objectives import DISTANCE, OPERATIONS, SIZES, Figures, default_aims, distinct, front, resolved
from registry.errors import UsageError
from registry.spelling import folded
from registry.types import Aim, Choice, Selected, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.architectures.catalogue_file import Catalogue
    from registry.catalog.catalogue_rows import Row
    from registry.catalog.catalogue_search import Likeness
    from registry.catalog.search_settings import SearchSettings
    from registry.types import Filter, Removal

__all__ = ["select_architectures"]


def select_architectures(
    catalogue: Catalogue, settings: SearchSettings, where: Filter, aims: Sequence[Aim], like: Likeness | None, k: int
) -> Selection:
    """Return the first ``k`` of the front of the architectures at an image size that pass, ordered by the first aim.

    Of the published weights that pass, the best by the first metric that is an aim, else by the first that is bounded,
    stand for the architecture at that size; without such a metric, the first that the library lists. ``like``: only
    architectures equivalent by shapes. Time is that of reading some thousands of rows; layouts are not read.

    Raises
    ------
    UsageError
        The filter asks for what no catalogue has, or no row that passes has a value for an aim.
    """
    whole(k, "k", 1)
    if like is None and settings.fixed:
        raise UsageError("rows of the catalogue form no equivalence classes", "give a tolerance with like alone")
    every = read_rows(catalogue)
    where = placed(where, every)
    passing = passing_rows(every, where)
    distances = None
    if like is not None:
        passing = [row for row in passing if row.architecture.layout in like.distances]
        distances = {row.model_id: like.distances[row.architecture.layout] for row in passing}
    figures = _figures(passing, distances)
    wanted = [_placed_aim(aim, where, figures) for aim in aims]
    chosen = distinct(resolved(aim, figures) for aim in wanted or default_aims(where, figures)) if passing else ()
    scored = [aim for aim in chosen if aim.what not in (DISTANCE, *SIZES.values())]
    by = scored[0] if scored else _resolved(bounded_metric(where), figures)
    best = best_rows(passing, by)
    figures = _figures(best, distances)
    values = np.array([figures.of(aim) for aim in chosen]).reshape(len(chosen), len(best)).T
    known = np.flatnonzero(np.isfinite(values).all(axis=1) & bool(chosen))
    order = known[front(values[known], chosen)]
    choices = [
        Choice(
            replace(summary_of(best[at], by), id=best[at].model_id),
            tuple(values[at].tolist()),
            None if distances is None else distances[best[at].model_id],
        )
        for at in order.tolist()
    ]
    return Selection(
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=None if like is None else like.settings.tolerance,
        rate=None if like is None else like.settings.rate,
        calibration=None if like is None else settings.calibration,
        aims=chosen,
        like=None if like is None else like.model,
        models=len({row.place for row in every}),
        passed=len(best),
        searched=0 if like is None else like.searched,
        unknown=tuple(
            (aim.label, int(count))
            for aim, count in zip(chosen, (~np.isfinite(values)).sum(axis=0), strict=True)
            if count
        ),
        on_front=len(choices),
        count=len(choices),
        classes=tuple(Selected(choice, ()) for choice in choices[:k]),
        removals=() if choices else _removals(every, where, like, chosen),
        unit="row",
    )


def _figures(rows: Sequence[Row], distances: dict[int, float] | None) -> Figures:
    metrics = [(row.model_id, metric) for row in rows for metric in row.metrics]
    return Figures(rows, metrics, distances, operations="gmacs")


def _placed_aim(aim: Aim, where: Filter, figures: Figures) -> Aim:
    """A metric without a data set as one on that of the first bound on it, else on that of the filter, if known."""
    if aim.dataset or aim.what in (DISTANCE, *OPERATIONS, *SIZES.values()):
        return aim
    bounded = (bound.dataset for bound in where.metrics if folded(bound.name) == folded(aim.what))
    dataset = next(bounded, where.dataset)
    known = any((folded(m.name), folded(m.dataset)) == (folded(aim.what), folded(dataset)) for _, m in figures.metrics)
    return replace(aim, dataset=dataset) if dataset and known else aim


def _resolved(aim: Aim | None, figures: Figures) -> Aim | None:
    """The bounded metric with its data set and split, where it is known on one alone."""
    try:
        return None if aim is None or not figures.sizes else resolved(aim, figures)
    except UsageError:  # on several: a row's best counts
        return aim


def _removals(every: Sequence[Row], where: Filter, like: Likeness | None, aims: Sequence[Aim]) -> tuple[Removal, ...]:
    known = _figures(every, None if like is None else dict.fromkeys((row.model_id for row in every), 0.0))
    others = [(f"a known {aim.place}", np.isfinite(known.of(aim)), True) for aim in aims]
    if like is not None:
        alike = np.array([row.architecture.layout in like.distances for row in every])
        others.insert(0, (f"equivalent to {like.model.name}", alike, False))
    return row_removals(every, where, others)
