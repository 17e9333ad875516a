"""Selection: the Pareto front of several aims under constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import whole
from registry.catalog.constraint_report import removals
from registry.catalog.expecting import expected_changes
from registry.catalog.objectives import Figures, default_aims, distinct, front, resolved
from registry.catalog.search_settings import older_among, summaries_of
from registry.catalog.searching import gallery_of
from registry.equivalence import rule_for, sorted_into_groups
from registry.storage.models.bulk_figures import read_metrics, read_sizes
from registry.storage.models.model_queries import count_models, require_models
from registry.storage.models.vectors import read_fingerprints
from registry.types import Choice, Filter, Selected, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query
    from registry.storage import Store
    from registry.types import Aim

__all__ = ["select"]


@dataclass(frozen=True, slots=True, eq=False)
class _Front:
    """The front, ordered by the first aim: ids, values by aim, and distances from the model ``like``."""

    ids: list[int]
    values: NDArray[np.float64]
    distances: dict[int, float]


def select(
    store: Store, settings: SearchSettings, where: Filter, aims: Sequence[Aim], like: Query | None, k: int
) -> Selection:
    """Return the front of the models that pass, grouped into at most ``k`` equivalence classes.

    Reading values takes O(n), the front O(n f a) for f models on it and a aims, its equivalence classes O(f^2 d).

    Raises ``EmptyRegistryError``, or ``UsageError`` if no model that passes has a value for an aim.
    """
    whole(k, "k", 1)
    store.read(require_models)
    passing = store.read(read_sizes, where)
    searched, distances = len(passing), dict[int, float]()
    older = older_among(store, settings.spec, [size.model_id for size in passing])
    if like is not None:
        searched -= any(size.model_id == like.id for size in passing) + older
        settings, distances = _equivalents(store, settings, where, like)
        passing = [size for size in passing if size.model_id in distances]
    else:
        settings = settings.among(len(passing))
    metrics = [(model, metric) for model, metric in store.read(read_metrics, where) if not like or model in distances]
    figures = Figures(passing, metrics, distances if like else None)
    chosen = distinct(resolved(aim, figures) for aim in aims or default_aims(where, figures)) if passing else ()
    values = np.array([figures.of(aim) for aim in chosen]).reshape(len(chosen), len(passing)).T
    known = np.isfinite(values).all(axis=1) & bool(chosen)
    rows = np.flatnonzero(known)
    rows = rows[front(values[rows], chosen)]  # so that the table follows the front
    best = _Front(figures.ids[rows].tolist(), values[rows], distances)
    classes = _classes(store, settings, best, like)
    return Selection(
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=settings.tolerance,
        rate=settings.rate,
        calibration=settings.calibration,
        aims=chosen,
        like=like.model() if like else None,
        models=store.read(count_models),
        passed=len(passing),
        searched=searched,
        unknown=tuple(
            (aim.label, int(count))
            for aim, count in zip(chosen, (~np.isfinite(values)).sum(axis=0), strict=True)
            if count
        ),
        on_front=len(best.ids),
        count=len(classes),
        classes=tuple(classes[:k]),
        removals=() if classes else removals(store, settings, where, like=like, figures=figures, aims=chosen),
        older=older,
        assume_trained=settings.assume_trained,
    )


def _equivalents(
    store: Store, settings: SearchSettings, where: Filter, like: Query
) -> tuple[SearchSettings, dict[int, float]]:
    """Settings of the search, and distances of the equivalent models by id, with the model itself if it is stored."""
    gallery = gallery_of(store, like, settings, where)
    ids, distances = gallery.equivalent()
    found = dict(zip(ids.tolist(), distances.tolist(), strict=True))
    return gallery.settings, {**found, like.id: 0.0} if like.id else found


def _classes(store: Store, settings: SearchSettings, front: _Front, like: Query | None) -> list[Selected]:
    """Equivalence classes of the front, in its order; models without a fingerprint stand alone."""
    models = {model.id: model for model in summaries_of(store, front.ids)}
    apart = {model: front.distances.get(model.id) for model in models.values()}
    expected = expected_changes(store, settings, like.model(), apart) if like else {}
    choices = {
        model: Choice(models[model], tuple(row), front.distances.get(model), expected.get(model))
        for model, row in zip(front.ids, front.values.tolist(), strict=True)
    }
    if settings.tolerance is None:  # nothing is known to be equivalent
        return [Selected(choices[model], ()) for model in front.ids]
    ids, vectors = store.read(read_fingerprints, settings.spec.hash, ids=front.ids)
    trainings = ["" if settings.by_shapes else settings.judged(models[model].training_class) for model in ids.tolist()]
    rule = rule_for(None, len(ids))
    groups = sorted_into_groups(vectors, trainings, settings.distance, settings.tolerance, rule) if len(ids) else ()
    members = [[int(ids[row]) for row in group.members] for group in groups]
    members += [[model] for model in front.ids if model not in set(ids.tolist())]
    place = {model: row for row, model in enumerate(front.ids)}
    found = []
    for group in sorted(members, key=lambda group: min(place[model] for model in group)):
        smallest = min(group, key=lambda model: (models[model].parameters, models[model].bytes, place[model]))
        others = sorted((model for model in group if model != smallest), key=place.__getitem__)
        found.append(Selected(choices[smallest], tuple(choices[model] for model in others)))
    return found
