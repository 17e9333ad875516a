"""Stored models sorted into classes of equivalents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.terms import summaries_of, vectors_of
from registry.equivalence import complete_linkage
from registry.types import ModelClass, Partition

if TYPE_CHECKING:
    from registry.catalog.terms import Terms
    from registry.storage import Store
    from registry.types import Filter

__all__ = ["classes_of"]


def classes_of(store: Store, by: Terms, where: Filter) -> Partition:
    """Equivalence classes of the stored models; O(n^2 d) time and O(n^2) memory, up to ``MAX_COMPLETE`` models."""
    ids, vectors = vectors_of(store, by.spec, where)
    models = summaries_of(store, ids.tolist())
    kinds = [(model.tail_class, model.training_class) for model in models]
    groups = complete_linkage(vectors, kinds, by.distance, by.accuracy)
    return Partition(
        spec=by.spec,
        metric=by.distance.name,
        accuracy=by.accuracy,
        rate=by.rate,
        models=len(models),
        classes=tuple(
            ModelClass(
                number=number,
                medoid=models[group.medoid].name,
                diameter=group.diameter,
                members=tuple(models[row] for row in group.members),
                training_class=models[group.medoid].training_class,
                tail_class=models[group.medoid].tail_class,
            )
            for number, group in enumerate(groups, 1)
        ),
        calibration=by.calibration,
    )
