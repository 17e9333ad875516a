"""Initialisations are of their kind, are made once, and the table counts what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.training import starts
from benchmarks.training.start_classes import PAGE, Network, classes_table, measured_starts
from benchmarks.training.starts import KINDS, STARTS, make_all
from registry.types import Training, VectorCounts

if TYPE_CHECKING:
    from pathlib import Path


def test_every_kind_maps_images_to_classes() -> None:
    for kind in KINDS.values():
        assert kind.build()(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert sum(kind.tuning for kind in KINDS.values()) in (len(KINDS) // 2, len(KINDS) // 2 + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = {name: replace(KINDS[name], epochs=6) for name in ("mlp48", "mixer16")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "KINDS", few)
        patch.setattr(starts, "TRAINED_SEEDS", range(1))
        made = make_all(tmp_path_factory.mktemp("starts"), seeds=range(2))
        assert make_all(made.parent, pytest.fail, seeds=range(2)) == made
    return made


def test_starts_are_what_they_are_called(folder: Path) -> None:
    at = {start: load_file(folder / "mlp48" / f"{start}-s0.initial.safetensors") for start in list(STARTS)[:-1]}
    W = {start: state["3.weight"] for start, state in at.items()}
    torch.testing.assert_close(W["orthogonal"] @ W["orthogonal"].T, torch.eye(48), atol=1e-5, rtol=0)
    assert (W["sparse"] == 0).sum(0).tolist() == [24] * 48
    assert W["truncated"].abs().max() <= 0.2
    assert not (folder / "mlp48" / "zero-residual-s0.initial.safetensors").exists()
    residual = load_file(folder / "mixer16" / "zero-residual-s0.initial.safetensors")
    assert not residual["across.0.2.weight"].any()
    assert residual["across.0.0.weight"].any()
    assert len(list(folder.glob("*/*.trained.safetensors"))) == 2 * len(STARTS) - 1


def test_initialisations_are_not_trained_and_trained_ones_are_not_untrained(folder: Path) -> None:
    found = measured_starts(folder)
    assert {each.found.training_class for each in found if not each.trained} == {"untrained"}
    assert {each.found.training_class for each in found if each.trained} == {"trained"}


def test_the_table_counts_errors() -> None:
    def network(kind: str, class_: str, *, trained: bool, seed: int = 0) -> Network:
        found = Training(class_, "", 5.0 if trained else 1.0, (("rectangles", 4.0),), "", None, VectorCounts())
        return Network(kind, "torch", trained, found, 0.5, seed)

    some = [network(kind, "untrained", trained=False, seed=seed) for kind in KINDS for seed in range(10)]
    some += [network(kind, "trained", trained=True, seed=seed) for kind in KINDS for seed in range(10)]
    some += [
        network("mlp48", "trained", trained=False, seed=10),
        network("mlp48", "undetermined", trained=True, seed=10),
    ]
    text = "\n".join(classes_table(some))
    assert "| mlp48 | 10 | 0 | 1 | 10 | 1 | 0 | 100% |" in text
    others = sum(not kind.tuning for kind in KINDS.values())
    assert f"1 of {10 * others + 1} initialisations are called trained" in text
    assert f"0 of {10 * others + 1} trained networks are called untrained" in text
    assert "| all matrices together | " in text
    # On one set of pairs: z tells all, the band nothing, and of the class one pair in the wrong order.
    pairs = 10 * others + 1
    assert f"on one set, {pairs} trained networks and their own initialisations" in text
    assert "| all matrices together | 100% | 1.000 | 1.000-1.000 | 100.0% | 100.0% |" in text
    assert "| band of the whole network | 100% | 0.500 | 0.500-0.500 | 0.0% | 0.0% |" in text
    assert "| chain | 0% | 0.500 | 0.500-0.500 | 0.0% | 0.0% |" in text
    wrong = (0.5 * (pairs - 1) + 1) / pairs**2  # ties count half
    assert f"| **training class** | 100% | {1 - wrong:.3f} | " in text


def test_the_page_has_the_table() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("<!-- starts -->")[2].partition("<!-- /starts -->")[0]
    assert all(f"\n| {kind} |" in table for kind in KINDS)
    assert "| **training class** | 100% |" in table
