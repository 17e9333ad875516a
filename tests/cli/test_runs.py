"""The journal as it is shown, and running again what failed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_list(archreg: Callable[..., Any], fake: Any) -> None:
    heading, row = archreg("runs", "list").out.splitlines()
    assert heading.split() == ["run", "state", "started", "stored", "failed", "waiting", "command"]
    assert row.split() == ["7", "died", "2026-01-02", "03:04:05", "UTC", "1", "1", "1", "archreg", "ingest", "models/"]
    [run] = archreg("runs", "list", "--json").document["runs"]
    assert (run["id"], run["state"], run["items"], run["failed"]) == (7, "died", 3, 1)


def test_a_long_list_ends_and_says_so(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    runs = [replace(samples.run, id=number) for number in range(30, 0, -1)]
    fake.answers["runs.list"] = lambda limit=None: tuple(runs[:limit])
    done = archreg("runs", "list")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [str(number) for number in range(30, 10, -1)]
    assert done.err == "There are older runs. Show them: archreg runs list -k 200\n"
    done = archreg("runs", "list", "-k", "30", "--json")
    assert (len(done.document["runs"]), done.err) == (30, "")


def test_forget(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("runs", "forget", "7").out == "Forgot 1 run.\n"
    assert fake.called("runs.forget") == ((7,), {"older_than": None})
    assert archreg("runs", "forget", "--older-than", "0.5", "--json").document == {"forgotten": 1}
    for words in ((), ("7", "--older-than", "1"), ("--older-than", "-1")):
        assert archreg("runs", "forget", *words).code == 2


def test_show(archreg: Callable[..., Any], fake: Any) -> None:
    lines = archreg("runs", "show").out.splitlines()
    assert lines[0] == "Run 7, died: archreg ingest models/"
    assert lines[2] == "Models: 1 stored, 1 failed, 1 waiting."
    assert [line.split()[0] for line in lines[4:]] == ["a", r"b\x1b[2J", "c"]
    assert lines[5].endswith("b holds no tensors")
    document = archreg("runs", "show", "7", "--json").document
    assert document["run"]["state"] == "died"
    assert [item["state"] for item in document["items"]] == ["added", "failed", "waiting"]


def test_failures(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("runs", "failures")
    assert (done.code, done.err) == (0, "To retry them: archreg runs retry 7\n")
    assert done.out.splitlines()[1].split("  ")[-1].strip() == "check the file"
    assert [item["remedy"] for item in archreg("runs", "failures", "--json").document["items"]] == ["check the file"]
    fake.answers["runs.items"] = ()
    assert archreg("runs", "failures").out == "Nothing failed in run 7.\n"


def test_retry(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("runs", "retry", "--workers", "3", "--quiet").out == "Models: 1 added.\n"
    arguments, settings = fake.called("runs.retry")
    assert arguments == (7,)
    assert (settings["workers"], settings["executor"], settings["address"]) == (3, None, None)
    fake.answers["runs.retry"] = lambda *_run, **_settings: fake.answers["outcomes"]
    fake.answers["outcomes"] = ()
    assert archreg("runs", "retry").out == "No models to read.\n"


@pytest.mark.parametrize("words", ["list", "show", "failures", "retry"])
def test_without_any_run(words: str, archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["runs.list"] = ()
    done = archreg("runs", words)
    assert (done.code, done.out.replace("No models to read.\n", "")) == (0, "")
    assert "There are no runs yet. Start one: archreg ingest REF..." in done.err


def test_no_such_run(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["runs.get"] = UsageError("there is no run 9", "archreg runs list shows those there are")
    done = archreg("runs", "failures", "9")
    assert (done.code, done.out) == (2, "")
    assert done.err == "archreg: there is no run 9\n  archreg runs list shows those there are\n"
