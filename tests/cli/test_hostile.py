"""All of the hostile corpus through the command line: one failed item each, the good ones stored, nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tests.sources.corpus import HARMLESS, HOSTILE, make_corpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


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
    assert (done.document["added"], done.document["failed"]) == (len(HARMLESS), len(HOSTILE))
    failed = {model["name"].split("/")[1]: model for model in models if model["status"] == "failed"}
    assert set(failed) == {hostile.name for hostile in HOSTILE}
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
    assert archreg("db", "check").out == "the database is sound\n"

    assert tree(tmp_path / "files") == before
    assert list(working.iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["secret.safetensors"]


def test_an_index_that_is_refused_ends_with_1(archreg: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../b.safetensors"}}))
    done = archreg("ingest", str(tmp_path), "--db", str(tmp_path / "x.db"), "--quiet")
    assert done.code == 1
    assert done.err.splitlines()[1:] == ["  download the index again, with all its shards"]
    assert not (tmp_path / "x.db").exists()
