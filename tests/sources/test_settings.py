"""Checkpoints of trainers, whose settings need more than ``weights_only``: read without them."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import WeightsPlan

STATE = {"net.0.weight": torch.eye(3) * 2, "net.0.bias": torch.ones(3)}


def planned(path: Path) -> WeightsPlan:
    with open_ref(expand(path)[0]) as checkpoint:
        return plan_weights(checkpoint)


def lightning(settings: Any) -> dict[str, Any]:
    """What Lightning's trainer saves."""
    return {
        "epoch": 3, "global_step": 90, "pytorch-lightning_version": "2.4.0", "state_dict": STATE, "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.eye(3)}}, "param_groups": [{"params": [0]}]}],
        "lr_schedulers": [], "hparams_name": "config", "hyper_parameters": settings,
    }  # fmt: skip


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of classes that whoever reads the checkpoint does not have."""
    made = types.ModuleType("omegaconf.dictconfig")
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", made)
    return made


def adopted(module: types.ModuleType, cls: type, name: str) -> type:
    cls.__module__, cls.__qualname__, cls.__name__ = module.__name__, name, name
    setattr(module, name, cls)
    return cls


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.1, "args": argparse.Namespace(depth=3, out=pathlib.Path("out"))},
        {"space": types.SimpleNamespace(a=[1, {"b": (2,)}]), "counts": collections.Counter("aab")},
        {"best": np.float64(0.93), "seen": np.int64(7), "table": np.arange(5.0)},
        {"of": collections.defaultdict(dict), "kind": dict, "set": {1, 2}},
    ],
    ids=["namespace", "simple", "numpy", "containers"],
)
def test_well_known_settings_are_set_aside(settings: Any, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "plain.pt")
    torch.save(lightning(settings), tmp_path / "epoch=3.ckpt")
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1), **settings}, tmp_path / "train.pth")
    expected = planned(tmp_path / "plain.pt")
    assert planned(tmp_path / "epoch=3.ckpt") == planned(tmp_path / "train.pth") == expected
    with pytest.raises(pickle.UnpicklingError):  # the control: by itself weights_only refuses it
        torch.load(tmp_path / "train.pth", weights_only=True)


def test_nothing_of_the_settings_is_imported_or_called(module: types.ModuleType, tmp_path: Path) -> None:
    made: list[str] = []

    class Config:
        def __init__(self) -> None:
            self.lr = 0.1

        def __setstate__(self, state: object) -> None:
            made.append("set")

    torch.save(lightning(adopted(module, Config, "DictConfig")()), tmp_path / "x.ckpt")
    assert planned(tmp_path / "x.ckpt").layers[0].name == "net.0.weight"
    assert made == []
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert made == ["set"]  # the control: unpickled, it is


class Mine:
    """A class of the user's own."""


@pytest.mark.parametrize("settings", [Mine(), {"lr": 0.1, "mine": Mine()}, {"args": argparse.Namespace(m=Mine())}])
def test_other_classes_are_set_aside(settings: Any, tmp_path: Path) -> None:
    torch.save(lightning(settings), tmp_path / "x.ckpt")
    torch.save(STATE, tmp_path / "plain.pt")
    assert planned(tmp_path / "x.ckpt") == planned(tmp_path / "plain.pt")


@pytest.mark.parametrize("name", ["weight", "args"])
def test_numpy_arrays_among_the_weights_are_read(name: str, tmp_path: Path) -> None:
    table = np.eye(4) * 3
    torch.save({"state_dict": {**STATE, name: table}}, tmp_path / "x.pt")
    torch.save({"state_dict": {**STATE, name: torch.from_numpy(table)}}, tmp_path / "y.pt")
    assert planned(tmp_path / "x.pt") == planned(tmp_path / "y.pt")


def test_settings_without_weights_are_no_weights(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no tensors, only: args, epoch"):
        planned(tmp_path / "x.pt")


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save(lightning({"args": argparse.Namespace(lr=1)}), tmp_path / "x.ckpt")
    planned(tmp_path / "x.ckpt")
    assert set(torch.serialization.get_safe_globals()) == before
