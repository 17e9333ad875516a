"""Table rows: scores of each fingerprint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.retrieval.folds import as_shipped, held_out
from benchmarks.retrieval.learning import SHIPPED, sample_of
from benchmarks.retrieval.report import Row
from benchmarks.retrieval.scores import retrieval
from benchmarks.retrieval.vectors import CHANGED, PARTS, VECTORS
from benchmarks.retrieval.watcher import watcher_vectors
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.retrieval.folds import HeldOut
    from benchmarks.retrieval.learning import Sample
    from benchmarks.retrieval.models import Models

__all__ = [
    "BARE",
    "BLOCKS",
    "LAYERED",
    "of_distances",
    "of_held_out",
    "of_others",
    "of_parts",
    "of_vectors",
    "of_watcher",
]

LAYERED, BARE, UNLEARNED = "`layered`", "`layered`, spectra taken out", "`layered` without its transform"
IN_SAMPLE = "`layered` by a transform that knows these families"
BLOCKS = list(LAYERED_BLOCKS)


def of_distances(name: str, labels: Models | Sample, distances: NDArray[np.float64]) -> Row:
    """A row from (n, n) distances, one matrix row per query."""
    every, across = (retrieval(distances, labels.family, sizes) for sizes in (None, labels.topology))
    return Row(name, every, across)


def of_held_out(name: str, held: HeldOut) -> Row:
    """A row for held-out families."""
    return Row(name, held.everything, held.across)


def of_parts(models: Models, sample: Sample) -> dict[str, Row]:
    """Rows of the default fingerprint without some of its parts, with the transform learned on other families.

    Also with the shipped transform, for the families that it was learned on.
    """
    fits = as_shipped()
    rows = {
        UNLEARNED: of_held_out(UNLEARNED, held_out(sample, fits, BLOCKS, None)),
        IN_SAMPLE: of_distances(IN_SAMPLE, models, _between(models, LAYERED)),
    }
    rows |= {name: of_held_out(name, held_out(sample, fits, left, sample)) for name, left in PARTS.items()}
    for name, change in CHANGED.items():
        changed = sample_of(replace(models, spectra=[tuple(change(each)) for each in models.spectra]))
        rows[name] = of_held_out(name, held_out(changed, fits, BLOCKS, sample))
    return rows


def of_others(models: Models, sample: Sample, teacher: Sample) -> list[Row]:
    """Rows of the shipped numbers for families not used to learn them; ``teacher``: the models that were used."""
    transform = teacher.transform(SHIPPED)
    return [
        of_distances(LAYERED, models, _between(models, LAYERED)),
        of_distances(UNLEARNED, models, sample.distances(SHIPPED)),
        of_distances(BARE, models, sample.distances(SHIPPED, PARTS[BARE], transform)),
    ]


def of_vectors(models: Models, *, gaussian: bool) -> list[Row]:
    """Rows of the fingerprints without learned parts; ``gaussian``: also with Gaussian weights for every layer."""
    names = [name for name in VECTORS if name != LAYERED and (gaussian or "Gaussian" not in name)]
    return [of_distances(name, models, _between(models, name)) for name in names]


def of_watcher(models: Models) -> tuple[list[Row], str]:
    """Row of WeightWatcher if it is installed and there are weights, and a note on it."""
    if not models.refs:
        return [], " Without WeightWatcher, which needs weights."
    try:
        found, missed = watcher_vectors(models.refs)
    except ImportError as error:
        return [], f" Without WeightWatcher: {error}."
    row = of_distances("WeightWatcher's columns", models, cdist(found, found, "cityblock"))
    return [row], f" WeightWatcher could not take {missed} of the models."


def _between(models: Models, name: str) -> NDArray[np.float64]:
    vectors = np.array([VECTORS[name](each) for each in models.spectra])
    return np.asarray(cdist(vectors, vectors, "cityblock"))
