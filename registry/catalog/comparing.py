"""Comparison of two models, and the matrix of all pairwise distances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.catalog.relating import relation
from registry.catalog.requiring import Conditions, held, with_metrics
from registry.catalog.search_settings import summaries_of, vectors_of, verdicts_on
from registry.equivalence import DISTANCES, MAX_COMPLETE, changes, strictly
from registry.errors import UsageError
from registry.types import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import Contrast, Filter, FingerprintSpec, Metric, Verdict

__all__ = ["compare", "pairwise", "verdict"]


def compare(
    a: Query,
    b: Query,
    settings: SearchSettings,
    *,
    strict: bool = False,
    wanted: Conditions = Conditions(),  # noqa: B008  # frozen
    metrics: Sequence[Metric] = (),
) -> Comparison:
    """Compare two models: the verdict, the relation, the distance in every norm, and where they differ.

    ``wanted``: what is required of the two; ``metrics``: known of ``b`` besides its own, over which they win.
    """
    distances = tuple(
        (name, float(distance.to_all(a.vector, b.vector[None])[0])) for name, distance in DISTANCES.items()
    )
    of_a, of_b, weights = a.model(), with_metrics(b.model(), metrics), relation(a, b)
    found = Comparison(
        a=of_a,
        b=of_b,
        spec=settings.spec,
        distance=settings.distance.name,
        verdict=verdict(a, b, settings, strict=strict),
        distances=distances,
        conjugacy_a=a.conjugacy(),
        conjugacy_b=b.conjugacy(),
        calibration=settings.calibration,
        contrast=_contrast(a, b),
        relation=weights,
        changes=changes(of_a.metrics, of_b.metrics),
    )
    return replace(found, requirements=held(found, weights, wanted)) if wanted else found


def verdict(a: Query, b: Query, settings: SearchSettings, *, strict: bool = False) -> Verdict:
    """Decide whether two models are equivalent; ``strict`` also requires the block ``depths`` to be near.

    Raises ``UsageError`` for ``strict`` with a fingerprint that has no block ``depths``.
    """
    [found] = verdicts_on(a, [b.model()], settings.distance.to_all(a.vector, b.vector[None]), settings, 1)
    return strictly(found, _depths_apart(a, b, settings.spec)) if strict else found


def _depths_apart(a: Query, b: Query, spec: FingerprintSpec) -> float:
    """L1 distance of two fingerprints in the block ``depths``."""
    import numpy as np

    from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
    from registry.spectral.specs import LAYERED

    if spec != LAYERED:
        raise UsageError(
            f"strict needs spectra by depth, which {spec.label} does not contain", "use the fingerprint layered"
        )
    names = list(LAYERED_BLOCKS)
    ends = np.cumsum(list(LAYERED_BLOCKS.values()))
    at = names.index("depths")
    block = slice(ends[at - 1], ends[at])
    return float(np.abs(a.vector[block].astype(np.float64) - b.vector[block]).sum())


def pairwise(
    store: Store, spec: FingerprintSpec, distance: Distance, where: Filter
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and float64 distances (n, n) between all stored models that match; O(n^2 d) time, O(n^2) memory."""
    from scipy.spatial.distance import squareform

    ids, vectors = vectors_of(store, spec, where)
    if len(ids) > MAX_COMPLETE:
        raise UsageError(
            f"{len(ids)} models would make a matrix of {len(ids) ** 2 * 8 / 1e9:.0f} GB (limit {MAX_COMPLETE} models)",
            "use a filter such as --family",
        )
    names = tuple(model.name for model in summaries_of(store, ids.tolist()))
    # squareform turns an empty vector into a 1 x 1 matrix, also for n = 0.
    return names, squareform(distance.between_all(vectors), checks=False)[: len(ids), : len(ids)]


def _contrast(a: Query, b: Query) -> Contrast | None:
    from registry.spectral import contrast

    of_a, of_b = a.spectra(), b.spectra()
    return None if of_a is None or of_b is None else contrast(of_a, of_b)
