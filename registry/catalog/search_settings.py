"""By what a question is judged, and the vectors and models that it is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from registry.catalog.arguments import number
from registry.equivalence import DEFAULT_DISTANCE, distance_named, judge, rate_bound, shipped, tolerance_for
from registry.errors import SpecMismatchError, UsageError
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
    "Terms",
    "candidates",
    "judged",
    "passing",
    "summaries_of",
    "terms",
    "vectors_of",
]

FEW = 4_000  # models whose vectors are read alone rather than remembered with all others: some ten milliseconds


@dataclass(frozen=True, slots=True)
class Terms:
    """By what a question is judged: the spec, the distance, the tolerance and the calibration that gives its rate.

    ``calibration``: None where the fingerprint is not calibrated; ``tolerance``: None where none is given either;
    ``asked``: whether the tolerance is the asker's own, which nothing changes.
    """

    spec: FingerprintSpec
    distance: Distance
    tolerance: float | None
    calibration: Calibration | None
    asked: bool = False

    @property
    def rate(self) -> float | None:
        """Of unrelated pairs, the fraction that pass at the tolerance, at most; None where it is not known."""
        if self.calibration is None or self.tolerance is None:
            return None
        return rate_bound(self.calibration, self.tolerance)

    @property
    def limit(self) -> float:
        """The tolerance. Raises ``UsageError`` where there is none: the fingerprint is not calibrated."""
        if self.tolerance is None:
            raise UsageError(
                f"{self.spec.label} by {self.distance.name} is not calibrated: this question needs a tolerance",
                f"give --tolerance X, or run: archreg calibrate --fingerprint {self.spec.name}"
                + ("" if self.distance.name == DEFAULT_DISTANCE else f" --distance {self.distance.name}"),
            )
        return self.tolerance

    def among(self, searched: int) -> Self:
        """The terms for a look-up among so many models.

        Unless the asker gave one, the tolerance is the largest at which one false pass is expected among them at most,
        but none larger than the calibrated one. Below the calibration's resolution it stays just below the nearest
        unrelated pair, and more are to be expected: the rate says how many at most.
        """
        if self.asked or self.calibration is None or self.tolerance is None:
            return self
        return replace(self, tolerance=min(self.tolerance, tolerance_for(self.calibration, 1.0 / max(searched, 1))))


def terms(store: Store, spec: FingerprintSpec, distance: str | None, tolerance: float | None) -> Terms:
    """Terms with the registry's own calibration, else the one that ships, if any; its tolerance by default.

    Raises ``UsageError`` for a tolerance that is negative or not finite.
    """
    measure = distance_named(distance)
    calibration = store.calibration(spec.hash, measure.name) or shipped(spec, measure.name)
    asked = tolerance is not None
    if tolerance is not None:
        tolerance = number(tolerance, "tolerance")
    elif calibration is not None:
        tolerance = calibration.tolerance
    if tolerance is not None and not 0.0 <= tolerance < float("inf"):
        raise UsageError(f"tolerance must be a distance, zero or larger, not {tolerance}")
    return Terms(spec, measure, tolerance, calibration, asked)


def judged(
    query: Query, models: Sequence[ModelSummary], distances: NDArray[np.float64], by: Terms, searched: int
) -> list[Verdict]:
    """The verdicts on the model asked about and each of others, at those distances (n,)."""
    return judge(
        distances,
        query.kind,
        [(model.tail_class, model.training_class) for model in models],
        tolerance=by.tolerance,
        rate=by.rate,
        calibration=by.calibration,
        searched=searched,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Vectors (n, d) with their ids (n,) and squared norms, and the rows of those that take part, None for all."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    squares: Callable[[], NDArray[np.float64]]
    rows: NDArray[np.intp] | None = None
    remembered: bool = False


def candidates(store: Store, spec: FingerprintSpec, wanted: Sequence[int] | None) -> Candidates:
    """The vectors of the models of those ids, of all for None.

    They are remembered, and good until the next question; but a few of them are read alone where none are remembered
    yet. Raises ``EmptyRegistryError``, or ``SpecMismatchError`` where there are models and none has such a vector.
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
        found = Candidates(memory.ids, memory.vectors, lambda: memory.squares, rows, remembered=True)
    if len(found.ids if found.rows is None else found.rows):
        return found
    store.read(require_models)
    if wanted is None or wanted:
        raise SpecMismatchError(
            f"none of these models has a {spec.label} fingerprint",
            f"run: archreg refingerprint --fingerprint {spec.name}",
        )
    # No model passes the filter; where the spec is not stored yet, the store does not know its length.
    return Candidates(found.ids[:0], found.vectors[:0].reshape(0, spec.length), found.squares)


def passing(store: Store, where: Filter) -> list[int] | None:
    """Ids of the models that pass, ascending; None where all do."""
    from registry.storage.models.model_queries import candidate_ids

    return None if where == Filter() else store.read(candidate_ids, where)


def vectors_of(store: Store, spec: FingerprintSpec, where: Filter) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids (n,), ascending, and vectors (n, d) of the models that pass the filter.

    Raises ``EmptyRegistryError``, or ``SpecMismatchError`` where models pass and none has a vector of this spec.
    """
    found = candidates(store, spec, passing(store, where))
    ids, vectors = found.ids, found.vectors
    if found.rows is not None:
        ids, vectors = ids[found.rows], vectors[found.rows]
    if (ids[1:] < ids[:-1]).any():  # remembered, and come out of turn
        order = ids.argsort()
        ids, vectors = ids[order], vectors[order]
    return ids, vectors


def summaries_of(store: Store, ids: list[int]) -> list[ModelSummary]:
    """The models of those ids, in that order."""
    from registry.storage.models.summaries import read_summaries

    models = {model.id: model for model in store.read(read_summaries, ids=ids)}
    return [models[model] for model in ids]
