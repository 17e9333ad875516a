"""Small networks with layers of order 64, trained here on scikit-learn's digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from benchmarks.training.families import FAMILIES
from benchmarks.training.networks import Course, fit
from examples.digits import Digits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["trained_networks"]

WIDTHS = {"mlp": 96, "cnn": 64, "lstm": 64, "transformer": 64}
EPOCHS = 8


def trained_networks(folder: Path) -> list[Path]:
    """Train one network of each kind on one thread, some seconds each; return their files."""
    data = Digits.load()
    paths = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed, (name, width) in enumerate(WIDTHS.items()):
            torch.manual_seed(seed)
            model = FAMILIES[name].build(width)
            fit(model, data.train_images, data.train_labels, Course(EPOCHS, FAMILIES[name].rate, seed))
            paths.append(folder / f"{name}.safetensors")
            save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()}, paths[-1])
    finally:
        torch.set_num_threads(threads)
    return paths
