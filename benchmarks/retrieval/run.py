"""The whole benchmark: read the models, score every fingerprint, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.retrieval.folds import SPLITS, block_distances, repeated
from benchmarks.retrieval.models import read_models
from benchmarks.retrieval.report import Row, confusions, gains, table, weights_table
from benchmarks.retrieval.scores import retrieval
from benchmarks.retrieval.vectors import SPECTRAL, VECTORS
from benchmarks.retrieval.watcher import watcher_vectors
from benchmarks.speed.harness import rewrite
from benchmarks.zoo import zoo_folder
from registry.spectral.fingerprints import LAYERED_BLOCKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.retrieval.models import Models

__all__ = ["main", "markdown"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "retrieval"
SHIPPED, BARE = "`layered`", "`layered`, spectra taken out"


def main(manifest: Path | None = None, *, write: bool = False) -> None:
    """Measure and print as Markdown; the zoo without a manifest.

    Parameters
    ----------
    manifest
        Its models are ingested into a temporary registry; it must name families.
    write
        Put the tables into docs/benchmarks.md too, between its ``retrieval`` markers.
    """
    text = markdown(read_models(manifest or zoo_folder() / "manifest.jsonl"))
    print(text)
    if write:
        rewrite(PAGE, MARKER, [text])


def markdown(models: Models) -> str:
    """Every table of the benchmark."""
    vectors = {name: np.array([vector(each) for each in models.spectra]) for name, vector in VECTORS.items()}
    rows = {name: _row(models, name, _distances(found)) for name, found in vectors.items()}
    notes = _watch(models, rows)
    held, weights, means = _held_out(
        models, "`layered`, blocks weighed on other families", vectors[SHIPPED], LAYERED_BLOCKS
    )
    shapes = [name for name in LAYERED_BLOCKS if name not in SPECTRAL]
    bare, _, _ = _held_out(models, "the same, spectra taken out", vectors[SHIPPED], shapes)
    known = len(set(models.family))
    return "\n".join(
        [
            f"{len(models.names)} models, {known} families; {len(rows[SHIPPED].everything.query)} queries, "
            f"{len(rows[SHIPPED].across.query)} across sizes.{notes}",
            "",
            *table([rows[SHIPPED], held, bare, *(row for name, row in rows.items() if name != SHIPPED)]),
            "",
            *gains([("as shipped", rows[SHIPPED], rows[BARE]), ("weighed on other families", held, bare)]),
            "",
            f"Over {SPLITS} divisions into fifths, those weighed on other families had {_ranges(means)}.",
            "",
            "Weights of the blocks, each block's mean distance being 1, as the other four fifths chose them:",
            "",
            *weights_table(weights),
            "",
            f"Nearest models of another family by {SHIPPED} as shipped:",
            "",
            *confusions(models, _distances(vectors[SHIPPED]), rows[SHIPPED]),
        ]
    )


def _distances(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cdist(vectors, vectors, "cityblock"))


def _row(models: Models, name: str, distances: NDArray[np.float64]) -> Row:
    return Row(name, retrieval(distances, models.family), retrieval(distances, models.family, models.topology))


def _held_out(
    models: Models, name: str, vectors: NDArray[np.float64], blocks: list[str] | dict[str, int]
) -> tuple[Row, NDArray[np.float64], NDArray[np.float64]]:
    (everything, across), weights, means = repeated(block_distances(vectors, blocks), models.family, models.topology)
    return Row(name, everything, across), weights, means


def _ranges(means: NDArray[np.float64]) -> str:
    """Least and largest of the means of each division."""
    low, high = means.min(axis=0), means.max(axis=0)
    named = [("P@1", 0, 0), ("mAP", 0, 1), ("cross-size P@1", 1, 0), ("cross-size mAP", 1, 1)]
    return ", ".join(f"{name} {low[kind, at]:.3f}-{high[kind, at]:.3f}" for name, kind, at in named)


def _watch(models: Models, rows: dict[str, Row]) -> str:
    """Add WeightWatcher's row where the package can be had; what is to be said of it."""
    name = "WeightWatcher's columns"
    try:
        found, missed = watcher_vectors(models.refs)
    except ImportError as error:
        return f" Without WeightWatcher: {error}."
    rows[name] = _row(models, name, _distances(found))
    return f" WeightWatcher could not take {missed} of the models."
