"""The change of a metric to expect of models that it is not stored of, learned from the stored models that have it."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from registry.spelling import folded
from registry.storage.models.bulk_figures import read_scored
from registry.storage.models.vectors import read_fingerprints, read_training_classes
from registry.types import ExpectedChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.catalog.search_settings import SearchSettings
    from registry.storage import Store
    from registry.storage.models.records import ScoredModel
    from registry.types import Metric, ModelSummary

__all__ = ["expected_changes"]

MODELS = 120
"""Most scored models that a rule is learned from: some 1,000 pairs, and a tenth of a second."""
METRICS = 3
"""Most metrics of a model that a rule is sought for."""


def expected_changes(
    store: Store, settings: SearchSettings, original: ModelSummary, distances: Mapping[ModelSummary, float | None]
) -> dict[int, ExpectedChange]:
    """What to expect of the models that lack a metric of the original, by id, without those that nothing is known of.

    ``distances``: of the models from the original, under the settings. Of the metrics of the original, by name, it is
    the first that some model lacks and a rule is learned for. A model gets an answer if it is of the metric's data set,
    and the scored models have one of its family and training class, and of those of the original. O(m) for m scored
    models, and at most some 1,000 pairs of them.
    """
    if settings.by_shapes or not original.metrics:
        return {}
    tried = 0
    for metric in original.metrics:
        asked = {model: apart for model, apart in distances.items() if apart is not None and _lacks(model, metric)}
        if asked and tried < METRICS:
            tried += 1
            if found := _by_metric(store, settings, original, metric, asked):
                return found
    return {}


def _lacks(model: ModelSummary, metric: Metric) -> bool:
    """Whether the model is of the data set of a metric that is not stored of it."""
    if any((own.name, own.dataset, own.split) == (metric.name, metric.dataset, metric.split) for own in model.metrics):
        return False
    return bool(metric.dataset) and folded(metric.dataset) in {
        folded(dataset) for dataset in (model.dataset, *(own.dataset for own in model.metrics))
    }


def _by_metric(
    store: Store,
    settings: SearchSettings,
    original: ModelSummary,
    metric: Metric,
    distances: Mapping[ModelSummary, float],
) -> dict[int, ExpectedChange]:
    from registry.equivalence.expected_change import features_of, learned, pairs_of

    with store.snapshot():
        rows = _spread(store.read(read_scored, metric, MODELS))
        ids, vectors = store.read(read_fingerprints, settings.spec.hash, ids=[row.model_id for row in rows])
        classes = store.read(read_training_classes, ids.tolist())
    by_id = {row.model_id: row for row in rows}
    scored = [by_id[model] for model in ids.tolist()]
    families = [folded(row.family) for row in scored]
    known = {
        (family, classes[row.model_id]) for family, row in zip(families, scored, strict=True) if row.model_id in classes
    }
    asked = [model for model in distances if _kind(model) in known]
    if _kind(original) not in known or not asked:
        return {}
    apart = np.array([settings.distance.to_all(vector, vectors) for vector in vectors])
    rule = learned(pairs_of(apart, [row.parameters for row in scored], [row.value for row in scored], families))
    if rule is None:
        return {}
    found = rule.expected(
        features_of(
            [distances[model] for model in asked],
            original.parameters,
            [model.parameters for model in asked],
            metric.value,
        )
    )
    return {
        model.id: ExpectedChange(
            metric.name, metric.dataset, metric.split, value, low, high, rule.pairs, len(set(families)), rule.coverage
        )
        for model, (value, low, high) in zip(asked, found.tolist(), strict=True)
        if not np.isnan(value)
    }


def _kind(model: ModelSummary) -> tuple[str, str]:
    return folded(model.family), model.training_class


def _spread(rows: Sequence[ScoredModel]) -> list[ScoredModel]:
    """At most ``MODELS`` of the rows: one of each family in turn, so that no family crowds out the others."""
    families: dict[str, list[ScoredModel]] = {}
    for row in rows:
        families.setdefault(folded(row.family), []).append(row)
    turns = zip_longest(*families.values())
    return [row for turn in turns for row in turn if row is not None][:MODELS]
