"""Training of the networks; every stage is a file, kept for the next run.

The folder of a network has ``initial``, ``epoch-1``, ``epoch-3`` and ``trained``; ``tuned-seed`` and ``tuned-task``,
which continue on digits and on their parity; and ``task``, trained on parity from another initialisation.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.training.families import FAMILIES
from examples.digits import BATCH, Digits, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["STAGES", "Course", "accuracy_of", "fit", "one_thread", "stamp", "train_all"]

EARLY = (1, 3)
STAGES = ("initial", *(f"epoch-{epoch}" for epoch in EARLY), "trained", "tuned-seed", "tuned-task", "task")
# Fine-tuning: this fraction of the epochs, at this fraction of the learning rate.
TUNED_EPOCHS, TUNED_RATE = 0.25, 0.2
# Seeds of the additional trainings; no two trainings share a seed.
OTHER_SEED, OTHER_TASK = 1000, 2000

# The code that determines the weights.
_SOURCES = (
    Path(__file__),
    Path(__file__).with_name("families.py"),
    Path(__file__).parents[2] / "examples" / "digits.py",
)

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Course:
    """A training: epochs, the highest learning rate of its one cycle, and the seed of the batch order."""

    epochs: int
    rate: float
    seed: int


def fit(model: nn.Module, images: Tensor, labels: Tensor, course: Course, keep: Sequence[int] = ()) -> dict[int, State]:
    """Train in place and return the weights after each epoch in ``keep``, with the example's optimiser and schedule.

    The caller sets the global random state.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=course.rate, weight_decay=0.01, fused=True)
    steps = course.epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, course.rate, total_steps=steps)
    kept: dict[int, State] = {}
    model.train()
    for epoch in range(1, course.epochs + 1):
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(images[batch]), labels[batch]))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch in keep:
            kept[epoch] = _copy(model)
    model.eval()
    return kept


def train_all(folder: Path, recipes: Sequence[Recipe], progress: Callable[[str], None] | None = None) -> Path:
    """Train the missing recipes and return the folder that has a folder for each recipe.

    It lies below ``folder`` under a name derived from the training code, so that a change of the code trains again.
    ``progress`` is called with the name of each network before its training.
    """
    below = folder / stamp(_SOURCES)
    with one_thread():
        data = Digits.load()
        for recipe in recipes:
            target = below / recipe.name
            if target.is_dir():
                continue
            if progress:
                progress(recipe.name)
            part = target.with_name(f".{recipe.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _train(recipe, data, part)
            part.rename(target)
    return below


def accuracy_of(path: Path) -> float:
    """Held-out accuracy in per cent on the task that the network of this file was last trained on."""
    with safe_open(path, "np") as file:
        return float(file.metadata()["accuracy"])


def _train(recipe: Recipe, data: Digits, folder: Path) -> None:
    """Write every stage of one network into ``folder``."""
    family = FAMILIES[recipe.family]
    parity = replace(data, train_labels=data.train_labels % 2, test_labels=data.test_labels % 2)
    whole = Course(family.epochs, family.rate, recipe.seed)
    short = Course(max(1, round(TUNED_EPOCHS * family.epochs)), TUNED_RATE * family.rate, recipe.seed + OTHER_SEED)

    def stage(name: str, model: nn.Module, task: Digits, course: Course) -> State:
        torch.manual_seed(course.seed)
        early = fit(model, task.train_images, task.train_labels, course, EARLY if name == "trained" else ())
        for epoch, state in early.items():
            save_file(state, folder / f"epoch-{epoch}.safetensors")
        with torch.no_grad():
            right = model(task.test_images).argmax(1) == task.test_labels
        state = _copy(model)
        figures = {"accuracy": f"{100 * right.float().mean().item():.2f}"}
        save_file(state, folder / f"{name}.safetensors", metadata=figures)
        return state

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = family.build(recipe.width)
        save_file(_copy(model), folder / "initial.safetensors")
        trained = stage("trained", model, data, whole)
        for name, task in (("tuned-seed", data), ("tuned-task", parity)):
            model.load_state_dict(trained)
            stage(name, model, task, short)
        torch.manual_seed(recipe.seed + OTHER_TASK)
        stage("task", family.build(recipe.width), parity, replace(whole, seed=recipe.seed + OTHER_TASK))


def _copy(model: nn.Module) -> State:
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def stamp(sources: Sequence[Path]) -> str:
    """12 hexadecimal digits of a hash of Python files, by their syntax trees, so that formatting does not matter."""
    trees = "".join(ast.dump(ast.parse(source.read_bytes())) for source in sources)
    return hashlib.sha256(trees.encode()).hexdigest()[:12]


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: the networks are too small for several, and one gives reproducible sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
