"""What is of the wrong kind is refused in one line, before any database compares it as it sees fit."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Metric, MetricBound, ModelCard, Registry
from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.catalog.conftest import Filled

WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda reg: reg.nearest(None), "a torch.nn.Module, not NoneType"),
    (lambda reg: reg.nearest(["wide"]), "a torch.nn.Module, not list"),
    (lambda reg: reg.nearest("wide", k="5"), "k must be a whole number, not '5'"),
    (lambda reg: reg.nearest("wide", k=2.5), "k must be a whole number, not 2.5"),
    (lambda reg: reg.nearest("wide", radius="1"), "radius must be a number, not '1'"),
    (lambda reg: reg.nearest("wide", radius=float("nan")), "radius must be finite and not negative, not nan"),
    (lambda reg: reg.nearest("wide", tolerance="0.1"), "tolerance must be a number, not '0.1'"),
    (lambda reg: reg.nearest("wide", tolerance=True), "tolerance must be a number, not True"),
    (lambda reg: reg.nearest("wide", distance=3), "unknown distance 3"),
    (lambda reg: reg.nearest("wide", fingerprint=3), "unknown fingerprint 3"),
    (lambda reg: reg.nearest("wide", family=3), "family must be a text, not 3"),
    (lambda reg: reg.nearest("wide", max_params="1M"), "max_params must be a number, not '1M'"),
    (lambda reg: reg.nearest("wide", max_params=float("nan")), "max_params must be finite, not nan"),
    (lambda reg: reg.nearest("wide", min_bytes=2**70), "min_bytes must be below 2^63"),
    (lambda reg: reg.nearest("wide", max_gflops="1"), "max_gflops must be a number, not '1'"),
    (lambda reg: reg.nearest("wide", metrics="top1"), "metrics must be a list, not the text 'top1'"),
    (lambda reg: reg.nearest("wide", metrics=["top1>=9"]), "metrics must hold MetricBound objects, not 'top1>=9'"),
    (lambda reg: reg.nearest("wide", metrics=[MetricBound("top1", "9")]), "the bound on top1 must be a number"),
    (lambda reg: reg.nearest("wide", tags={"made": "wide"}), "tags must hold pairs, not 'made'"),
    (lambda reg: reg.nearest("wide", tags=[("made", 1)]), "the tag made must be a text, not 1"),
    (lambda reg: reg.models(max_params="1M"), "max_params must be a number"),
    (lambda reg: reg.search_all("wide"), "queries must be a list, not the text 'wide'"),
    (lambda reg: reg.search_all(5), "queries must be a list, not 5"),
    (lambda reg: reg.compare("wide", 5), "a torch.nn.Module, not int"),
    (lambda reg: reg.equivalent("wide", "slim", tolerance="0.1"), "tolerance must be a number"),
    (lambda reg: reg.classes(rule=3), "unknown rule 3"),
    (lambda reg: reg.classes(tolerance="0.1"), "tolerance must be a number"),
    (lambda reg: reg.partitions.get(5), "identity must be a text, not 5"),
    (lambda reg: reg.partitions.forget("1"), "partition_id must be a whole number, not '1'"),
    (lambda reg: reg.compress("wide", max_ratio="0.5"), "max_ratio must be a number, not '0.5'"),
    (lambda reg: reg.compress("wide", max_params="1M"), "max_params must be a number, not '1M'"),
    (lambda reg: reg.select(aims="max:top1"), "aims must be a list, not the text 'max:top1'"),
    (lambda reg: reg.select(aims=[3]), "an aim must be a text, not 3"),
    (lambda reg: reg.select(min_metric="top1"), "min_metric must be a mapping, not 'top1'"),
    (lambda reg: reg.select(min_metric={"top1": "92"}), "the bound on top1 must be a number, not '92'"),
    (lambda reg: reg.select(max_metric={3: 92}), "a metric's name must be a text, not 3"),
    (lambda reg: reg.calibrate(rate="x"), "rate must be a number, not 'x'"),
    (lambda reg: reg.calibrate(seed=1.5), "seed must be a whole number, not 1.5"),
    (lambda reg: reg.calibrate(seed=-1), "seed must be at least 0, not -1"),
    (lambda reg: reg.index.check(k="x"), "k must be a whole number, not 'x'"),
    (lambda reg: reg.index.check(queries=0), "queries must be at least 1, not 0"),
    (lambda reg: reg.index.check(k=True), "k must be a whole number, not True"),
    (lambda reg: reg.nearest("wide", radius=np.eye(40)), "radius must be a number, not ndarray array([[1., 0., 0., "),
    (lambda reg: reg.ingest_all(np.float64(2)), "refs must be a list, not np.float64(2.0)"),
    (lambda reg: reg.show(np.eye(40)), "a model name must be a text, not ndarray"),
    (lambda reg: reg.show(5), "a model name must be a text, not 5"),
    (lambda reg: reg.spectrum(None), "a model name must be a text, not None"),
    (lambda reg: reg.remove(5), "a model name must be a text, not 5"),
    (lambda reg: reg.rename("wide", 5), "a name must be a text, not 5"),
    (lambda reg: reg.tag("wide", made=3), "the tag made must be a text, not 3"),
    (lambda reg: reg.set_metric("wide", "top1=3"), "a metric must be a Metric, not 'top1=3'"),
    (lambda reg: reg.runs.get("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.runs.items("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.runs.items(1, states="failed"), "states must be a list, not the text 'failed'"),
    (lambda reg: reg.runs.items(1, states=["faild"]), "unknown state 'faild'"),
    (lambda reg: reg.runs.retry("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.plan(5), "references must be a list, not 5"),
    (lambda reg: reg.plan([None]), "a reference is a text or a path, not NoneType"),
    (lambda reg: reg.plan([["wide"]]), "a reference is a text or a path, not list"),
    (lambda reg: reg.plan([b"wide"]), "a reference is a text or a path, not bytes"),
    (lambda reg: reg.plan(["wide"], name=5), "name must be a text, not 5"),
    (lambda reg: reg.plan(["wide"], key=5), "key must be a text, not 5"),
    (lambda reg: reg.plan(["wide"], seed="x"), "seed must be a whole number, not 'x'"),
    (lambda reg: reg.plan(manifest=5), "manifest must be a path, not 5"),
    (lambda reg: reg.plan(manifest=["a"]), "manifest must be a path, not ['a']"),
    (lambda reg: reg.ingest("wide", name=5), "name must be a text, not 5"),
    (lambda reg: reg.export(None), "file must be a path, not None"),
    (lambda reg: reg.export(5), "file must be a path, not 5"),
    (lambda reg: reg.export(b"out.db"), "file must be a path, not b'out.db'"),
    (lambda reg: reg.export("out.db", names="wide"), "names must be a list, not the text 'wide'"),
    (lambda reg: reg.export("out.db", names=5), "names must be a list, not 5"),
    (lambda reg: reg.import_from(None), "file must be a path, not None"),
    (lambda reg: reg.import_from(["a"]), "file must be a path, not ['a']"),
    (lambda reg: reg.plot_csd("wide", 5), "file must be a path, not 5"),
    (lambda reg: reg.plot_spectrum("wide", 5), "file must be a path, not 5"),
    (lambda reg: reg.compare(None, "wide"), "a torch.nn.Module, not NoneType"),
    (lambda reg: reg.compress(5), "a torch.nn.Module, not int"),
    (lambda reg: reg.select(like=5), "a torch.nn.Module, not int"),
    (lambda _: Registry(5), "url must be a URL or a path, not 5"),
    (lambda _: Registry(False), "url must be a URL or a path, not False"),
    (lambda _: Registry([]), "url must be a URL or a path, not []"),
    (lambda reg: reg.plan(["x.pt"], card={"family": "conv"}), "card must be a ModelCard, not {'family': 'conv'}"),
    (lambda reg: reg.plan(["x.pt"], card=ModelCard(seed="1")), "seed must be a whole number, not '1'"),
    (lambda reg: reg.plan(["x.pt"], seed=1.5), "seed must be a whole number, not 1.5"),
    (lambda reg: reg.ingest("x.pt", seed="1"), "seed must be a whole number, not '1'"),
    (lambda reg: reg.ingest("x.pt", gflops="1"), "gflops must be a number, not '1'"),
    (lambda reg: reg.ingest("x.pt", gflops=-1), "gflops must be finite and not negative, not -1"),
    (lambda reg: reg.ingest("x.pt", gflops=float("inf")), "gflops must be finite and not negative, not inf"),
    (lambda reg: reg.ingest("x.pt", family=3), "family must be a text, not 3"),
    (lambda reg: reg.ingest("x.pt", tags={"made": "wide"}), "tags must hold pairs, not 'made'"),
    (lambda reg: reg.ingest("x.pt", tags=[("made", 1)]), "the tag made must be a text, not 1"),
    (lambda reg: reg.ingest("x.pt", metrics=[("top1", 9)]), "a metric must be a Metric, not ('top1', 9)"),
    (lambda reg: reg.ingest("x.pt", metrics=Metric("top1", 9)), "metrics must be a list, not Metric("),
    (lambda reg: reg.set_metric("wide", Metric("top1", "9")), "the metric top1 must be a number, not '9'"),
    (lambda reg: reg.set_metric("wide", Metric("top1", 9, None)), "a metric's dataset must be a text, not None"),
    (lambda reg: reg.set_metric("wide", Metric("top1", 9, higher_is_better="no")), "must be True, False or None"),
    (lambda reg: reg.set("wide", seed=float("nan")), "seed cannot be set to nan"),
    (lambda reg: reg.ingest(None), "a torch.nn.Module, not NoneType"),
    (lambda reg: reg.ingest_all("wide"), "refs must be a list, not the text 'wide'"),
    (lambda reg: reg.ingest_all(["wide"]), "refs must come from plan(), not 'wide'"),
]  # fmt: skip


def test_what_is_of_the_wrong_kind_is_named(filled: Filled) -> None:
    before = filled.reg.models()
    for call, message in WRONG:
        with pytest.raises(UsageError) as refused:
            call(filled.reg)
        assert message in refused.value.message
        assert "\n" not in refused.value.message
        if "must be a path" in message or "or a path" in message:
            assert refused.value.remedy
    assert filled.reg.models() == before


def test_the_kinds_that_go(filled: Filled) -> None:
    """Sizes as floats, None for no filter, NumPy's numbers: all the same on both databases."""
    import numpy as np

    reg = filled.reg
    sizes = sorted(model.parameters for model in reg.models())
    middle = sizes[1]
    few = reg.models(max_params=middle)
    assert 0 < len(few) < len(sizes)
    for same in (float(middle), middle + 0.5, np.int64(middle), np.float64(middle)):
        assert reg.models(max_params=same) == few
    assert reg.models(min_params=middle + 0.5) == reg.models(min_params=middle + 1)
    assert len(reg.models(family=None, metrics=None, tags=None, max_gflops=None)) == len(sizes)
    assert len(reg.nearest("wide", np.int64(2), radius=np.float32(1e6))) == 2
    assert len(reg.models(metrics=[MetricBound("top1", minimum=np.float32(97.5))])) == 1
    assert reg.classes(tolerance=np.float32(0.25), rule="single") == reg.classes(tolerance=0.25, rule="single")


