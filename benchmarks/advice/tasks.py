"""Four data sets that are made here or come with scikit-learn: two of images, one of signals, one of text.

Each has a part for training, which recipes cut and disturb, and a part for the scores, which nothing else uses. All are
the same on every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["TASKS", "Task", "task_named"]

SCORED = 1_000
"""Samples of the part for the scores: the standard error of an accuracy of 80 % is 1.3 points."""

SIGNALS = 4_000
TEMPLATE, PADDING, SIGNAL = 12, (36, 60), 40
"""Points of a drawn digit, zeros behind it, and length of a signal, as in arXiv:2011.14439."""
DRAWN: NDArray[np.float64] = np.array(
    [
        [0, 2, 3, 3.5, 3.8, 4, 4, 3.8, 3.5, 3, 2, 0],
        [0, -1.5, -3, -1, 1, 3, 0.5, 0.5, 0.5, 0.5, 0.5, 0],
        [0, 2, 3, 3, 2, 0, -2, -3, -3.5, -3, -1, 0],
        [0, 2, 3, 2, 0.5, 0, 0.5, 2, 3, 2.5, 1.5, 0],
        [0, -1, -2, -3, -4, -4, 3, 3, 0, 0, 0, 0],
        [0, -3, -3, -3, -2.5, 0, 2, 3, 3, 2, -1, 0],
        [0, -2, -3, -3.5, -3.5, -3, 0, 1.5, 2, 1.5, -1, 0],
        [0, 3.5, 3.5, 3, 2, 1, 0, -1, -2, -3, -3.5, 0],
        [0, -2, -2.5, -1.5, 0, 1.5, 2.5, 1.5, 0, -1.5, -2.5, 0],
        [0, -2.5, -3, -1.5, 2.5, 2.5, 2, 1, 0, -1, -1.5, 0],
    ]
)
"""Ten digits as strokes of one dimension, drawn for this benchmark: scores are not those of the published data set."""

TEXTURES, TEXTURE_SIDE, ORIENTATIONS = 3_000, 12, 8
TEXTS, LENGTH, LETTERS, LANGUAGES, BRANCHES = 3_000, 32, 12, 8, 3


@dataclass(frozen=True, slots=True)
class Task:
    """A data set: inputs (n, channels, extents...) float32 and labels (n,) int64 for training and for the scores.

    Images have two extents, signals and texts one. ``patch``: values of one extent that recurrent networks and
    transformers read at once.
    """

    name: str
    classes: int
    inputs: Tensor
    labels: Tensor
    scored_inputs: Tensor
    scored_labels: Tensor
    patch: int = 1

    @property
    def image(self) -> bool:
        """Whether the inputs have two extents."""
        return self.inputs.ndim == 4

    @property
    def channels(self) -> int:
        """Channels of an input."""
        return self.inputs.shape[1]

    def rows(self, inputs: Tensor) -> Tensor:
        """The inputs as sequences (n, steps, numbers): rows of images, patches of signals, letters of texts."""
        if self.image:
            return inputs.flatten(1, 2)
        cut = inputs.reshape(len(inputs), self.channels, -1, self.patch)
        return cut.transpose(1, 2).flatten(2)

    @property
    def steps(self) -> tuple[int, int]:
        """Steps, and numbers a step, of an input as a sequence."""
        _, steps, numbers = self.rows(self.inputs[:1]).shape
        return steps, numbers


@cache
def task_named(name: str) -> Task:
    """The data set of that name. Raises ``KeyError`` for another."""
    return TASKS[name]()


def _task(name: str, inputs: NDArray[np.float32], labels: NDArray[np.int64], patch: int = 1) -> Task:
    train, scored = train_test_split(np.arange(len(labels)), test_size=SCORED, stratify=labels, random_state=0)
    values, targets = torch.from_numpy(inputs), torch.from_numpy(labels)
    return Task(name, int(labels.max()) + 1, values[train], targets[train], values[scored], targets[scored], patch)


def digits() -> Task:
    """Scikit-learn's handwritten digits: images of 8 x 8."""
    pixels, labels = load_digits(return_X_y=True)
    return _task("digits", (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64))


