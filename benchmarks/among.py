"""Whether rows that rest on weights and rows that rest on shapes alone can be ranked together.

Half of the published models, drawn anew each time, answer by ``layered`` and half by ``shapes``. Each model asks the
others; those of its family are what should come first. ``ratio`` ranks by distance over the tolerance of the
fingerprint, ``raw`` by the distance itself; ``weights alone`` and ``shapes alone`` are one fingerprint for all. Printed
as well: how often the first row rests on shapes, and how the two ratios of one pair compare.

    .venv/bin/python -m benchmarks.among
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from registry import Registry
from registry.equivalence import shipped
from registry.spectral.specs import LAYERED, SHAPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.types import FingerprintSpec

DRAWS = 20


def distances(registry: Registry, spec: FingerprintSpec) -> tuple[tuple[str, ...], NDArray[np.float64], float]:
    """Names, L1 distances of all pairs, and the calibrated tolerance."""
    names, found = registry.distances(fingerprint=spec.name, distance="l1")
    calibration = shipped(spec, "l1")
    if calibration is None:
        raise ValueError(f"{spec.label} is not calibrated")
    return names, found, calibration.tolerance


def precision(hits: NDArray[np.bool_]) -> float:
    """Average precision of a ranked list with at least one hit."""
    places = np.flatnonzero(hits)
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def main() -> None:
    """Print the tables."""
    with Registry("published:") as registry:
        names, by_weights, weights_tolerance = distances(registry, LAYERED)
        _, by_shapes, shapes_tolerance = distances(registry, SHAPES)
        families = np.array([registry[name].family for name in names])
    weights, shapes = by_weights / weights_tolerance, by_shapes / shapes_tolerance
    draw = np.random.default_rng(0)
    scores: dict[str, list[tuple[float, bool]]] = {}
    first = []
    for _ in range(DRAWS):
        rests_on_shapes = draw.random(len(names)) < 0.5
        for query in range(len(names)):
            others = np.flatnonzero(np.arange(len(names)) != query)
            right, alone = families[others] == families[query], rests_on_shapes[others]
            if not right.any():
                continue
            ranked = {
                "weights alone": weights[query, others],
                "shapes alone": shapes[query, others],
                "ratio": np.where(alone, shapes[query, others], weights[query, others]),
                "raw": np.where(alone, by_shapes[query, others], by_weights[query, others]),
            }
            for name, cost in ranked.items():
                hits = right[cost.argsort(kind="stable")]
                scores.setdefault(name, []).append((precision(hits), bool(hits[0])))
            first.append(alone[ranked["ratio"].argmin()])
    for name, found in scores.items():
        mean, top = np.mean(found, axis=0)
        sys.stdout.write(f"{name:14} mAP {mean:.3f}  P@1 {top:.3f}\n")
    sys.stdout.write(f"ratio: the first row rests on shapes in {100 * np.mean(first):.0f} % (half of the models do)\n")
    rows, columns = np.triu_indices(len(names), 1)
    same = families[rows] == families[columns]
    for told, pairs in (("one family", same), ("two families", ~same)):
        smaller = (shapes[rows, columns] < weights[rows, columns])[pairs].mean()
        medians = np.median(weights[rows, columns][pairs]), np.median(shapes[rows, columns][pairs])
        sys.stdout.write(
            f"pairs of {told}: median ratio by weights {medians[0]:.2f}, by shapes {medians[1]:.2f}; "
            f"smaller by shapes in {100 * smaller:.0f} %\n"
        )


if __name__ == "__main__":
    main()
