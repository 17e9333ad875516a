"""Ingesting: what is planned, what is told, what the exit code says."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry.cli.progress_output import Bars, Lines
from registry.errors import NotFoundError, RegistryError
from registry.types import Ingested, LeftOut, ModelCard, ModelRef, Plan

if TYPE_CHECKING:
    from collections.abc import Callable


def test_options_reach_the_registry(archreg: Callable[..., Any], fake: Any) -> None:
    words = (
        "ingest a.pt --name m --family f --architecture a --task t --dataset d --licence l --tag k=v --seed 7 --key ema"
    )
    done = archreg(
        *words.split(),
        "--replace",
        "--no-spectra",
        "--discard-weights",
        "--device",
        "auto",
        "--approximate",
        "--allow-nonfinite",
        "-q",
    )
    assert (done.code, done.out, done.err) == (0, "Models: 1 added.\n", "")
    card = ModelCard(family="f", architecture="a", task="t", dataset="d", licence="l", tags=(("k", "v"),))
    assert fake.called("plan") == ((["a.pt"],), {"key": "ema", "seed": 7, "name": "m", "base": None, "card": card})
    _, settings = fake.called("ingest_all")
    settings.pop("progress")
    assert settings == {
        "headers_only": False,
        "workers": None,
        "executor": None,
        "address": None,
        "time_limit": None,
        "command": "archreg ingest a.pt",
        "replace": True,
        "keep_spectra": False,
        "discard_weights": True,
        "device": "auto",
        "approximate": True,
        "allow_nonfinite": True,
    }


def test_devices(archreg: Callable[..., Any], fake: Any) -> None:
    archreg("ingest", "a.pt", "--quiet")
    assert fake.called("ingest_all")[1]["device"] == "cpu"
    assert archreg("ingest", "a.pt", "--device", "gpu").code == 2
    fake.answers["ingest_all"] = RegistryError("no CUDA device is available: none", "use the device auto or cpu")
    refused = archreg("ingest", "a.pt", "--device", "cuda", "--quiet")
    assert refused.code == 1
    assert refused.err == "archreg: no CUDA device is available: none\n  use the device auto or cpu\n"


def test_a_manifest(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("ingest", "--manifest", "m.jsonl", "--quiet").out == "Models: 2 added.\n"
    (references,), settings = fake.called("plan")
    assert list(references) == []
    assert settings["manifest"] == Path("m.jsonl")


def test_lines_where_standard_error_is_no_terminal(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("ingest", "a", "bad\x1b[2J", "c")
    assert done.code == 3
    assert done.err.splitlines() == [
        "[1/3] a: added, 0.5 s",
        r"[2/3] bad\x1b[2J: failed, 0.1 s",
        r"archreg: /models/bad\x1b[2J holds no tensors",
        "  check the file",
        "[3/3] c: added, 0.5 s",
    ]
    first, *_, last = done.out.splitlines()
    assert first == "Models: 2 added, 1 failed."
    assert " ".join(last.split()) == r"failed 1 holds no tensors bad\x1b[2J check the file"


def test_failures_of_one_reason_are_one_row(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("ingest", "a", "bad", "badly", "--quiet")
    assert " ".join(done.out.splitlines()[-1].split()) == "failed 2 holds no tensors bad check the file"


def test_a_single_failure_exits_with_1(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("ingest", "bad", "--quiet")
    assert done.code == 1
    assert done.err == "archreg: /models/bad holds no tensors\n  check the file\n"


def test_all_of_several_failing_exits_with_3(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("ingest", "bad1", "bad2").code == 3


@pytest.mark.parametrize(("others", "code"), [([], 1), (["good"], 3)])
def test_a_reference_to_nothing_does_not_keep_the_others_out(
    others: list[str], code: int, archreg: Callable[..., Any], fake: Any
) -> None:
    def plan(references: list[str], **settings: Any) -> Plan:
        if references == ["missing"]:
            raise NotFoundError("nothing is there", "check the path")
        return Plan([ModelRef("file", references[0], references[0])])

    fake.answers["plan"] = plan
    done = archreg("ingest", "missing", *others, "--json")
    assert done.code == code
    assert "archreg: missing: nothing is there\n  check the path\n" in done.err
    document = done.document
    assert (document["failed"], document["added"]) == (1, len(others))
    assert document["models"][0] == {
        "reference": "missing",
        "name": "",
        "status": "failed",
        "seconds": 0.0,
        "weights_read": True,
        "message": "nothing is there",
        "remedy": "check the path",
        "notes": [],
    }


def test_an_unreadable_manifest_ends_it(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["plan"] = NotFoundError("no manifest at m.jsonl", "give a path")
    done = archreg("ingest", "--manifest", "m.jsonl")
    assert (done.code, done.out) == (1, "")
    assert "ingest_all" not in [call[0] for call in fake.calls]


def test_interruption_takes_the_progress_away(
    archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    monkeypatch.setattr(Bars, "end", lambda self: ended.append(self))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fake.answers["ingest_all"] = KeyboardInterrupt()
    assert archreg("ingest", "a").code == 130
    assert len(ended) == 1


def test_an_interruption_says_how_far_it_came(archreg: Callable[..., Any], fake: Any) -> None:
    interruption = KeyboardInterrupt()
    interruption.add_note("37 of 200 models are stored")
    fake.answers["ingest_all"] = interruption
    done = archreg("ingest", "a", "--quiet")
    assert done.code == 130
    assert done.err == (
        "archreg: interrupted: 37 of 200 models are stored\n"
        "  finished work is kept; run the same command again to continue\n"
    )


def test_lines_count_what_was_done_before(capsys: pytest.CaptureFixture[str]) -> None:
    ref = ModelRef("file", "/c", "c")
    lines = Lines()
    lines.begin([ref], [1.0], done=2)
    lines.done(ref, Ingested("/c", "c", "added", 0.1))
    assert capsys.readouterr().err.splitlines() == [
        "2 of 3 models were stored by an earlier start of this run.",
        "[3/3] c: added, 0.1 s",
    ]


def test_dry_run_does_nothing(archreg: Callable[..., Any], fake: Any) -> None:
    refs = (
        ModelRef("torchvision", "resnet18", "resnet18", bytes=46_000_000, cached=False),
        ModelRef("file", "/m/a.pt", "a", bytes=14_000_000),
        ModelRef("file", "/m/b.pt", "b"),
    )
    fake.answers["plan"] = Plan(refs, [LeftOut("training state", 2, ("optimizer.pt", "scaler.pt"))])
    done = archreg("ingest", "all", "--dry-run")
    assert done.code == 0
    assert "To read: 3 models, 60 MB and 1 of unknown size." in done.out
    assert "To download: 1 model, 46 MB." in done.out
    assert "Estimate without downloads: 2 s and 270 MB of memory in 2 worker processes." in done.out
    [estimated] = [call[2] for call in fake.calls if call[0] == "estimate"]
    assert estimated == {"approximate": False, "headers_only": False, "workers": None, "executor": None}
    assert any(
        line.split() == ["resnet18", "torchvision:resnet18", "46", "MB", "download"] for line in done.out.splitlines()
    )
    document = archreg("ingest", "all", "--dry-run", "--json").document
    assert (document["bytes"], document["download_bytes"], document["unknown_sizes"]) == (60_000_000, 46_000_000, 1)
    assert document["models"][0] == {
        "name": "resnet18",
        "source": "torchvision",
        "target": "resnet18",
        "bytes": 46_000_000,
        "cached": False,
        "estimate": {"seconds": 0.75, "memory": 150_000_000, "by_layers": True, "header_bytes": None},
    }
    assert (document["estimated_seconds"], document["estimated_memory"], document["workers"]) == (2.25, 270_000_000, 2)
    left = {"reason": "training state", "files": 2, "names": ["optimizer.pt", "scaler.pt"], "remedy": ""}
    assert document["left_out"] == [left]
    assert [line.split() for line in done.out.splitlines()][-1] == ["2", "training", "state", "optimizer.pt"]
    assert "ingest_all" not in [call[0] for call in fake.calls]


def test_the_bar_counts_bytes_models_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    refs = [
        ModelRef("file", str(i), f"model-{i}[red]", bytes=size) for i, size in enumerate((10_000_000, 30_000_000, None))
    ]
    bars = Bars()
    bars.begin(refs, [0.5, 2.0, 1.0], done=4)
    [task] = bars._bar.tasks  # type: ignore[union-attr]
    assert task.total == pytest.approx(3.5)
    for ref in refs:
        bars.start(ref)
    assert task.description == "model-0[red], model-1[red] and 1 more"
    bars.done(refs[0], Ingested("0", "model-0", "added", 0.1))
    bars.done(refs[1], Ingested("1", "", "failed", 0.1, "no tensors in 1"))
    assert task.completed == pytest.approx(2.5)
    assert task.description == "model-2[red]"
    assert task.fields["figures"].startswith("6/7 models")
    assert task.fields["figures"].endswith("1 failed")
    bars.end()
    bars.end()
    assert "archreg: no tensors in 1" in stream.getvalue()
    assert "model-2[red]" in stream.getvalue()


def test_it_ends_with_what_it_left_out_and_noted(archreg: Callable[..., Any], fake: Any) -> None:
    left = [
        LeftOut("a CoreML model", 1, ("net.mlmodel",), "ingest the model that it was converted from"),
        LeftOut("training state", 1_200, ("optimizer.pt", "scaler.pt", "scheduler.pt")),
    ]
    fake.answers["plan"] = lambda references, **_: Plan([ModelRef("file", f"/m/{references[0]}", "m")], left)
    fake.answers["ingest_all"] = (
        Ingested("/m/a", "a", "renewed", 0.5, notes=("3 weights of 9 were left out",)),
        Ingested("/m/b", "b", "failed", 0.5, "b is empty", "download it again"),
    )
    done = archreg("ingest", "a", "b", "--quiet")
    assert done.code == 3
    first, *lines = (" ".join(line.split()) for line in done.out.splitlines() if line.strip(" ─"))
    assert first == "Models: 1 measured anew, 1 failed."
    assert lines == [
        "files reason such as next",
        "read 1",
        "left out 2,400 training state optimizer.pt",
        "left out 2 a CoreML model net.mlmodel ingest the model that it was converted from",
        "failed 1 b is empty b download it again",
    ]
    assert done.err.splitlines() == ["a: 3 weights of 9 were left out."]
    document = archreg("ingest", "a", "--quiet", "--json").document
    assert document["renewed"] == 1
    assert document["models"][0]["notes"] == ["3 weights of 9 were left out"]
    assert document["left_out"][0]["files"] == 1_200


def test_notes_of_many_models_are_told_once(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["ingest_all"] = tuple(
        Ingested(f"/m/{at}", f"m{at}", "added", 0.5, notes=("one note", f"note {at}")) for at in range(12)
    )
    told = archreg("ingest", "a", "b", "--quiet").err.splitlines()
    assert told[0] == "m0 and 11 more: one note."
    assert told[-1] == "3 more notes: archreg show NAME lists those of a model."
    assert len(told) == 11
