"""Verdicts of the registry for a trained network and its variants."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.spectral_specs import SPECTRAL
from benchmarks.training.networks import STAGES
from benchmarks.training.variants import VARIANTS, write_variants
from registry import Registry
from registry.spectral.conjugacy import TAIL_DELTA
from registry.spectral.specs import DEFAULT_SPEC

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.digits import Recipe
    from registry.types import Conjugacy

__all__ = ["KINDS", "SEED", "Pair", "Side", "measure"]

SEED = "another seed"
KINDS = {
    SEED: "trained",
    "own initialisation": "initial",
    "own weights shuffled": "shuffled",
    "after 1 epoch": "epoch-1",
    "after 3 epochs": "epoch-3",
    "another task, from another initialisation": "task",
    "fine-tuned to another task": "tuned-task",
    "fine-tuned, same task": "tuned-seed",
    "pruned by 50 %": "pruned-50",
    "pruned by 90 %": "pruned-90",
    "8-bit integers and back": "int8",
    "float16": "float16",
    "units rescaled by 1/2 to 2": "units-rescaled",
    "layers rescaled": "layers-rescaled",
    "units permuted": "permuted",
}
"""The kinds of networks that a trained network is compared with, and their file names."""


@dataclass(frozen=True, slots=True)
class Side:
    """One network of a pair: name, training class and tail class, z, and location x*(0.01) of the tail class."""

    name: str
    tail_class: str
    training_class: str
    z: float
    tail: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A trained network ``a`` and another ``b``, under one fingerprint with L1 at its default tolerance.

    ``topology``: architecture of both. ``equivalent``: the registry's verdict. ``within``: by distance only.
    ``depths``: share of the block ``depths`` in the L1 distance of ``layered``, whichever fingerprint this is.
    """

    kind: str
    fingerprint: str
    topology: str
    a: Side
    b: Side
    distance: float
    tolerance: float
    equivalent: bool
    depths: float

    @property
    def within(self) -> bool:
        """Whether the distance is within the tolerance."""
        return self.distance <= self.tolerance

    @property
    def same_tail(self) -> bool:
        """Whether both have the same tail class."""
        return self.a.tail_class == self.b.tail_class

    @property
    def same_training(self) -> bool:
        """Whether both have the same training class."""
        return self.a.training_class == self.b.training_class


def measure(folder: Path, recipes: Sequence[Recipe]) -> list[Pair]:
    """All pairs of all kinds, from the folders that `train_all` made for the recipes, in a temporary registry."""
    with tempfile.TemporaryDirectory() as made:
        for recipe in recipes:
            write_variants(folder / recipe.name / "trained.safetensors", recipe.family, Path(made) / recipe.name)
        files = [
            path
            for recipe in recipes
            for below, names in ((folder, STAGES), (Path(made), VARIANTS))
            for name in names
            if (path := below / recipe.name / f"{name}.safetensors").is_file()
        ]
        with Registry(f"sqlite:///{made}/models.db") as reg:
            for path in files:
                reg.ingest(path, name=_name(path.parent.name, path.stem))
            return list(_pairs(reg, recipes))


def _pairs(reg: Registry, recipes: Sequence[Recipe]) -> Iterator[Pair]:
    known = {name for model in reg.models() for name in model.names}
    topologies: dict[str, list[str]] = defaultdict(list)
    for recipe in recipes:
        topologies[recipe.architecture].append(recipe.name)
    for topology, members in topologies.items():
        wanted = [(SEED, _name(a, "trained"), _name(b, "trained")) for a, b in combinations(members, 2)]
        for kind, file in KINDS.items():
            if kind != SEED:
                wanted += [(kind, _name(member, "trained"), _name(member, file)) for member in members]
        for kind, a, b in wanted:
            if b in known:
                yield from _under_each(reg, kind, topology, (a, b))


def _under_each(reg: Registry, kind: str, topology: str, names: tuple[str, str]) -> Iterator[Pair]:
    """The pair under every fingerprint; its differences are the same for all."""
    found = {spec: reg.compare(*names, fingerprint=spec, distance="l1") for spec in SPECTRAL}
    default = found[DEFAULT_SPEC]
    first, second = (
        _side(name, figures) for name, figures in zip(names, (default.conjugacy_a, default.conjugacy_b), strict=True)
    )
    assert default.contrast is not None, names
    depths = dict(default.contrast.shares)["depths"] * default.verdict.distance
    for spec, compared in found.items():
        verdict = compared.verdict
        yield Pair(kind, spec, topology, first, second, verdict.distance, verdict.tolerance, verdict.equivalent, depths)


def _side(name: str, figures: Conjugacy | None) -> Side:
    assert figures is not None, name
    return Side(name, figures.tail_class, figures.training_class, figures.z, dict(figures.tail)[TAIL_DELTA])


def _name(network: str, what: str) -> str:
    return f"{network}/{what}"
