"""Search settings, verdicts, and loading of candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from registry.catalog.arguments import number
from registry.equivalence import (
    DEFAULT_DISTANCE,
    SEED_DISTANCES,
    TRAINED,
    UNDETERMINED,
    assumed,
    distance_named,
    judge,
    rate_bound,
    shipped,
    tolerance_for,
)
from registry.errors import SpecMismatchError, UsageError
from registry.spelling import counted
from registry.types import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.subjects import Query
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import Calibration, FingerprintSpec, ModelSummary, Verdict

__all__ = [
    "Candidates",
    "SearchSettings",
    "candidates",
    "older_among",
    "verdicts_on",
    "passing",
    "summaries_of",
    "settings_for",
    "vectors_of",
]

FEW = 4_000  # models whose vectors are read without caching all others: some ten milliseconds


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Spec, distance and tolerance of a search, and the calibration that gives the rate.

    ``calibration``: None if the fingerprint is not calibrated; ``tolerance``: None if it is not given either;
    ``fixed``: whether the caller gave the tolerance; then it is not adapted to the number of models; ``by_shapes``:
    whether shapes alone are compared: then no training class counts; ``assume_trained``: undetermined models are judged
    as trained, False where no training class counts. ``besides``: how many models other registries search for the same
    question.
    """

    spec: FingerprintSpec
    distance: Distance
    tolerance: float | None
    calibration: Calibration | None
    fixed: bool = False
    by_shapes: bool = False
    assume_trained: bool = False
    besides: int = 0

    @property
    def rate(self) -> float | None:
        """Upper bound on the fraction of unrelated pairs within the tolerance; None if unknown."""
        if self.calibration is None or self.tolerance is None:
            return None
        return rate_bound(self.calibration, self.tolerance)

    @property
    def limit(self) -> float:
        """The tolerance. Raises ``UsageError`` if there is none because the fingerprint is not calibrated."""
        if self.tolerance is None:
            raise UsageError(
                f"{self.spec.label} with {self.distance.name} is not calibrated, so a tolerance is needed",
                f"give --tolerance X, or run: archreg calibrate --fingerprint {self.spec.name}"
                + ("" if self.distance.name == DEFAULT_DISTANCE else f" --distance {self.distance.name}"),
            )
        return self.tolerance

    def judged(self, training: str) -> str:
        """The training class that a model of this one is judged by."""
        return assumed(training) if self.assume_trained else training

    def alike(self, training: str) -> tuple[str, ...]:
        """The training classes of the models that may be equivalent to another of this one; none if undetermined."""
        judged = self.judged(training)
        if judged == UNDETERMINED:
            return ()
        return (judged, UNDETERMINED) if self.assume_trained and judged == TRAINED else (judged,)

    def among(self, searched: int) -> Self:
        """The settings for a search among that many models.

        Unless the caller gave the tolerance, it is the largest at which at most one false pass is expected, and at most
        the calibrated tolerance. Below the resolution of the calibration it stays just below the distance of the
        nearest unrelated pair, and more false passes are possible: the rate is an upper bound.
        """
        if self.fixed or self.calibration is None or self.tolerance is None:
            return self
        among = max(searched + self.besides, 1)
        return replace(self, tolerance=min(self.tolerance, tolerance_for(self.calibration, 1.0 / among)))


def settings_for(
    store: Store | None,
    spec: FingerprintSpec,
    distance: str | None,
    tolerance: float | None,
    *,
    assume_trained: bool = False,
) -> SearchSettings:
    """Return settings with the calibration of the registry, else the shipped one, if any; its tolerance by default.

    ``store``: None without a database.
    Raises ``UsageError`` for a tolerance that is negative or not finite.
    """
    from registry.spectral.specs import needs_spectra

    measure = distance_named(distance)
    own = None if store is None else store.calibration(spec.hash, measure.name)
    calibration = own or shipped(spec, measure.name)
    fixed = tolerance is not None
    if tolerance is not None:
        tolerance = number(tolerance, "tolerance")
    elif calibration is not None:
        tolerance = calibration.tolerance
    if tolerance is not None and not 0.0 <= tolerance < float("inf"):
        raise UsageError(f"tolerance must be finite and not negative, not {tolerance}")
    by_shapes = not needs_spectra(spec)
    return SearchSettings(
        spec, measure, tolerance, calibration, fixed, by_shapes, assume_trained=assume_trained and not by_shapes
    )


