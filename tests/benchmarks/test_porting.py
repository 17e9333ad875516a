"""The benchmark of export and import, on a few models: what arrives is what left, and it would see if not."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import approximate, porting
from benchmarks.speed import harness
from registry import Registry
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.models.vectors import read_fingerprints

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A registry of 30 models made of four real ones."""
    with Registry("published:") as reg:
        reg.export(tmp_path / "four.db", names=[model.name for model in reg.models(max_bytes=200_000)[:4]])
    porting.fill(str(tmp_path / "four.db"), tmp_path / "many.db", 30)
    return tmp_path / "many.db"


def test_models_of_their_own_with_all_that_real_ones_have(many: Path) -> None:
    with Registry(many) as reg:
        assert reg.stats().models == 30
        assert reg.check() == ()
        assert reg.show("m7").has_spectra
        assert reg.show("m7").fingerprints == ("layered v3", "mme v1", "shapes v1")
    with Store.open(str(many), mode="read") as store:
        _, vectors = store.read(read_fingerprints, LAYERED.hash)
    assert len(np.unique(vectors, axis=0)) == 30


def test_what_arrives_is_what_left(many: Path, database_url: str, tmp_path: Path) -> None:
    out, back = str(tmp_path / "out.db"), str(tmp_path / "back.db")
    there = porting.move("export", str(many), out)
    assert (there["models"], there["added"], there["failed"]) == (30, 30, 0)
    assert there["peak"] > 1e6
    assert porting.move("import", database_url, out)["added"] == 30
    assert porting.move("import", database_url, out)["known"] == 30
    porting.move("export", database_url, back)
    left = porting.content(str(many))
    assert porting.content(database_url) == porting.content(back) == left
    with sqlite3.connect(back) as connection:
        connection.execute("UPDATE layers SET mean = mean * (1 + 1e-15) WHERE model_id = 3 AND position = 0")
    connection.close()
    assert porting.content(back) != left


def test_the_pages_have_the_markers() -> None:
    for benchmark in (porting, approximate):
        page = benchmark.PAGE.read_text(encoding="utf-8")
        assert "new" in harness.between_markers(page, benchmark.MARKER, "new")


def test_approximate_rows(tmp_path: Path) -> None:
    cells = approximate.row("rows scaled", 300, tmp_path).split(" | ")
    assert cells[:2] == ["| rows scaled", "300"]
    error, bound = map(float, cells[5].split(" of "))
    assert 0 < error < bound
    assert 10 <= int(cells[6]) <= 300
    found, exact = map(float, cells[7].split(", "))
    assert found == pytest.approx(exact, rel=0.02)
    assert all(0 < float(part) < 0.5 for part in cells[8].removesuffix(" |").split(", "))
