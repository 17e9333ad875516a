"""The networks of the benchmark: eight trainings for each data set and family, and five descendants of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.advice.families import FAMILIES
from benchmarks.advice.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RECIPES", "Recipe", "recipes_of"]

SHALLOW, DEEP = 1, 3
"""Blocks of a network."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network: its data set, family, width and depth, and how it is trained.

    ``length``: fraction of the family's steps. ``noise``: fraction of the labels that are drawn at random. ``share``:
    fraction of the training part that is used. ``parent``: name of the network that it continues, by ``way``: tuned,
    continued, pruned or shortened; empty for one from its own initialisation.
    """

    task: str
    family: str
    width: int
    depth: int
    seed: int
    length: float = 1.0
    noise: float = 0.0
    share: float = 1.0
    parent: str = ""
    way: str = ""

    @property
    def architecture(self) -> str:
        """Family, width and depth, as in ``mlp48x3``."""
        return f"{self.family}{self.width}x{self.depth}"

    @property
    def name(self) -> str:
        """A name that no other recipe of the benchmark has."""
        return f"{self.task}/{self.architecture}-s{self.seed}" + (f"-{self.way}" if self.way else "")


def recipes_of(task: str, family: str) -> Iterator[Recipe]:
    """Networks of one family on one data set, parents before their descendants.

    Six are trained as well as the family allows; two are short of steps, labels or data, in amounts drawn for the pair.
    """
    small, middle, large = FAMILIES[family].widths
    random = np.random.default_rng(zlib.crc32(f"{task} {family}".encode()))
    sizes = ((large, DEEP), (large, DEEP), (middle, DEEP), (small, DEEP), (middle, SHALLOW), (small, SHALLOW))
    sound = [Recipe(task, family, width, depth, seed) for seed, (width, depth) in enumerate(sizes)]
    yield from sound
    for seed in (6, 7):
        width, depth = sizes[random.integers(1, len(sizes))]
        lacks = random.integers(3)
        yield Recipe(
            task, family, width, depth, seed,
            length=(0.15, 0.4)[random.integers(2)] if lacks == 0 else 1.0,
            noise=(0.2, 0.5)[random.integers(2)] if lacks == 1 else 0.0,
            share=(0.1, 0.3)[random.integers(2)] if lacks == 2 else 1.0,
        )  # fmt: skip
    for parent, way, length, share in (
        (sound[0], "tuned", 0.25, 0.5),
        (sound[2], "continued", 1.0, 1.0),
        (sound[1], "pruned", 0.0, 1.0),
        (sound[0], "shortened", 0.25, 1.0),
        (sound[2], "shortened", 0.25, 1.0),
    ):
        depth = parent.depth - (way == "shortened")
        yield Recipe(task, family, parent.width, depth, parent.seed, length, share=share, parent=parent.name, way=way)


RECIPES = tuple(recipe for task in TASKS for family in FAMILIES for recipe in recipes_of(task, family))
