"""The notebook runs from top to bottom and shows what its text says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What the names of the notebook mean after its last cell."""
    cells = json.loads((NOTEBOOKS / "spectral_differences.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    return names


def test_all_published_models_are_there(shown: dict[str, Any]) -> None:
    assert shown["stats"].models == 163


def test_the_tails_of_one_design_end_alike_and_beyond_gaussian_ones(shown: dict[str, Any]) -> None:
    own = [row[1] for row in shown["rows"]]
    assert max(own) < 1.2 * min(own)
    assert all(row[1] > 1.2 * row[2] for row in shown["rows"])


def test_most_published_models_are_trained_with_long_tails(shown: dict[str, Any]) -> None:
    assert shown["shares"]["trained"] >= 0.9
    assert shown["shares"]["long"] >= 0.8


def test_the_smaller_networks_of_the_design_stand_in(shown: dict[str, Any]) -> None:
    answer = shown["answer"]
    assert answer.equivalent
    of_the_design = [one.model.architecture for one in answer.candidates if "akamaster" in one.model.name]
    assert of_the_design[:3] == ["resnet20", "resnet32", "resnet44"]


def test_layered_finds_more_kin_than_mme(shown: dict[str, Any]) -> None:
    assert (shown["scores"]["layered"][:2] > shown["scores"]["mme"][:2] + 0.2).all()


def test_the_notebook_is_stored_without_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells), path.name
