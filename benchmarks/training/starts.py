"""Small networks of many kinds and initialisations, and their trained forms, for the training class.

Each kind is built with each start that its layers allow. The initial weights are kept for several seeds; some of them
are trained on scikit-learn's digits. A file is named ``KIND/START-sSEED.initial.safetensors`` or ``.trained``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.training.families import RowReader
from benchmarks.training.networks import Course, fit, one_thread, stamp
from examples.digits import CLASSES, SIDE, Digits, Transformer, cnn, head, mlp, resnet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["KINDS", "STARTS", "TRAINED_SEEDS", "Kind", "Start", "make_all"]

SEEDS = range(6)
"""Seeds of the initialisations of each kind and start."""
TRAINED_SEEDS = range(4)
"""Those of them that are trained."""

_SOURCES = (
    Path(__file__),
    Path(__file__).with_name("families.py"),
    Path(__file__).with_name("networks.py"),
    Path(__file__).parents[2] / "examples" / "digits.py",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of network: its constructor, epochs and highest learning rate.

    ``tuning``: of the half of the kinds by which thresholds were chosen; the others report.
    """

    build: Callable[[], nn.Module]
    epochs: int
    rate: float
    tuning: bool


def depthwise(width: int, *, norm: bool = True) -> nn.Module:
    """Return a network of depthwise and pointwise convolutions in turn, with or without batch normalisation."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    for _ in range(3 if norm else 2):  # without normalisation, more of them do not learn
        layers.append(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=not norm))
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width, width, 1, bias=not norm))
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, head(width))


def plain(width: int) -> nn.Module:
    """Return three convolutions without normalisation."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, width), (width, 2 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    layers.insert(2, nn.MaxPool2d(2))
    return nn.Sequential(*layers, head(2 * width))


def grouped(width: int) -> nn.Module:
    """Return convolutions with group normalisation, and one with groups."""
    layers: list[nn.Module] = []
    for inputs, outputs, groups in ((1, width, 1), (width, width, 4), (width, 2 * width, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups), nn.GroupNorm(4, outputs), nn.ReLU()]
    layers.insert(3, nn.MaxPool2d(2))
    return nn.Sequential(*layers, head(2 * width))


def adversarial(width: int) -> nn.Module:
    """Return a discriminator of strided convolutions, whose gains start at normal(1, 0.02), as DCGAN's do."""
    made = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(8 * width, CLASSES),
    )  # fmt: skip
    nn.init.normal_(made[3].weight, 1.0, 0.02)  # type: ignore[arg-type]
    return made


class Mixer(nn.Module):
    """A mixer over the eight rows, with layer normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(SIDE, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(SIDE, 16), nn.GELU(), nn.Linear(16, SIDE)) for _ in range(2)
        )
        self.within = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(2)
        )
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to (batch, 10)."""
        rows = self.embedding(images.squeeze(1))
        for at in range(2):
            rows = rows + self.across[at](self.norms[2 * at](rows).transpose(1, 2)).transpose(1, 2)
            rows = rows + self.within[at](self.norms[2 * at + 1](rows))
        return self.classifier(rows.mean(1))  # type: ignore[no-any-return]


class Words(nn.Module):
    """A table of embeddings, with a row of padding, over the grey levels of the pixels, and a perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(18, width, padding_idx=17)
        self.places = nn.Linear(SIDE * SIDE, 16)
        self.classifier = nn.Linear(16 * width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) to (batch, 10)."""
        words = self.table((images * 16).round().long().flatten(1))
        return self.classifier(torch.relu(self.places(words.transpose(1, 2))).flatten(1))  # type: ignore[no-any-return]


