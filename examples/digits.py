"""Train small networks of seven families on scikit-learn's handwritten digits, offline, in about half a minute.

Usage: ``python examples/digits.py FOLDER``. The folder then has one file per network (safetensors or ``.pt``) and a
``manifest.jsonl`` for ``archreg ingest --manifest``. There are several widths per family and several seeds per width,
so that equivalent and smaller models exist.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLASSES = 10
SIDE = 8  # pixels
BATCH = 96


def block(inputs: int, outputs: int, **options: Any) -> nn.Sequential:
    """Return a 3 x 3 convolution, batch normalisation and a rectifier."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def head(width: int) -> nn.Sequential:
    """Return global average pooling and the classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def mlp(width: int) -> nn.Module:
    """Return a perceptron of two hidden layers."""
    hidden = (nn.Linear(SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, CLASSES))


def cnn(width: int) -> nn.Module:
    """Return a plain convolutional network: three convolutions, pooling after the first."""
    return nn.Sequential(
        block(1, width), nn.MaxPool2d(2), block(width, 2 * width), block(2 * width, 2 * width), head(2 * width)
    )


class Residual(nn.Module):
    """Two convolutions with an identity connection around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(block(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, width, height, width of the image) to the same shape."""
        return functional.relu(images + self.norm(self.body(images)))


def resnet(width: int) -> nn.Module:
    """Return a residual network: a stem and two residual blocks."""
    return nn.Sequential(block(1, width), nn.MaxPool2d(2), Residual(width), Residual(width), head(width))


def dscnn(width: int) -> nn.Module:
    """Return a depthwise-separable network: a stem, then depthwise and pointwise convolutions in turn."""
    layers: list[nn.Module] = [block(1, width), nn.MaxPool2d(2)]
    for _ in range(3):
        pointwise = nn.Conv2d(width, width, 1, bias=False)
        layers += [block(width, width, groups=width), pointwise, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, head(width))


class Recurrent(nn.Module):
    """A recurrent network that reads the image row by row and classifies its last state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(SIDE, width, batch_first=True)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to (batch, 10)."""
        return self.classifier(self.rnn(images.squeeze(1))[0][:, -1])  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A transformer encoder over the eight rows, averaged over them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(SIDE, width)
        self.position = nn.Parameter(0.1 * torch.randn(SIDE, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to (batch, 10)."""
        rows = self.embedding(images.squeeze(1)) + self.position
        return self.classifier(self.encoder(rows).mean(1))  # type: ignore[no-any-return]


BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "dscnn": dscnn,
    "lstm": Recurrent,
    "transformer": Transformer,
}
EPOCHS = {"mlp": 30, "cnn": 9, "resnet": 9, "dscnn": 9, "lstm": 24, "transformer": 16}
LEARNING_RATES = {"lstm": 1e-2, "transformer": 1e-2}  # learns more slowly than the others
LEARNING_RATE = 5e-3
PICKLED = ("lstm", "mlp")  # families saved as .pt, the others as safetensors


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network to train: family, width, and the seed of its initialisation and batch order."""

    family: str
    width: int
    seed: int = 0

    @property
    def architecture(self) -> str:
        """Family and width, as in ``mlp64``."""
        return f"{self.family}{self.width}"

    @property
    def name(self) -> str:
        """Architecture and seed, as in ``mlp64-s0``."""
        return f"{self.architecture}-s{self.seed}"


RECIPES = (
    *(Recipe("mlp", width) for width in (48, 64, 96)),
    *(Recipe("cnn", width, seed) for width in (16, 24) for seed in (0, 1)),
    *(Recipe("resnet", width) for width in (16, 24, 32)),
    *(Recipe("dscnn", width) for width in (24, 48)),
    *(Recipe("lstm", width) for width in (32, 64)),
    *(Recipe("transformer", width) for width in (16, 24)),
)


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (n, 1, 8, 8) float32 in [0, 1] and labels (n,) int64: 1,347 for training, 450 held out."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls) -> Digits:
        """Read scikit-learn's digits data set; the split is always the same."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.tensor(pixels / 16.0, dtype=torch.float32).reshape(-1, 1, SIDE, SIDE)
        train, test = train_test_split(torch.arange(len(labels)), test_size=450, stratify=labels, random_state=0)
        targets = torch.tensor(labels)
        return cls(images[train], targets[train], images[test], targets[test])


def train(recipe: Recipe, data: Digits) -> tuple[nn.Module, float]:
    """Train one network and return it with its accuracy on the held-out images, in per cent.

    The global random state is restored. The same recipe gives the same weights on the same machine.
    """
    epochs, rate = EPOCHS[recipe.family], LEARNING_RATES.get(recipe.family, LEARNING_RATE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BUILDERS[recipe.family](recipe.width)
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
        steps = epochs * -(-len(data.train_labels) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(data.train_labels)), BATCH):
                optimiser.zero_grad()
                loss = functional.cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
    model.eval()
    with torch.no_grad():
        right = model(data.test_images).argmax(1) == data.test_labels
    return model, 100.0 * right.float().mean().item()


def save(model: nn.Module, recipe: Recipe, folder: Path) -> Path:
    """Write the weights below ``folder`` in the family's format and return the file."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path = folder / f"{recipe.name}.{'pt' if recipe.family in PICKLED else 'safetensors'}"
    if recipe.family in PICKLED:
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def record(recipe: Recipe, path: Path, accuracy: float) -> dict[str, Any]:
    """Return the network's line of the manifest."""
    rate = LEARNING_RATES.get(recipe.family, LEARNING_RATE)
    return {
        "path": path.name,
        "name": recipe.name,
        "family": recipe.family,
        "architecture": recipe.architecture,
        "task": "image classification",
        "dataset": "digits",
        "licence": "Apache-2.0",
        "seed": recipe.seed,
        "training": f"AdamW, one cycle to {rate:g}, {EPOCHS[recipe.family]} epochs, batches of {BATCH}",
        "metrics": [{"name": "top1", "dataset": "digits", "split": "test", "value": round(accuracy, 2)}],
    }


def train_all(folder: Path, progress: Callable[[str], None] | None = None, recipes: Sequence[Recipe] = RECIPES) -> Path:
    """Train every recipe into ``folder`` and return the manifest.

    Parameters
    ----------
    folder
        Created if missing; files of the same names are replaced.
    progress
        Called with a line of text after each network.
    recipes
        The networks to train.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = Digits.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are too small for several threads, and one thread gives reproducible sums
    lines: list[str] = []
    try:
        for recipe in recipes:
            start = time.perf_counter()
            model, accuracy = train(recipe, data)
            lines.append(json.dumps(record(recipe, save(model, recipe, folder), accuracy)))
            if progress:
                size = sum(parameter.numel() for parameter in model.parameters())
                seconds = time.perf_counter() - start
                progress(f"{recipe.name:16}{size:8,} parameters {accuracy:6.2f} % right {seconds:5.1f} s")
    finally:
        torch.set_num_threads(threads)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/digits.py FOLDER")
    print(train_all(Path(sys.argv[1]), progress=print))
