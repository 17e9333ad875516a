"""Training classes of stored models: by their weights, by their spectra until these are read, and judged again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from registry import Registry
from registry.catalog import storing

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from registry.storage import NewModel


def save(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def normalised(seed: int, *, moved: bool) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(40, 40), nn.LayerNorm(40), nn.Linear(40, 10))
    if moved:
        with torch.no_grad():
            model[1].weight += 0.1 * torch.randn(40)
    return model


def test_the_class_and_what_decided_it(registry_url: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = {
        "moved": normalised(1, moved=True),
        "start": normalised(2, moved=False),
        "small": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)),
        "large": nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 40)),
    }
    with Registry(registry_url) as reg:
        for name, model in made.items():
            reg.ingest(save(model, tmp_path / f"{name}.safetensors"), name=name)
        found = {name: reg.show(name).evidence for name in made}
        classes = {name: reg[name].training_class for name in made}
        assert reg.to_read_again() == ()
    assert classes == {"moved": "trained", "start": "untrained", "small": "undetermined", "large": "untrained"}
    assert {name: each and each.training_class for name, each in found.items()} == classes
    moved, start, small, _ = found.values()
    assert moved is not None
    assert moved.decided_by == "gains of normalisation"
    assert (moved.vectors.gains, moved.vectors.gains_moved, moved.vectors.biases) == (1, 1, 3)
    assert start is not None
    assert start.decided_by == "gains of normalisation that never moved"
    assert small is not None
    assert "no layer of order 32" in small.decided_by
    assert {"rectangles", "rows", "columns", "chain"} <= dict(small.evidence).keys()


def test_models_without_figures_keep_the_class_of_their_spectra_until_they_are_read_again(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(normalised(3, moved=True), tmp_path / "model.safetensors")
    new_model = storing._new_model

    def without(*given: object) -> NewModel:
        new = new_model(*given)  # type: ignore[arg-type]
        assert new.conjugacy is not None
        judged = replace(new.conjugacy, training_class="untrained")
        return replace(new, weight_figures=None, conjugacy=judged, conjugacy_rule=3)

    with Registry(registry_url) as reg:
        with monkeypatch.context() as patch:
            patch.setattr(storing, "_new_model", without)
            reg.ingest(file, name="model")
        assert [model.name for model in reg.to_read_again()] == ["model"]
        assert reg.show("model").evidence is None
        assert reg.outdated() == 1
        reg.refingerprint()
        assert reg.outdated() == 0
        assert reg["model"].training_class == "untrained"  # its spectra tell no more
        assert [model.name for model in reg.to_read_again()] == ["model"]
        assert reg.ingest(file, name="model").message == "already stored; missing values added"
        assert reg.to_read_again() == ()
        assert reg["model"].training_class == "trained"
        assert reg.ingest(file, name="model").message == "already stored; nothing added"


def test_stored_figures_judge_again(registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(normalised(4, moved=True), tmp_path / "model.safetensors")
    new_model = storing._new_model

    def older(*given: object) -> NewModel:
        new = new_model(*given)  # type: ignore[arg-type]
        assert new.conjugacy is not None
        return replace(new, conjugacy=replace(new.conjugacy, training_class="untrained"), conjugacy_rule=3)

    with Registry(registry_url) as reg:
        with monkeypatch.context() as patch:
            patch.setattr(storing, "_new_model", older)
            reg.ingest(file, name="model")
        assert reg["model"].training_class == "untrained"
        reg.refingerprint()
        assert reg["model"].training_class == "trained"
