"""The trained networks: six families of the example and three more, two widths each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from examples.digits import BUILDERS, CLASSES, EPOCHS, LEARNING_RATE, LEARNING_RATES, SIDE, Recipe, block, head

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAMILIES", "RECIPES", "SEEDS", "Family"]

SEEDS = (0, 1, 2)


class RowReader(nn.Module):
    """A recurrent network with one layer that reads the image row by row and classifies its last state."""

    def __init__(self, cell: Callable[..., nn.RNNBase], width: int) -> None:
        super().__init__()
        self.rnn = cell(SIDE, width, batch_first=True)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to (batch, 10)."""
        return self.classifier(self.rnn(images.squeeze(1))[0][:, -1])  # type: ignore[no-any-return]


def dilated(width: int) -> nn.Module:
    """Return a convolutional network with dilation, without pooling before the head."""
    return nn.Sequential(block(1, width), block(width, width, dilation=2), block(width, width, dilation=2), head(width))


@dataclass(frozen=True, slots=True)
class Family:
    """A family: constructor by width, two widths, epochs, and the highest learning rate."""

    build: Callable[[int], nn.Module]
    widths: tuple[int, ...]
    epochs: int
    rate: float


def _of_the_example(family: str, *widths: int) -> Family:
    return Family(BUILDERS[family], widths, EPOCHS[family], LEARNING_RATES.get(family, LEARNING_RATE))


FAMILIES: dict[str, Family] = {
    "mlp": _of_the_example("mlp", 48, 96),
    "cnn": _of_the_example("cnn", 16, 24),
    "resnet": _of_the_example("resnet", 16, 24),
    "dscnn": _of_the_example("dscnn", 24, 48),
    "lstm": _of_the_example("lstm", 32, 64),
    "transformer": _of_the_example("transformer", 16, 24),
    "gru": Family(lambda width: RowReader(nn.GRU, width), (32, 64), 20, 1e-2),
    "rnn": Family(lambda width: RowReader(nn.RNN, width), (32, 64), 24, LEARNING_RATE),
    "dilated": Family(dilated, (16, 24), 9, LEARNING_RATE),
}

RECIPES = tuple(
    Recipe(name, width, seed) for name, family in FAMILIES.items() for width in family.widths for seed in SEEDS
)
