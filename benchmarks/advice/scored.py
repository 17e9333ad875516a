"""Networks with scores in a registry: distances, relations, disagreement and gaps of all pairs of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.spectral_specs import SPECTRAL
from registry.types import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.advice.training import Trained
    from registry import Registry

__all__ = ["METRIC", "SPLIT", "Scored", "ingest", "scored"]

METRIC, SPLIT = "top1", "test"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The n networks of one data set.

    ``top1`` (n,): accuracy in per cent. ``distances``: (n, n) L1 distances by fingerprint. ``disagreement`` (n, n):
    percentage of the scored samples that two networks put into different classes. ``classes`` (n,): training classes.
    ``correlation`` (n, n): r of the weights, as relations have it, within families; NaN where it is not comparable.
    """

    task: str
    names: tuple[str, ...]
    families: NDArray[np.str_]
    parameters: NDArray[np.int64]
    top1: NDArray[np.float64]
    classes: NDArray[np.str_]
    distances: dict[str, NDArray[np.float64]]
    disagreement: NDArray[np.float64]
    correlation: NDArray[np.float64]

    def smaller(self, query: int) -> NDArray[np.int64]:
        """Positions of the networks with fewer parameters than that one."""
        return np.flatnonzero(self.parameters < self.parameters[query])


def ingest(reg: Registry, networks: Sequence[Trained]) -> None:
    """Ingest the files with their cards."""
    for each in networks:
        recipe = each.recipe
        reg.ingest(
            each.path,
            name=recipe.name,
            family=recipe.family,
            architecture=recipe.architecture,
            dataset=recipe.task,
            metrics=(Metric(METRIC, round(each.top1, 4), recipe.task, SPLIT),),
        )


def scored(reg: Registry, networks: Sequence[Trained]) -> list[Scored]:
    """The networks by data set, as the registry that has ingested them tells."""
    found = []
    for task in dict.fromkeys(each.recipe.task for each in networks):
        some = [each for each in networks if each.recipe.task == task]
        names = tuple(each.recipe.name for each in some)
        models = [reg[name] for name in names]
        distances = {}
        for spec in SPECTRAL:
            order, every = reg.distances(fingerprint=spec, distance="l1", dataset=task)
            place = {name: row for row, name in enumerate(order)}
            rows = np.array([place[model.name] for model in models])
            distances[spec] = every[np.ix_(rows, rows)]
        chosen = np.array([each.probabilities.argmax(1) for each in some])
        found.append(
            Scored(
                task,
                names,
                np.array([model.family for model in models]),
                np.array([model.parameters for model in models]),
                np.array([each.top1 for each in some]),
                np.array([model.training_class for model in models]),
                distances,
                100.0 * (chosen[:, None, :] != chosen[None, :, :]).mean(axis=2),
                _correlations(reg, names, [each.recipe.family for each in some]),
            )
        )
    return found


def _correlations(reg: Registry, names: Sequence[str], families: Sequence[str]) -> NDArray[np.float64]:
    """(n, n) correlations of weights within families: networks of two families have few layers of equal shape."""
    found = np.full((len(names), len(names)), np.nan)
    for a, b in combinations(range(len(names)), 2):
        if families[a] == families[b]:
            told = reg.relation(names[a], names[b]).correlation
            found[a, b] = found[b, a] = np.nan if told is None else told
    return found
