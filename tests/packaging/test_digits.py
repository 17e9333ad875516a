"""The example trains what it says: right on held-out digits, the same by the same seed, in files that can be read."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", ROOT / "examples" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_recipes_offer_families_sizes_and_seeds(digits: ModuleType) -> None:
    recipes = digits.RECIPES
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    families = {recipe.family: {r.width for r in recipes if r.family == recipe.family} for recipe in recipes}
    assert len(families) >= 5
    assert min(len(widths) for widths in families.values()) >= 2
    assert set(families) == set(digits.BUILDERS) == set(digits.EPOCHS)
    assert {recipe.seed for recipe in recipes} == {0, 1}


@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet", "dscnn", "lstm", "transformer"])
def test_every_network_maps_images_to_classes_and_larger_widths_are_larger(digits: ModuleType, family: str) -> None:
    build = digits.BUILDERS[family]
    widths = sorted({recipe.width for recipe in digits.RECIPES if recipe.family == family})
    sizes = [sum(p.numel() for p in build(width).parameters()) for width in widths]
    assert sizes == sorted(set(sizes))
    assert build(widths[0])(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_training_is_right_repeatable_and_written_down(digits: ModuleType, tmp_path: Path) -> None:
    recipes = [digits.Recipe("mlp", 48), digits.Recipe("cnn", 12), digits.Recipe("mlp", 48, 1)]
    before = torch.get_rng_state()
    said: list[str] = []
    manifest = digits.train_all(tmp_path / "one", said.append, recipes)
    assert torch.equal(before, torch.get_rng_state())
    assert [line.split()[0] for line in said] == ["mlp48-s0", "cnn12-s0", "mlp48-s1"]

    records = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    fields = "path name family architecture task dataset licence seed training metrics"
    assert {" ".join(entry) for entry in records} == {fields}
    # A network that guesses is right on 10 %; both families reach 96 % and more with any of the seeds tried.
    assert all(95.0 <= entry["metrics"][0]["value"] <= 100.0 for entry in records)

    mlp = torch.load(manifest.parent / records[0]["path"], weights_only=True)
    assert mlp["1.weight"].shape == (48, 64)
    assert load_file(manifest.parent / records[1]["path"])["0.0.weight"].shape == (12, 1, 3, 3)

    again = digits.train_all(tmp_path / "two", None, recipes[:1])
    repeated = torch.load(again.parent / records[0]["path"], weights_only=True)
    assert all(torch.equal(mlp[name], repeated[name]) for name in mlp)
    other = torch.load(manifest.parent / records[2]["path"], weights_only=True)
    assert not torch.equal(mlp["1.weight"], other["1.weight"])
