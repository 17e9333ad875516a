"""Errors leave as one line, a remedy and an exit code."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from registry.cli.error_output import harmless
from registry.errors import EmptyRegistryError, RegistryError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownModelError("no model is named 'x'", "archreg list"), 1),
        (EmptyRegistryError("the registry is empty", "archreg ingest FILE..."), 1),
        (UsageError("tolerance must be positive", "--tolerance 0.05"), 2),
    ],
)
def test_deliberate_errors(error: RegistryError, code: int, archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["stats"] = error
    done = archreg("stats")
    assert done.code == code
    assert done.out == ""
    assert done.err == f"archreg: {error.message}\n  {error.remedy}\n"


def test_an_error_without_remedy_is_one_line(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["stats"] = RegistryError("no luck")
    assert archreg("stats").err == "archreg: no luck\n"


def test_unexpected_errors_show_one_line(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["stats"] = ZeroDivisionError("division\nby zero")
    done = archreg("stats")
    assert done.code == 1
    assert done.err.splitlines()[0] == "archreg: unexpected error: ZeroDivisionError: division by zero"
    assert "ARCHREG_DEBUG=1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), UnknownModelError("no model")])
def test_debug_shows_the_traceback(
    error: Exception, archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["stats"] = error
    assert "Traceback" in archreg("--debug", "stats").err
    assert "Traceback" not in archreg("stats").err
    monkeypatch.setenv("ARCHREG_DEBUG", "1")
    done = archreg("stats")
    assert "Traceback" in done.err
    assert done.code == 1


@pytest.mark.parametrize("note", ["", "3 of 4 models are stored"])
def test_interruption_says_how_to_go_on_where_work_was_kept(note: str, archreg: Callable[..., Any], fake: Any) -> None:
    interruption = KeyboardInterrupt()
    if note:
        interruption.add_note(note)
    fake.answers["stats"] = interruption
    done = archreg("stats")
    assert done.code == 130
    assert ("run the same command again" in done.err) == bool(note)
    assert "Traceback" not in done.err


def test_termination_cleans_up_like_an_interruption(archreg: Callable[..., Any], fake: Any) -> None:
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    fake.answers["stats"] = killed
    done = archreg("stats")
    assert done.code == 143
    assert done.err.startswith("archreg: terminated")
    assert fake.calls[-1][0] == "close"


@pytest.mark.parametrize(
    "words",
    [
        "nearest",
        "nearest x --k 0",
        "nearest x --max-params many",
        "nearest x --max-bytes -1",
        "nearest x --metric top1>92",
        "nearest x --tag stage",
        "nearest x --distance cosine",
        "nearest x --fingerprint other",
        "nearest x --tolerance nan",
        "nearest x --tolerance -1",
        "nearest x --nonsense",
        "compare x",
        "compress x --max-ratio 1.5",
        "compress x --max-ratio 0",
        "spectra x",
        "spectra x -o spectra.txt",
        "spectra x -o no/such/folder/x.npz",
        "distances -o -",
        "set x",
        "set x --metric top1",
        "set x --seed many",
        "tag x stage",
        "rename x",
        "rm x",
        "ingest",
        "ingest a b --name c",
        "ingest a --manifest m.jsonl",
        "ingest a --tag stage",
        "db",
        "db nonsense",
        "nonsense",
    ],
)
def test_wrong_usage(words: str, archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg(*words.split())
    assert done.code == 2
    assert done.err
    assert not {"nearest", "search", "ingest_all", "remove", "set", "set_metric", "tag"} & {
        call[0] for call in fake.calls
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet20", "resnet20"),
        ("réseau-网", "réseau-网"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b31m", r"\x9b31m"),
        ("left\u202eright", r"left\u202eright"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\udc80", r"\udc80"),
    ],
)
def test_harmless(text: str, expected: str) -> None:
    assert harmless(text) == expected
    assert harmless(text).isprintable()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nearest", "m", "--accuracy", "0.1"), "archreg: --accuracy is now --tolerance\n  write --tolerance 0.1\n"),
        (("index", "build", "--accuracy=1"), "archreg: --accuracy is now --tolerance\n  write --tolerance 0.1\n"),
        (("compare", "a", "b", "--metric", "l1"), "archreg: --metric is now --distance\n  write --distance l1\n"),
        (("index", "check", "--metric", "l2"), "archreg: --metric is now --distance\n  write --distance l1\n"),
    ],
)
def test_an_option_that_was_renamed_names_its_successor(
    archreg: Callable[..., Any], fake: Any, words: tuple[str, ...], message: str
) -> None:
    done = archreg(*words)
    assert (done.code, done.out, done.err) == (2, "", message)
    assert fake.calls == []


@pytest.mark.parametrize("distance", ["l1", "L2", "linf"])
def test_a_distance_is_no_bound_on_a_metric(archreg: Callable[..., Any], fake: Any, distance: str) -> None:
    done = archreg("nearest", "m", "--metric", distance)
    assert done.code == 2
    assert f"'{distance}' is not a bound on a metric; the distance is --distance {distance.lower()}" in done.err
    assert fake.calls == []


def test_the_fake_takes_what_the_registry_takes(fake: Any) -> None:
    """What a command gives to a method that does not take it fails here, too."""
    fake.index.check(k=3, queries=4)
    for call in (
        lambda: fake.index.check(count=3),
        lambda: fake.index.check(accuracy=3),
        lambda: fake.search("m", famly="resnet"),
        lambda: fake.runs.items(),
        lambda: fake.set("m", tags=()),
        lambda: fake.stats(1),
    ):
        with pytest.raises(TypeError):
            call()
    fake.search("m", family="resnet")
    fake.tag("m", any_key="value")
