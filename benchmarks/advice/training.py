"""Training of the networks; weights and predictions of each are kept for the next run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.advice.families import FAMILIES
from benchmarks.advice.tasks import task_named
from benchmarks.training.networks import Course, fit, one_thread, stamp
from examples.digits import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.advice.families import Network
    from benchmarks.advice.recipes import Recipe
    from benchmarks.advice.tasks import Task

__all__ = ["Trained", "read_trained", "train_missing"]

TUNED_RATE = 0.2
"""Fraction of the family's highest rate at which a network is tuned."""
PRUNED = 0.3
"""Fraction of the numbers of each weight matrix that a pruned network lacks, the smallest by magnitude."""
DESCENDANT = 1_000
"""Added to a parent's seed."""

# The code that determines the weights.
_SOURCES = (
    Path(__file__),
    *(Path(__file__).with_name(f"{name}.py") for name in ("tasks", "families", "recipes")),
    Path(__file__).parents[1] / "training" / "networks.py",
)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network that is kept: its file, its top-1 accuracy in per cent, and its probabilities (n, classes) float16."""

    recipe: Recipe
    path: Path
    top1: float
    probabilities: NDArray[np.float16]


def train_missing(folder: Path, recipes: Sequence[Recipe], progress: Callable[[str], None] | None = None) -> Path:
    """Train the recipes that the folder lacks, in order, and return the folder with their files.

    It lies below ``folder`` under a name derived from the training code, so that a change of the code trains again. A
    run that is stopped continues where it was. ``progress`` gets a line after each twentieth network.
    """
    below = folder / stamp(_SOURCES)
    missing = [recipe for recipe in recipes if not _file(below, recipe).is_file()]
    begun = time.perf_counter()
    with one_thread():
        for done, recipe in enumerate(missing, 1):
            _keep(below, recipe)
            if progress and (done % 20 == 0 or done == len(missing)):
                spent = time.perf_counter() - begun
                left = spent / done * (len(missing) - done)
                progress(f"trained {done} of {len(missing)} networks in {spent:.0f} s, some {left:.0f} s left")
    return below


def read_trained(below: Path, recipes: Sequence[Recipe]) -> list[Trained]:
    """What `train_missing` keeps, in the order of the recipes."""
    found = []
    for recipe in recipes:
        path = _file(below, recipe)
        with safe_open(path, "np") as file:
            top1 = float(file.metadata()["top1"])
        found.append(Trained(recipe, path, top1, np.load(path.with_suffix(".npy"))))
    return found


def _file(below: Path, recipe: Recipe) -> Path:
    return below / f"{recipe.name}.safetensors"


def _keep(below: Path, recipe: Recipe) -> None:
    """Train one network and write its files: the weights last, so that they tell that all is there."""
    task = task_named(recipe.task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed + (DESCENDANT if recipe.parent else 0))
        network = FAMILIES[recipe.family].build(task, recipe.width, recipe.depth)
        if recipe.parent:
            _inherit(network, load_file(below / f"{recipe.parent}.safetensors"), prune=recipe.way == "pruned")
        _train(network, recipe, task)
    network.eval()
    with torch.no_grad():
        probabilities = network(task.scored_inputs).softmax(1)
    top1 = 100.0 * (probabilities.argmax(1) == task.scored_labels).double().mean().item()
    path = _file(below, recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix(".npy"), probabilities.numpy().astype(np.float16))
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(state, part, metadata={"top1": f"{top1:.4f}"})
    part.replace(path)


def _inherit(network: Network, state: dict[str, Tensor], *, prune: bool) -> None:
    """Take the parent's weights for the blocks that are there; ``prune`` takes the smallest of each matrix out."""
    own = network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in own}
    if prune:
        for name, tensor in kept.items():
            if name.endswith(("weight", "weight_ih_l0", "weight_hh_l0", "in_proj_weight")) and tensor.ndim > 1:
                smallest = tensor.abs().flatten().quantile(PRUNED)
                kept[name] = torch.where(tensor.abs() < smallest, 0.0, tensor)
    network.load_state_dict(kept)


def _train(network: nn.Module, recipe: Recipe, task: Task) -> None:
    family = FAMILIES[recipe.family]
    count = round(recipe.share * len(task.labels))
    chosen = torch.randperm(len(task.labels))[:count]
    inputs, labels = task.inputs[chosen], task.labels[chosen].clone()
    wrong = torch.rand(count) < recipe.noise
    labels[wrong] = torch.randint(task.classes, (int(wrong.sum()),))
    epochs = round(recipe.length * family.steps / -(-count // BATCH))
    if recipe.length == 0.0:
        return
    course = Course(max(1, epochs), family.rate, recipe.seed)
    if recipe.way in ("tuned", "shortened"):
        course = replace(course, rate=TUNED_RATE * family.rate)
    fit(network, inputs, labels, course)
