"""What a gate requires of two models, and why it holds or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry import Metric, Registry
from registry.errors import DatabaseMissingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Comparison
    from tests.catalog.conftest import Filled

ALL = ("equivalent", "related", "identical", "same-shape")


def told(compared: Comparison) -> dict[str, tuple[bool, str]]:
    return {each.require: (each.met, each.reason) for each in compared.requirements}


def permuted(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same network with the units of each hidden layer in another order."""
    rng, given, order = np.random.default_rng(0), dict(weights), None
    matrices = [name for name, values in given.items() if values.ndim >= 2]
    for name in matrices:
        values = given[name] if order is None else given[name][:, order]
        order = rng.permutation(values.shape[0])
        given[name] = np.ascontiguousarray(values[order])
    return given


def test_each_requirement_holds_or_not_with_its_reason(filled: Filled) -> None:
    reg = filled.reg
    near = told(reg.compare("wide", "twin", require=ALL))
    assert list(near) == list(ALL)
    assert near["equivalent"][0]
    assert near["equivalent"][1].startswith("distance ")
    assert near["related"][0]
    assert near["related"][1].startswith("correlation ")
    assert not near["identical"][0]
    assert near["identical"][1].startswith("the contents differ, sha256 ")
    assert near["identical"][1].endswith("; the weights are related")
    assert near["same-shape"][0]
    assert near["same-shape"][1].startswith("both have topology ")
    far = reg.compare("wide", "dense", require=ALL)
    assert far.unmet == ALL
    assert "distance" in told(far)["equivalent"][1]
    same = told(reg.compare("wide", filled.files / "wide.safetensors", require=["identical", "related", "identical"]))
    assert same["identical"] == (True, f"both are sha256 {reg['wide'].content_hash[:12]}")
    assert same["related"] == (True, "the contents are identical")
    assert len(same) == 2
    assert reg.compare("wide", "twin").requirements == ()


def test_permuted_units_are_related_and_not_identical(asked: Filled, tmp_path: Path) -> None:
    save_file(permuted(load_file(asked.files / "wide.safetensors")), tmp_path / "other.safetensors")
    found = told(asked.reg.gate(tmp_path / "other.safetensors", "wide", require=["related", "identical"]))
    assert found["related"] == (
        True,
        "the weights are the same but for the order of units, or a rotation: spectra of all layers are equal",
    )
    assert not found["identical"][0]
    assert found["identical"][1].endswith("; equal but for the order of units")


def test_what_is_not_known_does_not_hold(filled: Filled, tmp_path: Path) -> None:
    reg = filled.reg
    header = tmp_path / "header"
    header.mkdir()
    save_file(
        load_file(filled.files / "slim.safetensors") | {"more": np.ones((9, 9), np.float32)}, header / "h.safetensors"
    )
    reg.ingest(header / "h.safetensors", headers_only=True)
    found = reg.compare("wide", "h", require=ALL)
    assert found.unmet == ALL
    why = told(found)
    assert why["equivalent"][1] == "shapes alone are compared; that weights are equivalent is not known"
    assert why["related"][1] == "h: its weights were not read; ingest its weights"
    assert why["identical"][1] == "the weights of h were not read"
    own = told(reg.compare("h", "h", require=["same-shape", "identical"]))
    assert own["same-shape"][0]
    assert not own["identical"][0]


DROPS: list[tuple[tuple[Any, ...], tuple[Any, ...], str, float, bool, str]] = [
    (("top1", 92.6), ("top1", 92.1), "top1", 0.5, True, "top1 92.6 to 92.1, 0.5 worse"),
    (("top1", 92.6), ("top1", 92.0), "TOP1", 0.5, False, "top1 92.6 to 92, 0.6 worse, beyond 0.5"),
    (("top1", 92.6), ("top1", 93.0), "top1", 0, True, "top1 92.6 to 93, 0.4 better"),
    (("top1", 92.6), ("top1", 92.6), "top1", 0, True, "top1 92.6 to 92.6, the same"),
    (("loss", 0.3), ("loss", 0.4), "loss", 0.05, False, "loss 0.3 to 0.4, 0.1 worse, beyond 0.05"),
    (("loss", 0.3), ("loss", 0.2), "loss", 0.05, True, "loss 0.3 to 0.2, 0.1 better"),
    (("own", 1.0), ("own", 2.0), "own", 5, False, "own 1 to 2: whether higher is better is not known; archreg set"),
    (("own", 1.0, "", "", False), ("own", 2.0), "own", 0.5, False, "own 1 to 2, 1 worse, beyond 0.5"),
    (("top1", 9.0, "a"), ("top1", 9.0, "b"), "top1", 1, False, "wide has top1@a, slim has top1@b"),
    (("top1", 9.0, "a"), ("top1", 9.0, "a"), "top1@b", 1, False, "top1@b is not known of wide and slim"),
    (("top1", 9.0, "a", "val"), ("top1", 9.0, "a", "test"), "top1@a", 1, False, "wide has top1@a/val, slim has"),
    (("top1", 9.0, "a", "val"), ("top1", 8.5, "a", "val"), "top1@a/val", 1, True, "top1@a/val 9 to 8.5, 0.5 worse"),
    (("top1", 9.0), ("f1", 9.0), "top1", 1, False, "top1 is not known of slim"),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "key", "drop", "met", "why"), DROPS)
