"""``nearest`` of several, and the commands of the index."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.errors import UnknownModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_several_in_one_call(archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = archreg("nearest", "a", "b", "--json")
    assert [each["query"] for each in done.document["queries"]] == ["a", "b"]
    assert done.document["queries"][0]["neighbours"]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\n two words \n"))
    done = archreg("nearest", "-", "--json")
    assert [each["query"] for each in done.document["queries"]] == ["one", "two words"]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    assert [each["query"] for each in archreg("nearest", "-", "--json").document["queries"]] == ["one"]
    shown = archreg("nearest", "a", "b").out
    assert "Models nearest to a, compared by " in shown
    assert "Models nearest to b, compared by " in shown
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    done = archreg("nearest", "-")
    assert (done.code, done.err.splitlines()[0]) == (2, "archreg: standard input contains no model")


def test_one_that_fails_does_not_keep_the_others_back(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    whole = samples.answers["search"]

    def search(query: str, **wanted: Any) -> Any:
        if query == "bad":
            raise UnknownModelError("no model is named 'bad'", "did you mean bat?")
        return whole(query, **wanted)

    fake.answers["search"] = search
    done = archreg("nearest", "a", "bad", "b", "--json")
    assert done.code == 3
    first, failed, last = done.document["queries"]
    assert (first["query"], last["query"]) == ("a", "b")
    assert failed == {"query": "bad", "error": "no model is named 'bad'", "remedy": "did you mean bat?"}
    assert "no model is named 'bad'" in done.err
    assert archreg("nearest", "bad").code == 1


def test_what_is_said_of_the_search(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    found = replace(samples.answers["search"](), unknown=1200, indexed=True)
    fake.answers["search"] = found
    done = archreg("nearest", "a", "--radius", "0.1", "--exact")
    assert "1,200 models were left out: a filtered value is unknown." in done.out
    assert "--exact searches all." in done.out
    assert fake.called("search")[1]["radius"] == 0.1
    assert fake.called("search")[1]["exact"] is True
    fake.answers["search"] = replace(found, indexed=False, note="the index is behind the vectors")
    done = archreg("nearest", "a")
    assert "the index is behind the vectors" in done.err
    assert archreg("nearest", "a", "--json").document["note"] == "the index is behind the vectors"


def test_index(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    assert "The index holds 163 layered fingerprints for the distance l1." in archreg("index", "build").out
    fake.answers["index.build"] = None
    done = archreg("index", "build", "--distance", "l2")
    assert (done.code, done.out) == (0, "Searches in a SQLite file are exact and need no index.\n")
    assert archreg("index", "build", "--json").document["built"] is False
    sound = samples.answers["index.check"]
    done = archreg("index", "check")
    assert done.code == 0
    assert "163 of 163 vectors, 0 missing, 0 extra." in done.out
    assert "It finds 98.8 % of the 10 nearest, over 100 queries." in done.out
    fake.answers["index.check"] = replace(sound, held=161, missing=2, remedy="run: archreg index build")
    done = archreg("index", "check")
    assert (done.code, done.out.splitlines()[-1]) == (1, "Searches with it can miss models: run: archreg index build")
    behind = replace(sound, missing=2, recall=None, problem="the index is behind", remedy="build it")
    fake.answers["index.check"] = behind
    done = archreg("index", "check")
    assert done.code == 1
    assert "It is not used: the index is behind; build it" in done.out
    assert archreg("index", "check", "--json").document["index"]["recall"] is None
    fake.answers["index.check"] = None
    assert archreg("index", "check").out == "There is no such index; every search is exact.\n"
    assert archreg("index", "drop").out == "Dropped the indexes of 1 fingerprint.\n"
    assert archreg("index", "build", "--distance", "linf").code == 2
