"""Learning of the scales and weights of ``layered`` from labelled models, from a start that uses no labels.

The scales of its columns and the weights of its blocks (``registry.spectral.shipped_fingerprints``), 34 of them, and a
temperature beside them. For each query, each model of its family is to stand before all of other families: the logistic
loss of log sum exp over those of d(query, relative) - d(query, other), with the whole gallery and across sizes, every
query's relatives weighing the same together, and a family of n queries n^1/2. Logarithms are held by a quadratic
penalty to where they began: each property at half a standard deviation, each block at the same mean distance. The
transform is not in it: it follows from the numbers and the same models, in closed form
(``benchmarks.retrieval.transform``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.retrieval.transform import learned_transform
from registry.spectral.learned_transform import LEARNED
from registry.spectral.shipped_fingerprints import (
    COLUMNS,
    LAYERED_BLOCKS,
    SCALES,
    SEEDS,
    WEIGHTS,
    departures,
    fourier_features,
    points_of,
)
from registry.spectral.specs import LAYERED

if TYPE_CHECKING:
    from benchmarks.retrieval.models import Models

__all__ = ["SHIPPED", "Transform", "Numbers", "Sample", "learned", "neutral", "sample_of"]

Numbers = dict[tuple[str, str], float]
"""Numbers by block and property; the weight of a block has the property ""."""
Transform = Mapping[str, NDArray[np.float64]]
"""Matrix that multiplies the numbers of each block."""

SHIPPED: Numbers = {
    **{(block, name): value for block, scales in SCALES.items() for name, value in scales.items()},
    **{(block, ""): value for block, value in WEIGHTS.items()},
}

PENALTY = 0.01
STEPS = 30
START, LEAST = 0.5, 0.15
"""Initial scale in standard deviations, and the smallest standard deviation that counts as non-zero."""
TEMPERATURE = 20.0  # initial factor of distances in the loss; their mean is about 1


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Models prepared for fingerprints with any numbers.

    ``points``: by block, columns (N, columns) of all models' layers or runs, the model index of each (N,), and weights
    (N,) that sum to 1 per model. ``fixed``: the other blocks, (n, numbers). ``seed``: of the random features.
    """

    family: NDArray[np.str_]
    topology: NDArray[np.str_]
    points: dict[str, tuple[Tensor, Tensor, Tensor]]
    fixed: dict[str, Tensor]
    seed: int = LAYERED.seed

    def of(self, kept: NDArray[np.bool_]) -> Sample:
        """The sample of the models in a mask (n,)."""
        place = torch.from_numpy(np.cumsum(kept) - 1)
        marked = torch.from_numpy(kept)
        points = {
            name: (columns[some], place[model[some]], weights[some])
            for name, (columns, model, weights) in self.points.items()
            if (some := marked[model]) is not None
        }
        fixed = {name: rows[marked] for name, rows in self.fixed.items()}
        return Sample(self.family[kept], self.topology[kept], points, fixed, self.seed)

    def rows(self, numbers: Mapping[tuple[str, str], Tensor], names: Collection[str]) -> dict[str, Tensor]:
        """Each block before transform and weight, (n, its length), as in `fingerprint` but not float32."""
        made = {}
        for name, length in LAYERED_BLOCKS.items():
            if name not in names:
                continue
            if name in self.fixed:
                made[name] = self.fixed[name]
                continue
            columns, model, weights = self.points[name]
            scales = torch.stack([numbers[name, each] for each in COLUMNS[name]])
            features, phases = map(_single, fourier_features(columns.shape[1], length, self.seed + SEEDS[name]))
            waves = torch.cos((columns * scales) @ features + phases) * weights[:, None]
            made[name] = torch.zeros(len(self.family), length).index_add_(0, model, waves)
        return made

    def vectors(
        self, numbers: Mapping[tuple[str, str], Tensor], names: Collection[str], transform: Transform | None = None
    ) -> Tensor:
        """Fingerprints of the named blocks, (n, numbers), with transform and weights."""
        made = []
        for name, rows in self.rows(numbers, names).items():
            turned = rows @ _single(transform[name]) if transform and name in transform else rows
            made.append(numbers[name, ""] / rows.shape[1] * turned)
        return torch.cat(made, 1)

    def distances(
        self, numbers: Numbers, names: Collection[str] = tuple(LAYERED_BLOCKS), transform: Transform | None = None
    ) -> NDArray[np.float64]:
        """L1 distances between all models with the named blocks, (n, n)."""
        with torch.no_grad():
            vectors = self.vectors(_tensors(numbers), names, transform)
            return np.asarray(torch.cdist(vectors, vectors, p=1).numpy(), np.float64)

    def transform(self, numbers: Numbers, names: Collection[str] = LEARNED) -> Transform:
        """The transform learned from these models with the given numbers, for the blocks that have one."""
        with torch.no_grad():
            rows = self.rows(_tensors(numbers), [name for name in names if name in LEARNED])
            return learned_transform({name: each.numpy() for name, each in rows.items()}, self.family)


