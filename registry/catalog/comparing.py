"""Two models side by side, and all of them pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.terms import judged, summaries_of, vectors_of
from registry.equivalence import DISTANCES, MAX_COMPLETE
from registry.errors import UsageError
from registry.types import Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.queries import Query
    from registry.catalog.terms import Terms
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import Contrast, Filter, FingerprintSpec, Verdict

__all__ = ["compare", "pairwise", "verdict"]


def compare(a: Query, b: Query, by: Terms) -> Comparison:
    """Two models: the verdict by the terms, their distance by every metric, and where they differ."""
    distances = tuple(
        (name, float(distance.to_all(a.vector, b.vector[None])[0])) for name, distance in DISTANCES.items()
    )
    return Comparison(
        a=a.model,
        b=b.model,
        spec=by.spec,
        metric=by.distance.name,
        verdict=judged(a, b.model, dict(distances)[by.distance.name], by, 1),
        distances=distances,
        conjugacy_a=a.conjugacy,
        conjugacy_b=b.conjugacy,
        calibration=by.calibration,
        contrast=_contrast(a, b),
    )


def verdict(a: Query, b: Query, by: Terms) -> Verdict:
    """Whether two models are equivalent by the terms."""
    return judged(a, b.model, float(by.distance.to_all(a.vector, b.vector[None])[0]), by, 1)


def pairwise(
    store: Store, spec: FingerprintSpec, distance: Distance, where: Filter
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and the (n, n) distances between all stored models that pass; O(n^2 d) time, O(n^2) memory."""
    from scipy.spatial.distance import squareform

    ids, vectors = vectors_of(store, spec, where)
    if len(ids) > MAX_COMPLETE:
        raise UsageError(
            f"{len(ids)} models would make a matrix of {len(ids) ** 2 * 8 / 1e9:.0f} GB (limit {MAX_COMPLETE} models)",
            "narrow the question by a filter such as --family",
        )
    names = [model.name for model in summaries_of(store, ids.tolist())]
    # SciPy takes no distances at all for those of a single model, so that none would come out as one.
    return names, squareform(distance.between_all(vectors), checks=False)[: len(ids), : len(ids)]


def _contrast(a: Query, b: Query) -> Contrast | None:
    from registry.spectral import contrast

    of_a, of_b = a.spectra(), b.spectra()
    return None if of_a is None or of_b is None else contrast(of_a, of_b)
