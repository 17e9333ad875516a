"""The whole benchmark: read the models, score every fingerprint, print."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.retrieval.architectures import architectures_of_timm
from benchmarks.retrieval.folds import SPLITS, held_out
from benchmarks.retrieval.learning import learned, sample_of
from benchmarks.retrieval.models import read_models
from benchmarks.retrieval.report import Row, confusions, gains, numbers_table, table
from benchmarks.retrieval.scores import retrieval
from benchmarks.retrieval.vectors import SPECTRAL, VECTORS
from benchmarks.retrieval.watcher import watcher_vectors
from benchmarks.speed.harness import rewrite
from benchmarks.zoo import zoo_folder
from registry.spectral import fingerprint
from registry.spectral.fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.retrieval.folds import HeldOut
    from benchmarks.retrieval.learning import Sample
    from benchmarks.retrieval.models import Models

__all__ = ["main", "markdown"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "retrieval"
SHIPPED, BARE = "`layered`", "`layered`, spectra taken out"
LEARNED = "`layered`, learned on other families and on timm's"
JOINT = 2
"""Divisions when timm's architectures are learned from, too: each fit takes a quarter of a minute."""
DRAWS = 10
"""Other seeds of the random features: what is owed to the one that ships."""


def main(manifest: Path | None = None, *, write: bool = False) -> None:
    """Measure and print as Markdown; the zoo without a manifest.

    Parameters
    ----------
    manifest
        Its models are ingested into a temporary registry; it must name families.
    write
        Put the tables into docs/benchmarks.md too, between its ``retrieval`` markers.
    """
    models = read_models(manifest or zoo_folder() / "manifest.jsonl")
    try:
        architectures = architectures_of_timm()
    except ImportError as error:
        print(f"without timm's architectures: {error}", file=sys.stderr)
        architectures = None
    text = markdown(models, architectures)
    print(text)
    if write:
        rewrite(PAGE, MARKER, [text])


def markdown(models: Models, architectures: Models | None) -> str:
    """Every table of the benchmark; ``architectures``: of which shapes are all there is, None to do without."""
    vectors = {name: np.array([vector(each) for each in models.spectra]) for name, vector in VECTORS.items()}
    rows = {name: _row(models, name, _distances(found)) for name, found in vectors.items()}
    notes = _watch(models, rows)
    sample = sample_of(models)
    blocks = list(LAYERED_BLOCKS)
    shapes = [name for name in blocks if name not in SPECTRAL]
    (held,) = held_out([sample], blocks)
    (bare,) = held_out([sample], shapes)
    others = sample_of(architectures) if architectures else None
    joint = held_out([sample, others], blocks, JOINT) if others else []
    strict = [
        Row("`layered`, learned on other families", held.everything, held.across),
        Row("the same, spectra taken out", bare.everything, bare.across),
        *(Row(LEARNED, each.everything, each.across) for each in joint[:1]),
    ]
    known = len(set(models.family))
    return "\n".join(
        [
            f"{len(models.names)} models, {known} families; {len(rows[SHIPPED].everything.query)} queries, "
            f"{len(rows[SHIPPED].across.query)} across sizes.{notes}",
            "",
            *table([rows[SHIPPED], *strict, *(row for name, row in rows.items() if name != SHIPPED)]),
            "",
            *gains([("as shipped", rows[SHIPPED], rows[BARE]), ("learned on other families", *strict[:2])]),
            "",
            f"Over {SPLITS} divisions into fifths, those learned on other families had {_ranges(held.means)}. Over "
            f"{DRAWS} other draws of its random features {SHIPPED} has {_ranges(_redrawn(models))}.",
            *(_shapes_alone(architectures, others, sample, joint) if architectures and others else ()),
            "",
            f"What four fifths of the families chose, over what ships: median, quartiles of {len(held.numbers)} fits.",
            "",
            *numbers_table(held.numbers, joint[0].numbers if joint else []),
            "",
            f"Nearest models of another family by {SHIPPED} as shipped:",
            "",
            *confusions(models, _distances(vectors[SHIPPED]), rows[SHIPPED]),
        ]
    )


def _shapes_alone(architectures: Models, sample: Sample, models: Sample, joint: Sequence[HeldOut]) -> Sequence[str]:
    """The table of the architectures: by what ships, by what the models chose, learned on other families of both."""
    wanted = (SHIPPED, BARE, "`mme`", "rough count of shapes", "number of parameters")
    vectors = {name: np.array([VECTORS[name](each) for each in architectures.spectra]) for name in wanted}
    rows = [_row(architectures, name, _distances(found)) for name, found in vectors.items()]
    alone = learned([models], list(LAYERED_BLOCKS))
    rows.insert(1, _row(architectures, "`layered`, learned on the published models", sample.distances(alone)))
    rows[1:1] = [Row(LEARNED, each.everything, each.across) for each in joint[1:]]
    return [
        "",
        f"timm's architectures, {len(architectures.names)} of {len(set(architectures.family))} of its modules:",
        "",
        *table(rows),
    ]


def _distances(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cdist(vectors, vectors, "cityblock"))


def _row(models: Models, name: str, distances: NDArray[np.float64]) -> Row:
    return Row(name, retrieval(distances, models.family), retrieval(distances, models.family, models.topology))


def _redrawn(models: Models) -> NDArray[np.float64]:
    """Means of `SHIPPED` with other random features, (draws, 2, 3): all and cross-size."""
    made = []
    for seed in range(1, DRAWS + 1):
        spec = replace(LAYERED, seed=10 * seed)
        row = _row(models, "", _distances(np.array([fingerprint(each, spec).vector for each in models.spectra])))
        made.append([row.everything.mean(), row.across.mean()])
    return np.array(made)


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
