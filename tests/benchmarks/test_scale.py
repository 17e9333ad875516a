"""The benchmark of scale, on a few models: every figure is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.scale import filling, lookups, run
from benchmarks.speed import harness
from registry import Registry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry of 250 models made of four real ones."""
    monkeypatch.setattr(lookups, "ROUNDS", 4)
    with Registry("published:") as reg:
        reg.export(tmp_path / "real.db", names=[model.name for model in reg.models(max_bytes=200_000)[:4]])
    filling.fill(database_url, filling.real_models(str(tmp_path / "real.db")), 250)
    return database_url


def test_all_questions_are_timed(small: str) -> None:
    found = {"exact": lookups.exact(small)}
    assert all(len(found["exact"][distance]) == 4 for distance in ("l1", "l2", "equivalent", "filtered"))
    if small.startswith("postgresql"):
        indexed = lookups.indexed(small)
        assert indexed["indexed"]
        assert indexed["added"]
        assert indexed["recall l1"] >= 0.95  # of so few, all are within the list of candidates
        assert indexed["answers"] >= 2  # three models carry the tag
    with Registry(small) as reg:
        assert reg.stats().models == 250


def test_classes_are_made_and_read_back(small: str) -> None:
    timed = run._classes(small)
    assert set(timed) == {"classes", "classes again"}
    with Registry(small) as reg:
        [kept] = reg.partitions.list()
        assert (kept.models, kept.rule) == (250, "complete")


def test_rows_depend_on_the_seed_and_their_number_alone() -> None:
    real = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    source, vectors = filling.perturbed(real, 4_100)
    less, fewer = filling.perturbed(real, 2_050)
    np.testing.assert_array_equal(source[:2_050], less)
    np.testing.assert_array_equal(vectors[:2_050], fewer)
    assert (filling.perturbed(real, 10, seed=1)[1] != vectors[:10]).any()


def test_the_table() -> None:
    found = {1_000: {"sqlite": {"l2": [0.001, 0.002], "memory": 5e7}, "indexed": {"added": True}}}
    shown = run.table(found)
    assert "| SQLite, L2, warm, ms | 1.5 (1.95) | 20 |" in shown
    assert "| an ingested model is found at once | yes | yes |" in shown
    assert "| Postgres, index, L1, ms | - | 3 |" in shown


def test_the_page_has_the_markers() -> None:
    assert "new" in harness.between_markers(run.PAGE.read_text(encoding="utf-8"), run.MARKER, "new")
