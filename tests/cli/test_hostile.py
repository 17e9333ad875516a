"""All of the hostile corpus through the command line: one failed item each, the good ones stored, nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch

from tests.sources.corpus import HARMLESS, HOSTILE, hanging, make_corpus, sound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


# Bare pickles in which no array is seen, so that a scan leaves them out; given themselves they are refused.
LEFT_OUT = {"runs-bare", "runs-newest"}


def tree(folder: Path) -> list[str]:
    return sorted(os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)  # noqa: PTH118


def test_hostile_files_fail_one_by_one(
    archreg: Callable[..., Any], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, outside = make_corpus(tmp_path / "files")
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("ARCHREG_DB", database_url)
    before = tree(tmp_path / "files")

    done = archreg("ingest", str(corpus), "--json")
    assert done.code == 3
    models = done.document["models"]
    assert (done.document["added"], done.document["failed"]) == (len(HARMLESS), len(HOSTILE) - len(LEFT_OUT))
    failed = {model["name"].split("/")[1]: model for model in models if model["status"] == "failed"}
    assert set(failed) == {hostile.name for hostile in HOSTILE} - LEFT_OUT
    assert all(model["message"] and model["remedy"] for model in failed.values())
    # A terminal is told nothing that it would act on.
    assert all(sign.isprintable() or sign == "\n" for sign in done.err + done.out)

    listed = archreg("list", "--json").document["models"]
    assert len(listed) == len(HARMLESS)
    assert {model["name"].split("/")[0] for model in listed} == {"good"}
    for words in (("list",), ("show", "good/odd", "--layers"), ("stats",), ("nearest", "good/odd", "-k", "3")):
        shown = archreg(*words)
        assert shown.code == 0
        assert all(sign.isprintable() or sign == "\n" for sign in shown.out + shown.err)
    assert "[bold]markup[/bold]" in archreg("show", "good/odd", "--layers").out
    assert archreg("db", "check").out == "The database is sound.\n"

    assert tree(tmp_path / "files") == before
    assert list(working.iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["secret.safetensors"]


def test_a_file_that_hangs_is_one_failed_item(
    archreg: Callable[..., Any], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", database_url)
    for seed in (1, 2, 3):
        torch.save(sound(seed), tmp_path / f"m{seed}.pt")
    hanging(tmp_path / "m2.pt")
    done = archreg("ingest", str(tmp_path), "--time-limit", "3", "--quiet")
    assert (done.code, done.out.splitlines()[0]) == (3, "Models: 2 added, 1 failed.")
    message = f"{tmp_path / 'm2.pt'} took longer than its limit of 3 s and was stopped"
    remedy = "if the file is valid, set a longer limit: --time-limit SECONDS, 0 for no limit"
    assert done.err == f"archreg: {message}\n  {remedy}\n"
    [item] = archreg("runs", "failures", "--json").document["items"]
    assert (item["name"], item["attempts"], item["message"], item["remedy"]) == ("m2", 1, message, remedy)
    assert item["seconds"] == 3.0
    torch.save(sound(2), tmp_path / "m2.pt")
    again = archreg("ingest", str(tmp_path), "--time-limit", "60", "--workers", "1", "--quiet")
    assert (again.code, again.out.splitlines()[0]) == (0, "Models: 1 added, 2 already stored.")
    # One reference alone is read in a process that can be killed as well, and leaves no database behind.
    hanging(tmp_path / "m2.pt")
    alone = archreg("ingest", str(tmp_path / "m2.pt"), "--time-limit", "1", "--quiet", "--db", str(tmp_path / "x.db"))
    assert alone.code == 1
    assert not (tmp_path / "x.db").exists()


def test_a_limit_takes_a_process(archreg: Callable[..., Any], tmp_path: Path) -> None:
    torch.save(sound(), tmp_path / "m.pt")
    refused = archreg("ingest", str(tmp_path), "--time-limit", "1", "--executor", "inprocess")
    assert refused.code == 2
    assert "the executor inprocess cannot stop a model at a time limit" in refused.err


def test_an_index_that_is_refused_ends_with_1(archreg: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../b.safetensors"}}))
    done = archreg("ingest", str(tmp_path), "--db", str(tmp_path / "x.db"), "--quiet")
    assert done.code == 1
    assert done.err.splitlines()[1:] == ["  download the index again, with all its shards"]
    assert not (tmp_path / "x.db").exists()
