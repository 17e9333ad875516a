"""The questions: nearest, compare, classes, compress, distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.equivalence import (
    DISTANCES,
    MAX_COMPLETE,
    complete_linkage,
    distance_named,
    judge,
    nearest,
    rate_at,
    shipped,
)
from registry.errors import EmptyRegistryError, SpecMismatchError, UsageError
from registry.types import (
    Candidate,
    Comparison,
    Compression,
    Filter,
    MetricChange,
    ModelClass,
    ModelSummary,
    Neighbour,
    Partition,
    Search,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.queries import Query
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import Calibration, Contrast, FingerprintSpec, Verdict

__all__ = ["Terms", "classes_of", "compare", "compress", "pairwise", "search_for", "terms", "verdict"]


@dataclass(frozen=True, slots=True)
class Terms:
    """By what a question is judged: the spec, the distance, the accuracy and the calibration that gives its rate."""

    spec: FingerprintSpec
    distance: Distance
    accuracy: float
    calibration: Calibration


def terms(store: Store, spec: FingerprintSpec, metric: str | None, accuracy: float | None) -> Terms:
    """Terms with the registry's own calibration where it has one, else the one that ships; its accuracy by default.

    Raises ``UsageError`` for an accuracy that is negative or not finite.
    """
    distance = distance_named(metric)
    calibration = store.calibration(spec.hash, distance.name) or shipped(spec, distance.name)
    if accuracy is None:
        accuracy = calibration.accuracy
    elif not 0.0 <= accuracy < float("inf"):
        raise UsageError(f"accuracy must be a distance, zero or larger, not {accuracy}")
    return Terms(spec, distance, accuracy, calibration)


def search_for(store: Store, query: Query, by: Terms, where: Filter, k: int, *, equivalent: bool) -> Search:
    """The ``k`` nearest stored models but the one asked about; O(n d)."""
    _check_count(k)
    gallery = _gallery_of(store, query, by, where)
    ids, distances = gallery.equivalent() if equivalent else (gallery.ids, gallery.distances)
    return Search(
        spec=by.spec,
        metric=by.distance.name,
        accuracy=by.accuracy,
        rate=rate_at(by.calibration, by.accuracy),
        searched=len(gallery.ids),
        neighbours=gallery.neighbours(ids, distances, k),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Gallery:
    """Distances from a query to all stored models that pass the filter, the query itself left out."""

    store: Store
    query: Query
    by: Terms
    ids: NDArray[np.int64]
    distances: NDArray[np.float64]

    def equivalent(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those within the accuracy that share both classes with the query."""
        within = self.distances <= self.by.accuracy
        ids, distances = self.ids[within], self.distances[within]
        kinds = self.store.classes(ids.tolist())
        same = [row for row, model in enumerate(ids.tolist()) if kinds.get(model) == self.query.kind]
        return ids[same], distances[same]

    def neighbours(self, ids: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> tuple[Neighbour, ...]:
        """The ``k`` nearest of these, each with its verdict."""
        chosen = nearest(distances, ids, k)
        models = _by_id(self.store, ids[chosen].tolist())
        return tuple(
            Neighbour(model, _judged(self.query, model, float(distances[row]), self.by, len(self.ids)))
            for row, model in zip(chosen.tolist(), models, strict=True)
        )


def _gallery_of(store: Store, query: Query, by: Terms, where: Filter) -> _Gallery:
    ids, vectors = _vectors(store, by.spec, where)
    others = ids != query.model.id
    return _Gallery(store, query, by, ids[others], by.distance.to_all(query.vector, vectors)[others])


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
        verdict=_judged(a, b.model, dict(distances)[by.distance.name], by, 1),
        distances=distances,
        conjugacy_a=a.conjugacy,
        conjugacy_b=b.conjugacy,
        contrast=_contrast(a, b),
    )


def verdict(a: Query, b: Query, by: Terms) -> Verdict:
    """Whether two models are equivalent by the terms."""
    return _judged(a, b.model, float(by.distance.to_all(a.vector, b.vector[None])[0]), by, 1)