def sample_of(models: Models, seed: int = LAYERED.seed) -> Sample:
    """Points and labels of the models; ``seed``: of the random features."""
    found = [points_of(spectra) for spectra in models.spectra]
    points = {
        name: (
            _single(np.concatenate([each[name][0] for each in found])),
            torch.from_numpy(np.repeat(np.arange(len(found)), [len(each[name][0]) for each in found])),
            _single(np.concatenate([each[name][1] / each[name][1].sum() for each in found])),
        )
        for name in COLUMNS
    }
    fixed = {
        "depths": _single(np.array([departures(spectra, LAYERED).ravel() for spectra in models.spectra])),
        "layers": _single(np.log2([[len(spectra) + 1.0] for spectra in models.spectra])),
    }
    return Sample(models.family, models.topology, points, fixed, seed)


def neutral(sample: Sample, names: Collection[str]) -> Numbers:
    """Start of the learning, without labels.

    Every property has `START` over its standard deviation; properties with m columns are divided by m^1/2 (except that
    columns of single layers describe one of three kinds at a time). Every block has the same mean distance.
    """
    numbers: Numbers = {}
    for block in COLUMNS:
        columns, _, weights = (each.numpy() for each in sample.points[block])
        share = weights / weights.sum()
        variance = share @ (columns - share @ columns) ** 2
        for name in dict.fromkeys(COLUMNS[block]):
            own = np.array(COLUMNS[block]) == name
            several = 1.0 if block == "shapes" else float(own.sum()) ** 0.5
            numbers[block, name] = START / max(float(variance[own].mean()) ** 0.5, LEAST) / several
    numbers |= {(block, ""): 1.0 for block in LAYERED_BLOCKS}
    for block in names:
        numbers[block, ""] = 1.0 / (len(names) * float(sample.distances(numbers, [block]).mean()))
    return numbers


def learned(samples: Sequence[Sample], names: Collection[str]) -> Numbers:
    """Numbers for the named blocks, from `neutral` of the first sample, with the mean loss over the samples."""
    start = neutral(samples[0], names)
    free = [key for key in start if key[0] in names]
    goals = [_goals(sample) for sample in samples]
    logarithms = torch.zeros(len(free) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([logarithms], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        factors = torch.exp(logarithms)
        numbers = _tensors(start) | {key: start[key] * factors[at] for at, key in enumerate(free)}
        total = PENALTY * (logarithms[:-1] ** 2).sum()
        for sample, goal in zip(samples, goals, strict=True):
            vectors = sample.vectors(numbers, names)
            distances = torch.cdist(vectors, vectors, p=1) * (TEMPERATURE * factors[-1])
            total = total + sum(_loss(distances, *each) for each in goal) / (len(goal) * len(samples))
        torch.autograd.backward(total)
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    found = torch.exp(logarithms.detach()).tolist()
    return start | {key: start[key] * found[at] for at, key in enumerate(free)}


def _goals(sample: Sample) -> list[tuple[Tensor, Tensor]]:
    """Weights (n, n) of each query's relatives, with sum 1, and masks of the other models, all and across sizes."""
    codes = np.unique(sample.family, return_inverse=True)[1]
    same = codes[:, None] == codes
    made = []
    for hidden in (np.eye(len(codes), dtype=bool), sample.topology[:, None] == sample.topology):
        relatives = same & ~hidden
        count = relatives.sum(axis=1)
        asked = np.bincount(codes[count > 0], minlength=codes.max() + 1)[codes]
        weights = relatives / np.maximum(count, 1)[:, None] / np.maximum(asked, 1)[:, None] ** 0.5
        made.append((_single(weights / weights.sum()), torch.from_numpy(~same & ~hidden)))
    return made


def _loss(distances: Tensor, weights: Tensor, others: Tensor) -> Tensor:
    nearness = torch.logsumexp(torch.where(others, -distances, -1e9), 1, keepdim=True)
    return (weights * functional.softplus(nearness + distances)).sum()


def _tensors(numbers: Numbers) -> dict[tuple[str, str], Tensor]:
    return {key: torch.tensor(value) for key, value in numbers.items()}


def _single(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