KINDS: dict[str, Kind] = {
    "mlp16": Kind(lambda: mlp(16), 30, 5e-3, True),
    "mlp48": Kind(lambda: mlp(48), 30, 5e-3, False),
    "linear": Kind(lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES)), 30, 5e-3, True),
    "plain8": Kind(lambda: plain(8), 12, 5e-3, False),
    "cnn8": Kind(lambda: cnn(8), 9, 5e-3, True),
    "resnet8": Kind(lambda: resnet(8), 9, 5e-3, False),
    "depthwise8": Kind(lambda: depthwise(8), 9, 5e-3, False),
    "depthwise16": Kind(lambda: depthwise(16), 9, 5e-3, True),
    "depthwise8-bare": Kind(lambda: depthwise(8, norm=False), 24, 5e-3, False),
    "depthwise16-bare": Kind(lambda: depthwise(16, norm=False), 24, 5e-3, True),
    "groupnorm8": Kind(lambda: grouped(8), 9, 5e-3, True),
    "dcgan8": Kind(lambda: adversarial(8), 12, 5e-3, False),
    "lstm8": Kind(lambda: RowReader(nn.LSTM, 8), 24, 1e-2, False),
    "lstm24": Kind(lambda: RowReader(nn.LSTM, 24), 24, 1e-2, True),
    "lstm36": Kind(lambda: RowReader(nn.LSTM, 36), 24, 1e-2, True),
    "gru8": Kind(lambda: RowReader(nn.GRU, 8), 20, 1e-2, True),
    "rnn16": Kind(lambda: RowReader(nn.RNN, 16), 24, 5e-3, False),
    "rnn40": Kind(lambda: RowReader(nn.RNN, 40), 24, 5e-3, False),
    "transformer16": Kind(lambda: Transformer(16), 12, 1e-2, False),
    "mixer16": Kind(lambda: Mixer(16), 12, 5e-3, True),
    "words8": Kind(lambda: Words(8), 12, 5e-3, False),
}
"""The kinds of networks. Every second one of a design chooses, the other reports."""


@dataclass(frozen=True, slots=True)
class Start:
    """How matrices start; ``fill`` is given each parameter of two dimensions or more, None leaves torch's own."""

    fill: Callable[[Tensor], object] | None


def _orthogonal(weight: Tensor) -> None:
    nn.init.orthogonal_(weight)


def _sparse(weight: Tensor) -> None:
    flat = torch.empty(len(weight), weight[0].numel())
    nn.init.sparse_(flat, 0.5, 0.3)
    weight.data.copy_(flat.reshape(weight.shape))


STARTS: dict[str, Start] = {
    "torch": Start(None),
    "uniform": Start(nn.init.xavier_uniform_),
    "normal": Start(nn.init.kaiming_normal_),
    "truncated": Start(lambda weight: nn.init.trunc_normal_(weight, std=0.1, a=-0.2, b=0.2)),
    "orthogonal": Start(_orthogonal),
    "sparse": Start(_sparse),
    "zero-residual": Start(None),
}
"""The initialisations. ``zero-residual`` is torch's own, with gains and the last layer of every branch zero."""


def make_all(folder: Path, progress: Callable[[str], None] | None = None, seeds: Sequence[int] = SEEDS) -> Path:
    """Make what is missing and return the folder that has a folder for each kind."""
    below = folder / f"starts-{stamp(_SOURCES)}"
    data = Digits.load()
    with one_thread():
        for name, kind in KINDS.items():
            target = below / name
            if target.is_dir():
                continue
            if progress:
                progress(name)
            part = target.with_name(f".{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for start in STARTS:
                for seed in seeds:
                    _make(kind, start, seed, data, part)
            part.rename(target)
    return below


def _make(kind: Kind, start: str, seed: int, data: Digits, folder: Path) -> None:
    """Write one initialisation and, for some seeds, its trained form."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.build()
        if start == "zero-residual":
            if not _zero_last(model):
                return
        elif (fill := STARTS[start].fill) is not None:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        fill(parameter)
        save_file(_copy(model), folder / f"{start}-s{seed}.initial.safetensors")
        if seed not in TRAINED_SEEDS:
            return
        fit(model, data.train_images, data.train_labels, Course(kind.epochs, kind.rate, seed))
        with torch.no_grad():
            right = (model(data.test_images).argmax(1) == data.test_labels).float().mean().item()
        save_file(
            _copy(model), folder / f"{start}-s{seed}.trained.safetensors", metadata={"accuracy": f"{100 * right:.2f}"}
        )


def _zero_last(model: nn.Module) -> bool:
    """Set what ends a residual branch to zero: gains where there are some, else the matrix; whether there is any."""
    found = False
    for name, module in model.named_modules():
        last: Tensor | None = None
        if type(module).__name__ == "Residual":
            last = module.norm.weight  # type: ignore[union-attr, assignment]
        elif type(module).__name__ == "TransformerEncoderLayer":
            last = module.linear2.weight  # type: ignore[union-attr, assignment]
        elif name.startswith(("across.", "within.")) and isinstance(module, nn.Sequential):
            last = module[2].weight  # type: ignore[assignment]
        if last is not None:
            nn.init.zeros_(last)
            found = True
    return found


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