def classes_of(store: Store, by: Terms, where: Filter) -> Partition:
    """Equivalence classes of the stored models; O(n^2 d) time and O(n^2) memory, up to ``MAX_COMPLETE`` models."""
    ids, vectors = _vectors(store, by.spec, where)
    models = _by_id(store, ids.tolist())
    kinds = [(model.tail_class, model.training_class) for model in models]
    groups = complete_linkage(vectors, kinds, by.distance, by.accuracy)
    return Partition(
        spec=by.spec,
        metric=by.distance.name,
        accuracy=by.accuracy,
        rate=rate_at(by.calibration, by.accuracy),
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
    )


def compress(store: Store, query: Query, by: Terms, where: Filter, k: int) -> Compression:
    """Smaller equivalents, the smallest first; where there is none, the nearest of the smaller ones, nearest first.

    ``where`` says how small, and that is for the caller to set: larger models that pass it are candidates too.
    """
    _check_count(k)
    gallery = _gallery_of(store, query, by, where)
    ids, distances = gallery.equivalent()
    equivalent = bool(len(ids))
    if equivalent:
        every = gallery.neighbours(ids, distances, len(ids))
        found = tuple(sorted(every, key=lambda n: (n.model.parameters, n.distance, n.model.id)))[:k]
    else:
        found = gallery.neighbours(gallery.ids, gallery.distances, k)
    return Compression(
        model=query.model,
        spec=by.spec,
        metric=by.distance.name,
        accuracy=by.accuracy,
        searched=len(gallery.ids),
        equivalent=equivalent,
        candidates=tuple(_candidate(query.model, neighbour) for neighbour in found),
    )


def pairwise(
    store: Store, spec: FingerprintSpec, distance: Distance, where: Filter
) -> tuple[list[str], NDArray[np.float64]]:
    """Names and the (n, n) distances between all stored models that pass; O(n^2 d) time, O(n^2) memory."""
    from scipy.spatial.distance import squareform

    ids, vectors = _vectors(store, spec, where)
    if len(ids) > MAX_COMPLETE:
        raise UsageError(
            f"{len(ids)} models would make a matrix of {len(ids) ** 2 * 8 / 1e9:.0f} GB (limit {MAX_COMPLETE} models)",
            "narrow the question by a filter such as --family",
        )
    names = [model.name for model in _by_id(store, ids.tolist())]
    # SciPy takes no distances at all for those of a single model, so that none would come out as one.
    return names, squareform(distance.between_all(vectors), checks=False)[: len(ids), : len(ids)]


def _vectors(store: Store, spec: FingerprintSpec, where: Filter) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    wanted = None if where == Filter() else store.candidate_ids(where)
    ids, vectors = store.fingerprints(spec.hash, ids=wanted)
    if len(ids):
        return ids, vectors
    if not store.count():
        raise EmptyRegistryError(
            "the registry is empty", "fill it: archreg ingest FILE_OR_FOLDER, or archreg ingest torchvision:resnet18"
        )
    if wanted is None or wanted:
        raise SpecMismatchError(
            f"none of these models has a {spec.label} fingerprint",
            f"run: archreg refingerprint --fingerprint {spec.name}",
        )
    # No model passes the filter; where the spec is not stored yet, the store does not know its length.
    return ids, vectors.reshape(0, spec.length)


def _check_count(k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")


def _by_id(store: Store, ids: list[int]) -> list[ModelSummary]:
    models = {model.id: model for model in store.summaries(ids=ids)}
    return [models[model] for model in ids]


def _contrast(a: Query, b: Query) -> Contrast | None:
    from registry.spectral import contrast

    of_a, of_b = a.spectra(), b.spectra()
    return None if of_a is None or of_b is None else contrast(of_a, of_b)


def _judged(query: Query, model: ModelSummary, distance: float, by: Terms, searched: int) -> Verdict:
    return judge(
        distance,
        query.kind,
        (model.tail_class, model.training_class),
        accuracy=by.accuracy,
        calibration=by.calibration,
        searched=searched,
    )


def _candidate(original: ModelSummary, neighbour: Neighbour) -> Candidate:
    model = neighbour.model
    known = {(m.name, m.dataset, m.split): m.value for m in model.metrics}
    return Candidate(
        model=model,
        verdict=neighbour.verdict,
        params_saved=1.0 - model.parameters / original.parameters,
        bytes_saved=1.0 - model.bytes / original.bytes,
        changes=tuple(
            MetricChange(m.name, m.dataset, m.split, m.value, known[m.name, m.dataset, m.split])
            for m in original.metrics
            if (m.name, m.dataset, m.split) in known
        ),
    )
