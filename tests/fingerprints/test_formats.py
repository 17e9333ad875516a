"""The same weights give the same bits, whatever they come in."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from registry.catalog.measuring import Measured, measure
from registry.sources import MATRIX_RULE, expand, open_module, open_ref, plan_weights
from registry.spectral.specs import SPECS, needs_spectra

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """A small convolutional network whose names, sorted, are not in its depth order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10), nn.ReLU()),
            nn.Linear(10, 4),
        )


def plain(module: nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def wrapped(module: nn.Module, path: Path) -> Path:
    """As DataParallel and a training loop leave it."""
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def safetensors(module: nn.Module, path: Path) -> Path:
    """In the reverse order of its names: the format keeps none."""
    state = dict(sorted(module.state_dict().items(), reverse=True))
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def npz(module: nn.Module, path: Path) -> Path:
    arrays = {name: value.numpy() for name, value in module.state_dict().items()}
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def flax(module: nn.Module, path: Path) -> Path:
    """The same numbers as Flax keeps them, the outputs last, under slashed names that say so."""
    arrays = {}
    for name, value in module.state_dict().items():
        layer, kind = name.split(".")
        axes = (2, 3, 1, 0) if value.ndim == 4 else (1, 0) if value.ndim == 2 else tuple(range(value.ndim))
        arrays[f"params/{layer}/{'kernel' if value.ndim > 1 else kind}"] = value.numpy().transpose(axes)
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def split(module: nn.Module, folder: Path, suffix: str, save: Callable[[Any, Path], None]) -> Path:
    """In three files and an index, names and files in no order; every second file of a parallel model's names."""
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    mapped = {name: f"model-{1 + number % 3:05}-of-00003{suffix}" for number, name in enumerate(state)}
    folder.mkdir()
    for file in set(mapped.values()):
        save({name: state[name] for name in mapped if mapped[name] == file}, folder / file)
    (folder / f"model{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    return folder


def safetensors_shards(module: nn.Module, path: Path) -> Path:
    return split(module, path, ".safetensors", save_file)


def torch_shards(module: nn.Module, path: Path) -> Path:
    return split(module, path, ".bin", torch.save)


def measured(opened: Any) -> Measured:
    with opened as checkpoint:
        return measure(checkpoint, plan_weights(checkpoint))


@pytest.mark.parametrize("write", [plain, wrapped, safetensors, npz, safetensors_shards, torch_shards])
def test_files_equal_the_live_module(
    write: Callable[[nn.Module, Path], Path], module: nn.Module, tmp_path: Path
) -> None:
    live = measured(open_module(module, "live"))
    assert [layer.name for layer in live.plan.layers] == [f"{at}.weight" for at in (0, 3, 6, 10, 12)]
    [ref] = expand(write(module, tmp_path / "weights"))
    read = measured(open_ref(ref))
    assert read.plan.content_hash == live.plan.content_hash
    assert read.plan.layers == live.plan.layers
    assert read.conjugacy == live.conjugacy
    for one, other in zip(live.fingerprints, read.fingerprints, strict=True):
        assert one.spec == other.spec
        assert one.vector.tobytes() == other.vector.tobytes()


def test_arrays_of_jax_are_brought_to_the_same_matrices(module: nn.Module, tmp_path: Path) -> None:
    live = measured(open_module(module, "live"))
    [ref] = expand(flax(module, tmp_path / "weights"))
    read = measured(open_ref(ref))
    assert [layer.shape for layer in read.plan.layers] == [layer.shape for layer in live.plan.layers]
    assert read.plan.topology == live.plan.topology
    assert read.plan.content_hash != live.plan.content_hash  # names are content
    for one, other in zip(live.fingerprints, read.fingerprints, strict=True):
        assert one.vector.tobytes() == other.vector.tobytes()


def test_one_other_weight_is_another_fingerprint(module: nn.Module) -> None:
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed.get_parameter("12.weight")[0, 0] += 1
    before, after = measured(open_module(module, "before")), measured(open_module(changed, "after"))
    assert after.plan.content_hash != before.plan.content_hash
    for one, other in zip(before.fingerprints, after.fingerprints, strict=True):
        assert (one.vector.tobytes() != other.vector.tobytes()) == needs_spectra(one.spec)


def test_the_specs_are_of_the_sources_matrix_rule() -> None:
    assert {spec.matrix_rule for spec in SPECS.values()} == {MATRIX_RULE}
