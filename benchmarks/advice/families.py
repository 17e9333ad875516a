"""Nine families of small networks: a stem, equal blocks, and a classifier, for images and for sequences.

Each is built for a data set by width and depth (the number of blocks), so that a network without its last block is of
the same family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.advice.tasks import Task

__all__ = ["FAMILIES", "Family", "Network"]


class Network(nn.Module):
    """A stem, blocks that keep the shape, and a head."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (n, channels, extents...) to logits (n, classes)."""
        found = self.stem(inputs)
        for block in self.blocks:
            found = block(found)
        return self.head(found)  # type: ignore[no-any-return]


class Rows(nn.Module):
    """A layer on the rows of an input, with learned positions if asked."""

    def __init__(self, task: Task, width: int, *, positions: bool) -> None:
        super().__init__()
        steps, numbers = task.steps
        self.rows = task.rows
        self.embedding = nn.Linear(numbers, width)
        self.position = nn.Parameter(0.1 * torch.randn(steps, width)) if positions else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, channels, extents...) to (n, steps, width)."""
        found = self.embedding(self.rows(inputs))
        return found if self.position is None else found + self.position  # type: ignore[no-any-return]


class Averaged(nn.Module):
    """The classifier of a sequence, on its average."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Map (n, steps, width) to (n, classes)."""
        return self.classifier(rows.mean(1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """One recurrent layer; its states are the output."""

    def __init__(self, cell: type[nn.RNNBase], width: int) -> None:
        super().__init__()
        self.rnn: nn.Module = cell(width, width, batch_first=True)  # type: ignore[call-arg, arg-type]

    def forward(self, rows: Tensor) -> Tensor:
        """Map (n, steps, width) to the same shape."""
        return self.rnn(rows)[0]  # type: ignore[no-any-return]


class Mixing(nn.Module):
    """A block of an MLP mixer: one layer across the steps, then one within each."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.across, self.within = nn.Linear(steps, steps), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, rows: Tensor) -> Tensor:
        """Map (n, steps, width) to the same shape."""
        rows = rows + functional.gelu(self.across(self.first(rows).transpose(1, 2))).transpose(1, 2)
        return rows + functional.gelu(self.within(self.second(rows)))


class Residual(nn.Module):
    """Two convolutions with an identity connection around them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, width, extents...) to the same shape."""
        return functional.relu(inputs + self.body(inputs))


def _normed(task: Task, inputs: int, outputs: int, size: int = 3, **options: Any) -> list[nn.Module]:
    """A convolution that keeps the extents, and batch normalisation."""
    options["padding"] = options.get("dilation", 1) * (size // 2)
    if task.image:
        return [nn.Conv2d(inputs, outputs, size, bias=False, **options), nn.BatchNorm2d(outputs)]
    return [nn.Conv1d(inputs, outputs, size, bias=False, **options), nn.BatchNorm1d(outputs)]


def _convolutional(block: Callable[[Task, int], nn.Module], *, pooled: bool) -> Callable[[Task, int, int], Network]:
    def build(task: Task, width: int, depth: int) -> Network:
        stem = [*_normed(task, task.channels, width, 3 if task.image else 5), nn.ReLU()]
        pool: nn.Module = nn.MaxPool2d(2) if task.image else nn.MaxPool1d(2)
        average: nn.Module = nn.AdaptiveAvgPool2d(1) if task.image else nn.AdaptiveAvgPool1d(1)
        head = nn.Sequential(average, nn.Flatten(), nn.Linear(width, task.classes))
        stem += [pool] if pooled else []
        return Network(nn.Sequential(*stem), [block(task, width) for _ in range(depth)], head)

    return build


def _plain(task: Task, width: int) -> nn.Module:
    return nn.Sequential(*_normed(task, width, width), nn.ReLU())


def _dilated(task: Task, width: int) -> nn.Module:
    return nn.Sequential(*_normed(task, width, width, dilation=2), nn.ReLU())


def _separable(task: Task, width: int) -> nn.Module:
    depthwise = _normed(task, width, width, 3 if task.image else 5, groups=width)
    return nn.Sequential(*depthwise, nn.ReLU(), *_normed(task, width, width, 1), nn.ReLU())


def _residual(task: Task, width: int) -> nn.Module:
    return Residual(nn.Sequential(*_normed(task, width, width), nn.ReLU(), *_normed(task, width, width)))


def _perceptron(task: Task, width: int, depth: int) -> Network:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(task.inputs[0].numel(), width), nn.ReLU())
    blocks: list[nn.Module] = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
    return Network(stem, blocks, nn.Linear(width, task.classes))


def _sequential(block: Callable[[Task, int], nn.Module], *, positions: bool) -> Callable[[Task, int, int], Network]:
    def build(task: Task, width: int, depth: int) -> Network:
        stem = Rows(task, width, positions=positions)
        return Network(stem, [block(task, width) for _ in range(depth)], Averaged(width, task.classes))

    return build


def _attending(_: Task, width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)


@dataclass(frozen=True, slots=True)
class Family:
    """A family: constructor by data set, width and depth; three widths; steps and highest rate of a whole training."""

    build: Callable[[Task, int, int], Network]
    widths: tuple[int, int, int]
    steps: int
    rate: float


FAMILIES: dict[str, Family] = {
    "mlp": Family(_perceptron, (24, 48, 96), 400, 5e-3),
    "mixer": Family(
        _sequential(lambda task, width: Mixing(task.steps[0], width), positions=False), (16, 32, 64), 400, 5e-3
    ),
    "cnn": Family(_convolutional(_plain, pooled=True), (8, 16, 28), 200, 1e-2),
    "dilated": Family(_convolutional(_dilated, pooled=False), (8, 16, 24), 150, 1e-2),
    "dscnn": Family(_convolutional(_separable, pooled=True), (12, 24, 48), 200, 1e-2),
    "resnet": Family(_convolutional(_residual, pooled=True), (8, 12, 20), 150, 1e-2),
    "lstm": Family(_sequential(lambda _, width: Recurrent(nn.LSTM, width), positions=False), (12, 24, 40), 450, 1e-2),
    "gru": Family(_sequential(lambda _, width: Recurrent(nn.GRU, width), positions=False), (12, 24, 40), 400, 1e-2),
    "transformer": Family(_sequential(_attending, positions=True), (12, 20, 32), 500, 5e-3),
}
