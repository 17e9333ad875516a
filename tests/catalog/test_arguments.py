"""What is of the wrong kind is refused in one line, before any database compares it as it sees fit."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import pytest

from registry import MetricBound, Registry
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
    (lambda reg: reg.nearest("wide", radius=float("nan")), "radius must be a distance, zero or larger, not nan"),
    (lambda reg: reg.nearest("wide", accuracy="0.1"), "accuracy must be a number, not '0.1'"),
    (lambda reg: reg.nearest("wide", accuracy=True), "accuracy must be a number, not True"),
    (lambda reg: reg.nearest("wide", metric=3), "unknown distance 3"),
    (lambda reg: reg.nearest("wide", fingerprint=3), "unknown fingerprint 3"),
    (lambda reg: reg.nearest("wide", family=3), "family must be a text, not 3"),
    (lambda reg: reg.nearest("wide", max_params="1M"), "max_params must be a number, not '1M'"),
    (lambda reg: reg.nearest("wide", max_params=float("nan")), "max_params must be finite, not nan"),
    (lambda reg: reg.nearest("wide", min_bytes=2**70), "min_bytes must be below 2^63"),
    (lambda reg: reg.nearest("wide", max_gflops="1"), "max_gflops must be a number, not '1'"),
    (lambda reg: reg.nearest("wide", metrics="top1"), "metrics is a list, not the text 'top1'"),
    (lambda reg: reg.nearest("wide", metrics=["top1>=9"]), "metrics holds 'top1>=9', which is no bound"),
    (lambda reg: reg.nearest("wide", metrics=[MetricBound("top1", "9")]), "the bound on top1 must be a number"),
    (lambda reg: reg.nearest("wide", tags={"made": "wide"}), "tags holds 'made', which is no pair"),
    (lambda reg: reg.nearest("wide", tags=[("made", 1)]), "the tag made must be a text, not 1"),
    (lambda reg: reg.models(max_params="1M"), "max_params must be a number"),
    (lambda reg: reg.search_all("wide"), "queries is a list, not the text 'wide'"),
    (lambda reg: reg.search_all(5), "queries is a list, not 5"),
    (lambda reg: reg.compare("wide", 5), "a torch.nn.Module, not int"),
    (lambda reg: reg.equivalent("wide", "slim", accuracy="0.1"), "accuracy must be a number"),
    (lambda reg: reg.classes(rule=3), "unknown rule 3"),
    (lambda reg: reg.classes(accuracy="0.1"), "accuracy must be a number"),
    (lambda reg: reg.kept_class(5), "identity must be a text, not 5"),
    (lambda reg: reg.forget_partition("1"), "partition_id must be a whole number, not '1'"),
    (lambda reg: reg.compress("wide", max_ratio="0.5"), "max_ratio must be a number, not '0.5'"),
    (lambda reg: reg.compress("wide", max_params="1M"), "max_params must be a number, not '1M'"),
    (lambda reg: reg.select(aims="max:top1"), "aims is a list, not the text 'max:top1'"),
    (lambda reg: reg.select(aims=[3]), "an aim must be a text, not 3"),
    (lambda reg: reg.select(min_metric="top1"), "min_metric must be a mapping, not 'top1'"),
    (lambda reg: reg.select(min_metric={"top1": "92"}), "the bound on top1 must be a number, not '92'"),
    (lambda reg: reg.select(max_metric={3: 92}), "a metric's name must be a text, not 3"),
    (lambda reg: reg.calibrate(rate="x"), "rate must be a number, not 'x'"),
    (lambda reg: reg.calibrate(seed=1.5), "seed must be a whole number, not 1.5"),
    (lambda reg: reg.calibrate(seed=-1), "seed must be at least 0, not -1"),
    (lambda reg: reg.index_check(k="x"), "k must be a whole number, not 'x'"),
    (lambda reg: reg.index_check(queries=0), "queries must be at least 1, not 0"),
    (lambda reg: reg.show(5), "a model is asked for by its name, a text, not 5"),
    (lambda reg: reg.spectrum(None), "a model is asked for by its name, a text, not None"),
    (lambda reg: reg.remove(5), "a model is asked for by its name, a text, not 5"),
    (lambda reg: reg.rename("wide", 5), "a name must be a text, not 5"),
    (lambda reg: reg.tag("wide", made=3), "the tag made must be a text, not 3"),
    (lambda reg: reg.set_metric("wide", "top1=3"), "a metric is a Metric, not 'top1=3'"),
    (lambda reg: reg.runs("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.run_items("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.retry("x"), "run must be a whole number, not 'x'"),
    (lambda reg: reg.plan(5), "references is a list, not 5"),
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
    (lambda reg: reg.export("out.db", names="wide"), "names is a list, not the text 'wide'"),
    (lambda reg: reg.export("out.db", names=5), "names is a list, not 5"),
    (lambda reg: reg.import_from(None), "file must be a path, not None"),
    (lambda reg: reg.import_from(["a"]), "file must be a path, not ['a']"),
    (lambda reg: reg.plot_csd("wide", None), "file must be a path, not None"),
    (lambda reg: reg.plot_spectrum("wide", 5), "file must be a path, not 5"),
    (lambda reg: reg.compare(None, "wide"), "a torch.nn.Module, not NoneType"),
    (lambda reg: reg.compress(5), "a torch.nn.Module, not int"),
    (lambda reg: reg.select(like=5), "a torch.nn.Module, not int"),
    (lambda _: Registry(5), "url must be a URL or a path, not 5"),
    (lambda _: Registry(False), "url must be a URL or a path, not False"),
    (lambda _: Registry([]), "url must be a URL or a path, not []"),
    (lambda reg: reg.ingest(None), "a torch.nn.Module, not NoneType"),
    (lambda reg: reg.ingest_all("wide"), "refs is a list, not the text 'wide'"),
    (lambda reg: reg.ingest_all(["wide"]), "refs is what plan() returns, not 'wide'"),
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
    with Registry(tmp_path / "none.db") as reg, pytest.raises(UsageError, match="refs is what plan"):
        reg.ingest_all(["wide.pt"])
    assert not list(tmp_path.iterdir())
