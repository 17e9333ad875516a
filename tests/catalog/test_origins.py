"""Where models are from, which files of a folder are none, and what was typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from registry import Registry
from registry.sources import expand
from registry.types import LeftOut, Plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.catalog.conftest import Filled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trainer's folder: wrapped weights, training state, logs, a configuration."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: {"fc.weight": torch.randn(12, 8, generator=generator)} for name in ("model", "ema")}
    (tmp_path / "run").mkdir()
    torch.save({**weights, "epoch": 3}, tmp_path / "run" / "last.pt")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, tmp_path / "run" / name)
    for name in ("a.txt", "b.TXT", "run.log", "README", ".hidden", "last.pt.part", "b.bin.incomplete"):
        (tmp_path / "run" / name).write_text("x")
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({"architectures": ["TinyForTests"], "model_type": "tiny", "num_attention_heads": 4})
    )
    return tmp_path / "run"


def test_files_left_out_are_counted_by_reason(folder: Path) -> None:
    expected = (
        LeftOut("training state", 3, ("optimizer.pt", "rng_state.pth", "scheduler.pt")),
        LeftOut("no suffix", 2, (".hidden", "README")),
        LeftOut("unfinished download", 2, ("b.bin.incomplete", "last.pt.part")),
        LeftOut("unknown suffix .txt", 2, ("a.txt", "b.TXT")),
        LeftOut("unknown suffix .log", 1, ("run.log",)),
    )
    for reference in (folder, f"{folder.parent}/*", f"{folder}/**"):
        found = expand(reference)
        assert isinstance(found, Plan)
        assert len(found) == 1
    assert found.left_out == expand(folder).left_out == expected
    with Registry(folder / "r.db") as reg:
        assert reg.plan([folder]).left_out == expected
        twice = reg.plan([folder, str(folder)])
        assert (len(twice), twice.left_out[0].files) == (2, 6)
        assert reg.plan([folder / "last.pt"]).left_out == ()


def test_very_many_files_cost_little_and_few_reasons_are_told_apart(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(4, 4)}, tmp_path / "a.pt")
    for number in range(2_000):
        (tmp_path / f"{number}.s{number % 100}").touch()
    left_out = expand(tmp_path).left_out  # type: ignore[attr-defined]
    assert sum(each.files for each in left_out) == 2_000
    assert len(left_out) == 41
    assert left_out[0].reason == "other suffixes"
    assert all(len(each.names) == 3 for each in left_out)


def test_what_is_stored_of_the_origin(registry_url: str, folder: Path) -> None:
    with Registry(registry_url) as reg:
        done = reg.ingest(folder / "last.pt")
        assert (done.status, done.notes) == ("added", ("entry ema was read; --key chooses another: model",))
        model = reg["last"]
        assert (model.format, model.location, model.entry) == ("torch", str(folder / "last.pt"), "ema")
        assert (model.precision, model.unread, model.nonfinite) == ("float32", 0, 0)
        assert (model.architecture, model.family) == ("TinyForTests", "tiny")
        assert [each.name for each in reg.models(tags=[("heads", "4")])] == ["last"]
        reg.ingest(folder / "last.pt", key="model", name="plain")
        assert reg["plain"].entry == "model"
        moved = folder / "moved.pt"
        (folder / "last.pt").rename(moved)
        reg.ingest(moved, name="last")
        assert reg["last"].location == str(moved)
        reg.ingest(moved, name="other name")
        module = torch.nn.Linear(8, 12)
        reg.ingest(module, name="module")
        assert (reg["module"].format, reg["module"].location) == ("module", "")


def test_a_note_of_the_reader_is_kept_and_told(registry_url: str, folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with Registry(registry_url) as reg:
        [note] = reg.ingest(folder / "last.pt", key="model").notes
        assert note.startswith("config.json is ignored: it is no valid JSON")
        assert reg.show("last").notes == (note,)


def test_a_comparison_gives_both_names(filled: Filled) -> None:
    reg = filled.reg
    file = filled.files / "wide.safetensors"
    found = reg.compare(file, "twin", tolerance=1.0)
    assert (found.a.name, found.asked_a, found.b.name, found.asked_b) == ("wide", str(file), "twin", "")
    prefix = f"sha256:{reg['twin'].content_hash[:10]}"
    reg.ingest(filled.files / "twin.safetensors", name="second")
    assert reg.compare("second", prefix, tolerance=1.0).asked_a == "second"
    assert reg.compare("second", prefix, tolerance=1.0).asked_b == prefix
    assert reg.compare("second", torch.nn.Linear(8, 9), tolerance=1.0).asked_b == ""