def signals() -> Task:
    """Drawn digits in the manner of MNIST-1D (Greydanus and Kobak, arXiv:2011.14439, section 2).

    Each template is padded, dilated, scaled, shifted in a circle, laid over smooth noise where it is zero, sheared, and
    sampled at 40 points, with the paper's settings. The templates and the random numbers are our own.
    """
    random = np.random.default_rng(20_111)
    labels = np.repeat(np.arange(10), SIGNALS // 10)
    drawn = DRAWN - DRAWN[:, :1]
    drawn = drawn / (6.0 * drawn.std(axis=1, keepdims=True))
    longest = TEMPLATE + PADDING[1]
    window = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    window /= window.sum()
    rows = []
    for label in labels:
        padded = np.concatenate([drawn[label] + 1e-8, np.zeros(random.integers(PADDING[0], PADDING[1] + 1))])
        row = _resampled(padded, longest) * (1.0 + 0.4 * (random.random() - 0.5))
        row = np.roll(row, random.integers(48))
        smooth = np.convolve(0.25 * random.standard_normal(longest), window, mode="same")
        row = np.where(row == 0.0, smooth, row) + 0.02 * random.standard_normal(longest)
        row -= 0.75 * (random.random() - 0.5) * np.linspace(-0.5, 0.5, longest)
        rows.append(_resampled(row, SIGNAL))
    values = np.array(rows)
    values = (values - values.mean()) / values.std()
    return _task("signals", values.astype(np.float32)[:, None], labels.astype(np.int64), patch=4)


def _resampled(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.interp(np.linspace(0.0, 1.0, count), np.linspace(0.0, 1.0, len(values)), values)


def textures() -> Task:
    """Gratings of 12 x 12 pixels in noise, of random frequency, phase and contrast; the class is the orientation."""
    random = np.random.default_rng(20_112)
    labels = np.arange(TEXTURES) % ORIENTATIONS
    angle = np.pi * (labels + random.uniform(-0.4, 0.4, TEXTURES)) / ORIENTATIONS
    wave = 2.0 * np.pi * random.uniform(0.15, 0.35, TEXTURES)  # radians a pixel
    phase, contrast = random.uniform(0.0, 2.0 * np.pi, TEXTURES), random.uniform(0.5, 1.5, TEXTURES)
    y, x = np.mgrid[:TEXTURE_SIDE, :TEXTURE_SIDE]
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    values = contrast[:, None, None] * np.sin(wave[:, None, None] * along + phase[:, None, None])
    values += 0.8 * random.standard_normal(values.shape)
    return _task("textures", values.astype(np.float32)[:, None], labels.astype(np.int64))


def texts() -> Task:
    """Words of 32 letters of eight languages, each a Markov chain; three branches share half of their rules."""
    random = np.random.default_rng(20_113)
    branches = random.dirichlet(np.full(LETTERS, 0.5), (BRANCHES, LETTERS))
    own = random.dirichlet(np.full(LETTERS, 0.5), (LANGUAGES, LETTERS))
    chains = 0.5 * branches[np.arange(LANGUAGES) % BRANCHES] + 0.5 * own
    # A quarter of the letters are drawn from no rule.
    cumulative = (0.75 * chains + 0.25 / LETTERS).cumsum(axis=2)
    labels = np.arange(TEXTS) % LANGUAGES
    letters = np.empty((TEXTS, LENGTH), np.int64)
    letters[:, 0] = random.integers(LETTERS, size=TEXTS)
    for at in range(1, LENGTH):
        rule = cumulative[labels, letters[:, at - 1]]
        letters[:, at] = np.minimum((random.random((TEXTS, 1)) > rule).sum(axis=1), LETTERS - 1)
    return _task("texts", np.eye(LETTERS, dtype=np.float32)[letters].transpose(0, 2, 1).copy(), labels.astype(np.int64))


TASKS = {"digits": digits, "signals": signals, "textures": textures, "texts": texts}
