"""Answers as data frames: what is in them, their columns and dtypes, full and empty, on both databases."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from registry import Registry, frames
from registry.errors import RegistryError
from registry.types import Calibrated, LabelledPairs
from tests.catalog.conftest import Filled, _shared, asked, files, filled, one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["_shared", "asked", "files", "filled", "one_thread"]  # fixtures

MODEL = {
    "name": "string",
    "family": "string",
    "architecture": "string",
    "task": "string",
    "dataset": "string",
    "licence": "string",
    "parameters": "Int64",
    "bytes": "Int64",
    "layers": "Int64",
    "gflops": "Float64",
    "training_class": "string",
    "tail_class": "string",
    "approximate": "Int64",
    "precision": "string",
    "format": "string",
    "location": "string",
    "entry": "string",
    "unread": "Int64",
    "nonfinite": "Int64",
    "weights_read": "boolean",
    "source": "string",
    "matrix_rule": "string",
    "content_hash": "string",
    "topology": "string",
    "created": "datetime64[us, UTC]",
    "id": "Int64",
    "names": "string",
}
METRICS = {"metric.slim": "Float64", "metric.top1@digits/test": "Float64", "metric.wide": "Float64"}


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    assert list(frame.index) == list(range(len(frame)))
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def fixed(frame: pd.DataFrame) -> list[str]:
    """Columns but those that follow from what is stored."""
    return [name for name in dtypes(frame) if not name.startswith(("metric.", "change.", "tag.", "a.m", "b.m"))]


def test_models(filled: Filled) -> None:
    frame = frames.of_models(filled.reg.models())
    assert dtypes(frame) == MODEL | METRICS
    assert list(dtypes(frame)) == [*MODEL, *METRICS]
    assert list(frame["name"]) == ["dense", "slim", "twin", "wide"]
    by_name = frame.set_index("name")
    assert by_name.loc["wide", "metric.top1@digits/test"] == 98.5
    assert by_name["metric.top1@digits/test"].isna().to_dict() == {
        "dense": True, "slim": False, "twin": True, "wide": False,
    }  # fmt: skip
    assert by_name.loc["slim", "parameters"] == filled.reg.show("slim").summary.parameters
    assert by_name["architecture"].isna().all()
    assert by_name["gflops"].isna().all()
    [wide] = [model for model in filled.reg.models() if model.name == "wide"]
    assert by_name.loc["wide", "created"] == pd.Timestamp(wide.created).tz_convert("UTC")
    assert frame.groupby("family")["parameters"].count().to_dict() == {"conv": 3, "mlp": 1}
    empty = frames.of_models(filled.reg.models(family="none"))
    assert (len(empty), dtypes(empty)) == (0, MODEL)


def test_details_have_provenance_and_tags(filled: Filled) -> None:
    filled.reg.set("wide", seed=3, recipe="sgd")
    filled.reg.tag("wide", reviewed="yes")
    frame = frames.of_details(filled.reg.show(name) for name in ("wide", "dense"))
    assert fixed(frame) == [*MODEL, "revision", "recipe", "training", "seed", "tool_version", "has_spectra"]
    assert list(frame.columns[-2:]) == ["tag.made", "tag.reviewed"]
    assert list(frame["tag.made"]) == ["wide", "dense"]
    assert list(frame["seed"].fillna(-1)) == [3, -1]
    assert list(frame["tag.reviewed"].fillna("-")) == ["yes", "-"]
    assert frame["has_spectra"].all()
    assert dtypes(frame)["seed"] == "Int64"
    assert dtypes(frame)["has_spectra"] == "boolean"


def test_search_and_neighbours(filled: Filled) -> None:
    search = filled.reg.search("wide", 3)
    frame = search.to_frame()
    assert list(frame.columns[:5]) == ["query", "name", "distance", "equivalent", "family"]
    assert set(frame["query"]) == {"wide"}
    assert list(frame["name"]) == [one.model.name for one in search.neighbours]
    assert list(frame["distance"]) == [one.distance for one in search.neighbours]
    assert list(frame["equivalent"]) == [one.verdict.equivalent for one in search.neighbours]
    assert frame["equivalent"].dtype == "boolean"
    assert frame["equivalent"].any()
    assert not frame["equivalent"].all()
    assert frame.loc[frame["equivalent"], "reasons"].isna().all()
    assert frame.loc[~frame["equivalent"], "reasons"].notna().all()
    bare = frames.of_neighbours(filled.reg.nearest("wide", 3))
    pd.testing.assert_frame_equal(bare, frame.drop(columns="query"))
    every = pd.concat(one.to_frame() for one in filled.reg.search_all(["wide", "slim"], k=1))
    assert list(every["query"]) == ["wide", "slim"]


def test_comparison_is_one_row(filled: Filled) -> None:
    answer = filled.reg.compare("wide", "slim")
    frame = answer.to_frame()
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row["a"], row["b"]) == ("wide", "slim")
    assert row["distance"] == row[f"distance.{answer.distance}"] == answer.verdict.distance
    assert {name for name in frame if name.startswith("distance.")} == {"distance.l1", "distance.l2", "distance.linf"}
    assert (row["a.parameters"], row["b.parameters"]) == (answer.a.parameters, answer.b.parameters)
    assert (row["a.metric.top1@digits/test"], row["b.metric.top1@digits/test"]) == (98.5, 97.0)
    assert row["equivalent"] == answer.verdict.equivalent
    two = frames.of_comparisons([answer, filled.reg.compare("wide", "dense")])
    assert list(two["b"]) == ["slim", "dense"]
    assert list(two["b.metric.top1@digits/test"].isna()) == [False, True]


def test_partition(filled: Filled) -> None:
    partition = filled.reg.classes()
    frame = partition.to_frame()
    assert len(frame) == 4
    assert list(frame.columns[:6]) == [
        "class_number", "class_identity", "class_size", "class_diameter", "medoid", "name",
    ]  # fmt: skip
    for kind in partition.classes:
        rows = frame[frame["class_number"] == kind.number]
        assert list(rows["name"]) == [model.name for model in kind.members]
        assert set(rows["class_size"]) == {len(kind.members)}
        assert set(rows["class_identity"]) == {kind.identity}
        assert list(rows.loc[rows["medoid"], "name"]) == [kind.medoid]
    assert fixed(replace(partition, classes=()).to_frame()) == fixed(frame)


def test_compression(filled: Filled) -> None:
    answer = filled.reg.compress("wide")
    frame = answer.to_frame()
    assert list(frame["name"]) == [one.model.name for one in answer.candidates]
    slim = frame.set_index("name").loc["slim"]
    assert slim["query"] == "wide"
    assert slim["change.top1@digits/test"] == pytest.approx(-1.5)
    [candidate] = [one for one in answer.candidates if one.model.name == "slim"]
    assert slim["params_saved"] == candidate.params_saved
    assert frame["gflops_saved"].isna().all()
    empty = filled.reg.compress("wide", max_params=1).to_frame()
    assert (len(empty), fixed(empty)) == (0, fixed(frame))


def test_selection(filled: Filled) -> None:
    answer = filled.reg.select(aims=["max:top1@digits", "min:params"], tolerance=1e9)
    frame = answer.to_frame()
    assert list(frame.columns[:6]) == [
        "class_number", "best", "name", "aim.top1@digits/test", "aim.parameters", "distance",
    ]  # fmt: skip
    shown = [choice for kind in answer.classes for choice in (kind.best, *kind.others)]
    assert len(shown) == 2
    assert list(frame["name"]) == [choice.model.name for choice in shown]
    assert [tuple(row) for row in frame[["aim.top1@digits/test", "aim.parameters"]].to_numpy()] == [
        choice.values for choice in shown
    ]
    assert list(frame["best"]) == [choice in [kind.best for kind in answer.classes] for choice in shown]
    assert frame["distance"].isna().all()
    assert fixed(replace(answer, classes=()).to_frame()) == fixed(frame)


def test_calibrated() -> None:
    relation = LabelledPairs("unrelated", 10, 4, 1.5, 0.1, 0.05)
    with Registry("none.db") as reg:
        spec: Any = reg  # the frame looks at the relations alone
        answer = Calibrated(spec, spec, 5, 1, (relation,))
    frame = answer.to_frame()
    assert dtypes(frame) == {
        "name": "string", "pairs": "Int64", "families": "Int64", "median": "Float64", "within": "Float64",
        "equivalent": "Float64",
    }  # fmt: skip
    assert tuple(frame.iloc[0]) == ("unrelated", 10, 4, 1.5, 0.1, 0.05)


def test_spectra_and_layers(filled: Filled) -> None:
    spectra = filled.reg.spectrum("wide")
    frame = frames.of_spectra(spectra)
    assert dtypes(frame) == {"position": "int64", "layer": "string", "index": "int64", "eigenvalue": "float32"}
    assert len(frame) == sum(len(one.values) for one in spectra)
    for one in spectra:
        rows = frame[frame["position"] == one.layer.position]
        assert set(rows["layer"]) == {one.layer.name}
        assert list(rows["index"]) == list(range(len(one.values)))
        np.testing.assert_array_equal(rows["eigenvalue"], one.values)
    empty = frames.of_spectra(())
    assert (len(empty), dtypes(empty)) == (0, dtypes(frame))
    figures = filled.reg.show("wide").layers
    layers = frames.of_layers(figures)
    assert list(layers["name"]) == [one.name for one in figures]
    assert list(layers["largest"]) == [one.largest for one in figures]
    assert dtypes(frames.of_layers(())) == dtypes(layers)


def test_distances_are_labelled(filled: Filled) -> None:
    names, matrix = filled.reg.distances()
    frame = frames.of_distances((names, matrix))
    assert list(frame.index) == list(frame.columns) == list(names)
    assert frame.loc["wide", "slim"] == matrix[list(names).index("wide"), list(names).index("slim")] > 0
    frame.loc["wide", "slim"] = -1.0
    assert (matrix >= 0).all()
    assert frames.of_distances(([], np.empty((0, 0)))).shape == (0, 0)


def test_what_became_of_an_ingest(filled: Filled) -> None:
    done = filled.reg.ingest_all(
        filled.reg.plan([filled.files / "wide.safetensors", filled.files / "slim.safetensors"])
    )
    frame = frames.of_ingested(done)
    assert list(frame["status"]) == ["known", "known"]
    assert set(frame["message"]) == {"already stored; nothing added"}
    assert frame["remedy"].isna().all()
    assert dtypes(frames.of_ingested(())) == dtypes(frame)


def test_runs_and_items(filled: Filled) -> None:
    filled.reg.ingest_all(filled.reg.plan([filled.files / "wide.safetensors"]))
    runs = filled.reg.runs.list()
    frame = frames.of_runs(runs)
    assert list(frame["id"]) == [run.id for run in runs]
    assert frame.loc[0, "done"] == 1
    assert dtypes(frame)["finished"] == "datetime64[us, UTC]"
    assert frame["finished"].notna().all()
    assert frames.of_runs([replace(runs[0], finished=None)])["finished"].isna().all()
    assert dtypes(frames.of_runs(())) == dtypes(frame)
    items = frames.of_items(filled.reg.runs.items(runs[0].id))
    assert list(items["name"]) == ["wide"]
    assert dtypes(frames.of_items(())) == dtypes(items)


@pytest.mark.parametrize(
    "make",
    [
        lambda reg: reg.search("wide").to_frame(),
        lambda reg: frames.of_models(reg.models()),
        lambda reg: frames.of_spectra(reg.spectrum("wide")),
        lambda reg: frames.of_distances(reg.distances()),
    ],
)
def test_a_missing_pandas_is_one_line_and_a_remedy(
    make: Callable[[Registry], pd.DataFrame], asked: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RegistryError, match="data frames need pandas") as raised:
        make(asked.reg)
    assert raised.value.remedy == "pip install 'architecture-registry[frame]'"
    assert "\n" not in str(raised.value)


def test_pandas_is_loaded_when_a_frame_is_made() -> None:
    program = (
        "import sys\nfrom registry import Registry, frames\nimport registry.types\nassert 'pandas' not in sys.modules\n"
        "frames.of_models(())\nassert 'pandas' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