def test_the_largest_drop(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], key: str, drop: float, met: bool, why: str, files: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    with Registry(tmp_path / "registry.db") as reg:
        for name, metric in (("wide", ours), ("slim", theirs)):
            reg.ingest(files / f"{name}.safetensors", metrics=[Metric(*metric)])
        [found] = reg.compare("wide", "slim", max_drop={key: drop}).requirements
    assert found.require == f"max-drop {key}={drop:g}"
    assert found.met is met
    assert why in found.reason


def test_every_data_set_that_both_have_counts(filled: Filled) -> None:
    reg = filled.reg
    for name, digits, more in (("wide", 98.5, 90.0), ("slim", 98.4, 80.0)):
        for dataset, value in (("digits", digits), ("more", more)):
            reg.set_metric(name, Metric("top1", value, dataset, "test"))
    assert reg.compare("wide", "slim", max_drop={"top1@digits": 0.5}).unmet == ()
    found = reg.compare("wide", "slim", max_drop={"top1": 0.5})
    assert found.unmet == ("max-drop top1=0.5",)
    assert found.requirements[0].reason == (
        "top1@digits/test 98.5 to 98.4, 0.1 worse; top1@more/test 90 to 80, 10 worse, beyond 0.5"
    )


def test_metrics_that_contradict_the_verdict_are_told(filled: Filled) -> None:
    reg = filled.reg
    for name, value in (("wide", 92.0), ("twin", 80.0)):
        reg.set_metric(name, Metric("top1", value, "cifar10"))
    found = reg.compare("wide", "twin", require=["equivalent"])
    assert [change.place for change in found.contradicting] == ["top1@cifar10"]
    [(met, reason)] = told(found).values()
    assert met
    assert reason.endswith(", but top1 is 12 lower on cifar10")
    reg.set_metric("twin", Metric("top1", 83.0, "cifar10"))  # within a tenth
    assert reg.compare("wide", "twin").contradicting == ()
    assert reg.compare("wide", "twin", tolerance=0.0).contradicting == ()


def test_a_gate_measures_the_file_and_stores_nothing(filled: Filled, tmp_path: Path) -> None:
    reg = filled.reg
    (tmp_path / "wide").mkdir()
    tuned = {name: values * np.float32(1.01) for name, values in load_file(filled.files / "slim.safetensors").items()}
    save_file(tuned, tmp_path / "wide" / "tuned.safetensors")
    before = len(reg)
    found = reg.gate(
        str(tmp_path / "wide" / "tuned.safetensors"),
        "slim",
        require=["related"],
        max_drop={"top1": 1},
        metrics=[Metric("top1", 96.5, "digits", "test")],
    )
    assert (found.a.name, found.unmet) == ("slim", ())
    assert found.requirements[1].reason == "top1@digits/test 97 to 96.5, 0.5 worse"
    assert len(reg) == before


def test_the_file_of_a_gate_is_never_a_stored_name(
    asked: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide").mkdir()
    save_file(load_file(asked.files / "dense.safetensors"), tmp_path / "wide" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert asked.reg.gate("wide", "wide", require=["identical"]).unmet == ("identical",)
    assert asked.reg.compare("wide", "wide", require=["identical"]).unmet == ()


def test_of_two_files_no_database_is_needed(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    wide, twin = files / "wide.safetensors", str(files / "twin.safetensors")
    with Registry() as reg:
        assert reg.gate(twin, wide, require=ALL).unmet == ("identical",)
        assert reg.compare(twin, wide).verdict.equivalent
        assert reg.relation(twin, wide).verdict == "related"
        with pytest.raises(DatabaseMissingError):
            reg.gate(twin, "wide", require=ALL)
    with Registry("other.db") as reg, pytest.raises(DatabaseMissingError):  # one that was asked for must be there
        reg.gate(twin, wide, require=ALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"require": ["equal"]}, "unknown requirement 'equal'"),
        ({"require": "related"}, "require must be a list"),
        ({"require": [1]}, "a requirement must be a text"),
        ({"max_drop": {"top1": -1}}, "must be finite and not negative"),
        ({"max_drop": {"top1": float("inf")}}, "must be finite and not negative"),
        ({"max_drop": {"@cifar10": 1}}, "has no metric"),
        ({"max_drop": {"top1": "1"}}, "must be a number"),
        ({"max_drop": ["top1"]}, "max_drop must be a mapping"),
        ({}, "nothing is required"),
        ({"require": ["related"], "metrics": [1]}, "a metric must be a Metric"),
    ],
)
def test_wrong_requirements_are_refused(given: dict[str, Any], message: str, asked: Filled) -> None:
    with pytest.raises(UsageError, match=message):
        asked.reg.gate(asked.files / "twin.safetensors", "wide", **given)
