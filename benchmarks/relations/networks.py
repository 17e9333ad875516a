"""Networks whose relations are known or can be measured: the zoo's, and small ones trained on digits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.training.families import RECIPES
from benchmarks.training.networks import OTHER_TASK, STAGES, train_all
from benchmarks.zoo import zoo_folder
from registry.equivalence.relations import SketchedLayers, sketched
from registry.equivalence.sketches import SKETCH_VERSION, buckets_for, centred, sketch_of
from registry.sources import layer_matrix, open_ref, plan_weights
from registry.sources.references import expand
from registry.types import Sketches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.types import ModelRef

__all__ = ["Network", "cosines", "networks"]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network: its file, family, topology and sketches. ``start``: equal for networks of one seed, else the name."""

    name: str
    ref: ModelRef
    family: str
    start: str
    topology: str
    layers: SketchedLayers


def networks(folder: Path, progress: Callable[[str], None]) -> list[Network]:
    """All networks; those of digits are trained into the folder if they are not there."""
    from registry import Registry

    with Registry("none.db") as reg:
        zoo = reg.plan(manifest=zoo_folder() / "manifest.jsonl")
    found = [read(ref, ref.card.family, ref.name) for ref in zoo]
    below = train_all(folder, RECIPES, progress)
    for recipe in RECIPES:
        for stage in STAGES:
            # Training for another task begins from a seed of its own.
            seed = recipe.seed + (OTHER_TASK if stage == "task" else 0)
            [ref] = expand(below / recipe.name / f"{stage}.safetensors")
            found.append(read(ref, f"digits {recipe.family}", f"seed {seed}", f"{recipe.name}/{stage}"))
    return found


def read(ref: ModelRef, family: str, start: str, name: str = "") -> Network:
    """Read a network and sketch its layers."""
    with open_ref(ref) as checkpoint:
        plan = plan_weights(checkpoint)
        buckets = buckets_for(len(plan.layers))
        values = np.zeros((len(plan.layers), buckets), np.float16)
        for layer in plan.layers:
            drawn = sketch_of(layer_matrix(checkpoint, layer), layer.kernel, buckets)
            if drawn is not None:
                values[layer.position] = drawn
    layers = sketched(plan.layers, Sketches(SKETCH_VERSION, values))
    assert layers is not None
    return Network(name or ref.name, ref, family, start, plan.topology, layers)


def cosines(group: Sequence[Network]) -> Iterator[tuple[int, int, float]]:
    """Median over layers of the exact cosine of the centred layers, of each pair of networks of one topology."""
    units = [_units(network) for network in group]
    for at, one in enumerate(units):
        for other in range(at):
            found = [float(a @ b) for a, b in zip(one, units[other], strict=True) if a is not None and b is not None]
            yield other, at, float(np.median(found)) if found else math.nan


def _units(network: Network) -> list[NDArray[np.float32] | None]:
    """Centred layers, each scaled to norm 1; None where a layer has no sketch."""
    found: list[NDArray[np.float32] | None] = []
    named = set(network.layers.names)
    with open_ref(network.ref) as checkpoint:
        for layer in plan_weights(checkpoint).layers:
            if layer.name not in named:
                found.append(None)
                continue
            flat = centred(layer_matrix(checkpoint, layer), layer.kernel)[0].reshape(-1)
            found.append(flat / np.linalg.norm(flat))
    return found
