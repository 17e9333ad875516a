"""Gains, statistics and biases are counted by their names, and have moved where they are not constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from registry.sources import expand, open_headers, open_ref, plan_headers, plan_weights
from registry.types import VectorCounts

if TYPE_CHECKING:
    from pathlib import Path


def counts(state: dict[str, torch.Tensor], folder: Path) -> VectorCounts:
    save_file(state, folder / "model.safetensors")
    with open_ref(expand(folder / "model.safetensors")[0]) as checkpoint:
        return plan_weights(checkpoint).vectors


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Flatten(), nn.Linear(8, 4))


def test_a_new_network_has_moved_nothing_but_its_biases(tmp_path: Path) -> None:
    # Biases: of the convolution and the head, which start at random, and of the normalisation.
    assert counts(network().state_dict(), tmp_path) == VectorCounts(2, 0, 2, 0, 3, 2)


def test_data_move_statistics_and_training_moves_gains(tmp_path: Path) -> None:
    model = network()
    model[:2](torch.randn(4, 3, 8, 8))
    assert counts(model.state_dict(), tmp_path) == VectorCounts(2, 0, 2, 2, 3, 2)
    with torch.no_grad():
        model[1].weight[0] += 0.01
    assert counts(model.state_dict(), tmp_path) == VectorCounts(2, 1, 2, 2, 3, 2)


def test_other_vectors_and_single_numbers_do_not_count(tmp_path: Path) -> None:
    state = {
        "layer.weight": torch.randn(4, 4),
        "layer.weight_g": torch.rand(4, 1),
        "attention.a": torch.rand(4),
        "log_std": torch.rand(4),
        "scale": torch.rand(1),
        "norm.scale": torch.rand(4),
        "bn_gamma": torch.ones(4),
        "bn_moving_var": torch.ones(4),
        "bn.moving_var": torch.ones(4),
        "steps.weight": torch.arange(4),
    }
    assert counts(state, tmp_path) == VectorCounts(2, 1, 1, 0)


def test_of_a_header_nothing_is_known(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "model.safetensors")
    with open_headers(expand(tmp_path / "model.safetensors")[0]) as checkpoint:
        assert plan_headers(checkpoint).vectors == VectorCounts()
