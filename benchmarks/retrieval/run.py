"""The whole retrieval benchmark: read the models, score every fingerprint, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.architectures import architectures_of_timm
from benchmarks.retrieval.folds import FOLDS, SPLITS, as_shipped, fitted, held_out
from benchmarks.retrieval.learning import learned, sample_of
from benchmarks.retrieval.models import published_models, read_models
from benchmarks.retrieval.report import confusions, gains, numbers_table, table
from benchmarks.retrieval.rows import (
    BARE,
    BLOCKS,
    LAYERED,
    of_distances,
    of_held_out,
    of_others,
    of_parts,
    of_vectors,
    of_watcher,
)
from benchmarks.retrieval.vectors import PARTS
from benchmarks.speed.harness import rewrite
from benchmarks.zoo import zoo_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.retrieval.folds import Fits
    from benchmarks.retrieval.learning import Sample
    from benchmarks.retrieval.models import Models

__all__ = ["main", "markdown"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "retrieval"
LEARNED = "all learned on other families"
JOINT_LEARNED = f"{LEARNED} and on timm's"
JOINT = 2
"""Number of divisions when timm's architectures are learned from, too; each fit takes 15 seconds."""
DRAWS = 10
"""Number of other seeds of the random features, to show the effect of the shipped seed."""


def main(manifest: Path | None = None, *, write: bool = False) -> None:
    """Measure and print the tables as Markdown; without a manifest, on the zoo.

    Where the zoo is missing, the spectra of its models are taken from ``published:``, and what needs weights is left
    out.

    Parameters
    ----------
    manifest
        Manifest of the models; it must give families.
    write
        Also put the tables into docs/benchmarks.md, between its ``retrieval`` markers.
    """
    try:
        models = read_models(manifest or zoo_folder() / "manifest.jsonl")
    except FileNotFoundError as error:
        print(f"by the spectra of published:, {error}", file=sys.stderr)
        models = published_models()
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
    """All tables of the benchmark; ``architectures``: models with shapes only, None to omit them."""
    sample = sample_of(models)
    others = sample_of(architectures) if architectures else None
    ships = held_out(sample, as_shipped(), BLOCKS, sample)
    parts = of_parts(models, sample)
    watched, note = of_watcher(models)
    fits, bare = fitted([sample], BLOCKS), fitted([sample], PARTS[BARE])
    joint = fitted([sample, others], BLOCKS, JOINT) if others else []
    held = held_out(sample, fits, BLOCKS, sample)
    strict = [
        of_held_out(LEARNED, held),
        of_held_out("the same, without the transform", held_out(sample, fits, BLOCKS, None)),
        of_held_out("the same, spectra taken out", held_out(sample, bare, PARTS[BARE], sample)),
        *([of_held_out(JOINT_LEARNED, held_out(sample, joint, BLOCKS, sample))] if joint else ()),
    ]
    first = of_held_out(LAYERED, ships)
    return "\n".join(
        [
            f"{len(models.names)} models, {len(set(models.family))} families; {len(first.everything.query)} queries, "
            f"{len(first.across.query)} across sizes.{note}",
            "",
            *table([first, *strict, *parts.values(), *of_vectors(models, gaussian=True), *watched]),
            "",
            *gains([("numbers that ship", first, parts[BARE]), (LEARNED, strict[0], strict[2])]),
            "",
            f"Over {SPLITS} divisions into fifths, {LAYERED} had {_ranges(ships.means)}; {LEARNED}: "
            f"{_ranges(held.means)}. By {DRAWS} other draws of its random features {LAYERED} has "
            f"{_ranges(_redrawn(models))}.",
            *(_shapes_alone(architectures, others, sample, joint) if architectures and others else ()),
            "",
            f"What four fifths of the families chose, over what ships: median, quartiles of {SPLITS * FOLDS} fits.",
            "",
            *numbers_table(*([each for split in some for each in split] for some in (fits, joint))),
            "",
            f"Nearest models of another family by {LAYERED}, in the first of the divisions:",
            "",
            *confusions(models, ships.distances, of_distances(LAYERED, models, ships.distances)),
        ]
    )


def _shapes_alone(architectures: Models, others: Sample, sample: Sample, joint: Fits) -> list[str]:
    """Table of the architectures.

    Its rows use the shipped numbers, numbers learned on the models, and numbers learned on other families of both.
    """
    numbers = learned([sample], BLOCKS)
    transform = sample.transform(numbers)
    rows = [
        *of_others(architectures, others, sample),
        of_distances("all learned on the models above", others, others.distances(numbers, BLOCKS, transform)),
        of_held_out(JOINT_LEARNED, held_out(others, joint, BLOCKS, sample)),
        *of_vectors(architectures, gaussian=False),
    ]
    return [
        "",
        f"timm's architectures, {len(architectures.names)} of {len(set(architectures.family))} of its modules:",
        "",
        *table(rows),
    ]


def _redrawn(models: Models) -> NDArray[np.float64]:
    """Means with other random features and a transform learned for each, (draws, 2, 3): all and cross-size."""
    samples = [sample_of(models, 10 * draw) for draw in range(1, DRAWS + 1)]
    return np.array([held_out(each, as_shipped(1), BLOCKS, each).means[0] for each in samples])


def _ranges(means: NDArray[np.float64]) -> str:
    """Smallest and largest of the means of the divisions."""
    low, high = means.min(axis=0), means.max(axis=0)
    named = [("P@1", 0, 0), ("mAP", 0, 1), ("cross-size P@1", 1, 0), ("cross-size mAP", 1, 1)]
    return ", ".join(f"{name} {low[kind, at]:.3f}-{high[kind, at]:.3f}" for name, kind, at in named)