def verdicts_on(
    query: Query,
    models: Sequence[ModelSummary],
    distances: NDArray[np.float64],
    settings: SearchSettings,
    searched: int,
) -> list[Verdict]:
    """Verdicts on the query and each of n models at distances (n,), searched among ``searched`` models."""
    judged = settings.judged if settings.assume_trained else str  # by the class that each has
    return judge(
        distances,
        judged(query.training),
        [judged(model.training_class) for model in models],
        tolerance=settings.tolerance,
        rate=settings.rate,
        calibration=settings.calibration,
        searched=searched + settings.besides,
        by_shapes=settings.by_shapes,
        seeds=SEED_DISTANCES.get((settings.spec.name, settings.distance.name)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Vectors (n, d), their ids (n,) and squared norms (n,), and the rows to search, None for all.

    ``cached``: whether the vectors are the cache of the store.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    squares: Callable[[], NDArray[np.float64]]
    rows: NDArray[np.intp] | None = None
    cached: bool = False


def candidates(store: Store, spec: FingerprintSpec, wanted: Sequence[int] | None) -> Candidates:
    """Return the vectors of the models with those ids, or of all models.

    They come from the cache of the store and are valid until the next search; a few vectors are read without filling
    an empty cache. Raises ``EmptyRegistryError``, or ``SpecMismatchError`` if no model has such a vector.
    """
    import numpy as np

    from registry.storage.models.model_queries import require_models
    from registry.storage.models.vectors import read_fingerprints

    if wanted is not None and len(wanted) <= FEW and spec.hash not in store.memory:
        ids, vectors = store.read(read_fingerprints, spec.hash, ids=wanted)
        found = Candidates(ids, vectors, lambda: np.empty(0))
    else:
        memory = store.vectors(spec.hash)
        rows = None if wanted is None else memory.positions(np.array(wanted, np.int64))
        found = Candidates(memory.ids, memory.vectors, lambda: memory.squares, rows, cached=True)
    if len(found.ids if found.rows is None else found.rows):
        return found
    store.read(require_models)
    if older := older_among(store, spec, wanted):
        raise SpecMismatchError(
            f"none of these models was measured by {spec.matrix_rule}: {counted(older, 'model')} "
            f"{'is' if older == 1 else 'are'} of an older matrix rule",
            "ingest their weights again, by the same command; archreg db check lists them",
        )
    if wanted is None or wanted:
        raise SpecMismatchError(
            f"none of these models has a {spec.label} fingerprint",
            f"run: archreg refingerprint --fingerprint {spec.name}",
        )
    # No model matches the filter. If the spec is not stored yet, the store does not know its length.
    return Candidates(found.ids[:0], found.vectors[:0].reshape(0, spec.length), found.squares)


def older_among(store: Store, spec: FingerprintSpec, ids: Sequence[int] | None) -> int:
    """How many models, of all or among ``ids``, are of an older matrix rule than the spec, which leaves them out."""
    from registry.storage.models.model_queries import count_older

    return store.read(count_older, spec.matrix_rule, ids)


def passing(store: Store, where: Filter) -> list[int] | None:
    """Ids of the models that match the filter, ascending; None without a filter."""
    from registry.storage.models.model_queries import candidate_ids

    return None if where == Filter() else store.read(candidate_ids, where)


def vectors_of(store: Store, spec: FingerprintSpec, where: Filter) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids (n,), ascending, and vectors (n, d) of the models that match the filter.

    Raises ``EmptyRegistryError``, or ``SpecMismatchError`` if models match and none has a vector of this spec.
    """
    found = candidates(store, spec, passing(store, where))
    ids, vectors = found.ids, found.vectors
    if found.rows is not None:
        ids, vectors = ids[found.rows], vectors[found.rows]
    if (ids[1:] < ids[:-1]).any():  # the cache is not in the order of ids
        order = ids.argsort()
        ids, vectors = ids[order], vectors[order]
    return ids, vectors


def summaries_of(store: Store, ids: list[int]) -> list[ModelSummary]:
    """Summaries of the models with those ids, in that order."""
    from registry.storage.models.summaries import read_summaries

    models = {model.id: model for model in store.read(read_summaries, ids=ids)}
    return [models[model] for model in ids]
