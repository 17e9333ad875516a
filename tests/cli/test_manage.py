"""Changes, and the database itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from registry.types import Metric, OlderModels

if TYPE_CHECKING:
    from collections.abc import Callable


def test_set(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("set", "m", "--family", "vgg", "--seed", "0", "--licence", "", "--metric", "top1@cifar10/test=92.63")
    assert done.code == 0
    assert fake.called("set") == (("m",), {"family": "vgg", "seed": 0, "licence": ""})
    assert fake.called("set_metric") == (("m", Metric("top1", 92.63, "cifar10", "test")), {})


@pytest.mark.parametrize(("flag", "better"), [("--lower-is-better", False), ("--higher-is-better", True)])
def test_set_metrics_alone(flag: str, better: bool, archreg: Callable[..., Any], fake: Any) -> None:
    document = archreg("set", "m", "--metric", "loss=0.5", flag, "--json").document
    assert document["model"]["name"] == "m"
    assert fake.called("set_metric") == (("m", Metric("loss", 0.5, higher_is_better=better)), {})
    assert "set" not in [call[0] for call in fake.calls]


def test_tag(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("tag", "m", "a=1", "b=x=y", "--remove", "c").out == "Tags of m: a=1, b=x=y.\n"
    assert fake.called("tag") == (("m",), {"a": "1", "b": "x=y", "c": None})
    fake.calls.clear()
    assert archreg("tag", "m").out == "m has no tags.\n"
    assert fake.called("tag") == (("m",), {})
    assert archreg("tag", "m", "a=1", "--json").document == {"name": "m", "tags": {"a": "1"}}


def test_rename(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("rename", "old", "new").out.startswith("Renamed old to new")
    assert fake.called("rename") == (("old", "new"), {})
    assert archreg("rename", "old", "new", "--json").document["model"]["name"] == "new"


def test_rm_without_a_terminal_needs_yes(
    archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = archreg("rm", "m")
    assert done.code == 2
    assert "archreg rm m --yes" in done.err
    assert "remove" not in [call[0] for call in fake.calls]
    assert archreg("rm", "m", "--yes").out == "Removed m.\n"
    assert archreg("rm", "m", "--yes", "--json").document["removed"]["name"] == "m"


@pytest.mark.parametrize(
    ("answer", "removed"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yikes\n", False)],
)
def test_rm_asks_on_a_terminal(
    answer: str, removed: bool, archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    done = archreg("rm", "m")
    assert done.code == 0
    assert done.err.startswith("Remove m? [y/N] ")
    assert ("remove" in [call[0] for call in fake.calls]) is removed
    assert ("Nothing was removed." in done.err) is not removed


def test_refingerprint(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("refingerprint")
    assert done.out == "Computed 2 fingerprints and the conjugacy of 1 model.\n"
    assert done.err == "2/2 models\n"
    done = archreg("refingerprint", "--quiet", "--fingerprint", "mme")
    assert (done.out, done.err) == ("Computed 2 fingerprints.\n", "")
    assert fake.calls[-2][2] == {"fingerprint": "mme", "progress": None}
    assert archreg("refingerprint", "--json").document == {"computed": 2, "judged": 1}


def test_database(archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("db", "upgrade").out == "The database is at revision v0001.\n"
    assert fake.called("upgrade")[1] == {"from_revision": None}
    assert archreg("db", "current", "--json").document == {"revision": "v0001"}
    fake.answers["current"] = None
    assert "archreg db upgrade" in archreg("db", "current").out
    assert archreg("db", "check").out == "The database is sound.\n"
    fake.answers["check"] = ("3 spectra have no model",)
    damaged = archreg("db", "check")
    assert (damaged.code, damaged.out) == (1, "3 spectra have no model.\n")
    damaged = archreg("db", "check", "--json")
    assert damaged.code == 1
    assert damaged.document == {
        "problems": ["3 spectra have no model"],
        "outdated": None,
        "older": None,
        "read_again": None,
    }


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_models_without_sketches_are_listed(command: str, archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    fake.answers["to_read_again"] = (samples.summary("m1", location="/runs/a.pt"), samples.summary("m2"))
    assert archreg("db", command).err.splitlines() == [
        "Relations are unknown, and training classes by spectra alone, of 2 models: m1, m2.",
        "Read their weights again, by the command that ingested them: archreg ingest /runs/a.pt --name m1",
    ]
    document = archreg("db", command, "--json").document
    assert [each["name"] for each in document["read_again"]] == ["m1", "m2"]


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_what_an_older_version_stored_is_said(command: str, archreg: Callable[..., Any], fake: Any) -> None:
    assert archreg("db", command).err == ""
    fake.answers["outdated"] = 2
    done = archreg("db", command)
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err == "Some answers leave out 2 models of an older version. Update: archreg refingerprint\n"
    assert archreg("db", command, "--json").document["outdated"] == 2


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_models_of_an_older_rule_are_listed(command: str, archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    models = [samples.summary(f"m{at}", location="/runs/a b.pt" if at == 3 else "", entry="ema") for at in range(7)]
    fake.answers["older"] = OlderModels("rule-2", tuple(models))
    done = archreg("db", command)
    assert done.code == 0
    assert done.err.splitlines() == [
        "7 models of rule-1: m0, m1, m2, m3, m4 and 2 more. The present matrix rule is rule-2; models of different "
        "rules are not compared.",
        "Measure them anew by the command that ingested them, which keeps their names and metadata: "
        "archreg ingest '/runs/a b.pt' --name m3 --key ema",
    ]
    document = archreg("db", command, "--json").document
    assert document["older"][3] == {"name": "m3", "matrix_rule": "rule-1", "location": "/runs/a b.pt"}
    fake.answers["older"] = OlderModels("rule-2", tuple(models[:1]))
    assert "archreg ingest FILE_OR_FOLDER" in archreg("db", command).err