def test_what_is_said_of_a_model_is_kept_as_it_was_meant(filled: Filled, tmp_path: Path) -> None:
    """NumPy's numbers are numbers, None is unknown, pairs may be lists, lists may be arrays and iterators."""
    import numpy as np
    import torch

    reg = filled.reg
    better = np.bool_(True)
    metrics = [Metric("top1", np.float32(90.5), "digits", "test", higher_is_better=better)]
    card = {"seed": np.int64(3), "gflops": np.float32(1.5), "task": None, "tags": [["stage", "draft"]]}
    reg.ingest(torch.nn.Linear(5, 4), name="one", metrics=iter(metrics), **card)
    kept = reg.show("one")
    assert (kept.seed, kept.summary.gflops, kept.summary.task) == (3, 1.5, "")
    assert kept.summary.metrics == (Metric("top1", 90.5, "digits", "test", higher_is_better=True),)
    assert kept.tags == (("stage", "draft"),)
    assert reg.set("one", seed=np.int32(4), gflops=np.float32(0.5)).gflops == 0.5
    assert reg.show("one").seed == 4
    for names in (np.array(["one", "wide"]), {"one", "wide"}, iter(["one", "wide"])):
        assert reg.export(tmp_path / "part.db", names=names, overwrite=True).added == 2


def test_the_paths_that_go(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Place:
        def __init__(self, text: str) -> None:
            self.text = text

        def __fspath__(self) -> str:
            return self.text

    for number, kind in enumerate((str, pathlib.Path, Place)):
        file = kind(str(tmp_path / f"out{number}.db"))
        assert filled.reg.export(file).added == len(filled.reg.models())  # type: ignore[arg-type]
        assert filled.reg.import_from(file, dry_run=True).added == 0  # type: ignore[arg-type]
        with Registry(file) as out:  # type: ignore[arg-type]
            assert out.models()
    monkeypatch.setenv("ARCHREG_DB", str(tmp_path / "out0.db"))
    for none in (None, ""):
        with Registry(none) as out:
            assert out.models()


def test_wrong_questions_leave_no_file(tmp_path: Path) -> None:
    with Registry(tmp_path / "none.db") as reg, pytest.raises(UsageError, match="refs must come from plan"):
        reg.ingest_all(["wide.pt"])
    assert not list(tmp_path.iterdir())
