from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scale.classes import AIMS, CASES, measure, perturbed, row

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_measured_is_shown(tmp_path: Path) -> None:
    real = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    np.save(tmp_path / "real.npy", real)
    for rule in ("complete", "single", "cover"):
        found = measure(tmp_path / "real.npy", rule, 50)
        assert (found["rule"], found["models"]) == (rule, 50)
        assert 1 <= found["largest"] <= 50
        assert row(found).startswith(f"| `{rule}` | 50 | ")
        assert row(found).endswith(" |  |  |")
    assert found["within"]
    aimed = found | {"rule": "complete", "models": 10_000, "seconds": 59.0, "gigabytes": 1.0}
    assert row(aimed).endswith("| 60 s, 2 GB | met |")
    assert row(aimed | {"gigabytes": 2.5}).endswith("| 60 s, 2 GB | missed |")
    assert set(AIMS) <= set(CASES)


def test_vectors_are_the_same_every_time() -> None:
    real = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    np.testing.assert_array_equal(perturbed(real, 40), perturbed(real, 40))
    assert perturbed(real, 40).dtype == np.float32
