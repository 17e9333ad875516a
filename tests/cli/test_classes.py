"""``archreg classes`` in words and as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from registry.errors import UnknownClassError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_in_words(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("classes")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[:3] == [
        "3 models: 1 equivalence class of several models, 1 model alone.",
        "Compared by layered v1, l1, tolerance 0.035.",
        "Linkage rule: complete linkage (all pairs within a class are within the tolerance).",
    ]
    [row] = [line for line in lines if line.startswith("c1a55c1a55c1")]
    assert " ".join(row.split()) == "c1a55c1a55c1 resnet32 2 0.03 trained long resnet, cifar10 resnet20, resnet32"
    assert "1.00 % of unrelated pairs pass" in lines[-1]
    assert "false passes are expected among the 3 pairs if all are unrelated" in lines[-1]
    assert done.err == "To show a class with all its members: archreg classes --class IDENTITY\n"


def test_what_rule_and_whether_to_keep(archreg: Callable[..., Any], fake: Any) -> None:
    archreg("classes", "--rule", "single", "--no-keep")
    asked = fake.called("classes")[1]
    assert (asked["rule"], asked["keep"]) == ("single", False)
    assert archreg("classes", "--rule", "ward").code == 2


def test_a_chain_says_how_wide_it_is(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    found = samples.answers["classes"]
    wide = replace(found.classes[0], diameter=0.2, bounded=True)
    fake.answers["classes"] = replace(found, rule="single", classes=(wide,), kept=False)
    done = archreg("classes")
    assert done.out.splitlines()[2] == (
        "Linkage rule: single linkage (each member is within the tolerance of at least one other). "
        "The largest diameter is <= 0.2."
    )
    assert done.err == ""
    fake.answers["classes"] = replace(found, classes=())
    assert archreg("classes").code == 0


def test_it_says_that_and_why_it_is_not_kept(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    note = "zoo.db: attempt to write a readonly database"
    fake.answers["classes"] = replace(samples.answers["classes"], kept=False, created="", note=note)
    done = archreg("classes")
    assert (done.code, done.err) == (0, f"The equivalence classes were not kept: {note}.\n")
    document = archreg("classes", "--json").document
    assert (document["kept"], document["created"], document["note"]) == (False, None, note)


def test_as_json(archreg: Callable[..., Any], fake: Any) -> None:
    document = archreg("classes", "--json").document
    assert {key: document[key] for key in ("distance", "tolerance", "rate", "rule", "searched", "kept", "created")} == {
        "distance": "l1",
        "tolerance": 0.035,
        "rate": 0.01,
        "rule": "complete",
        "searched": 3,
        "kept": True,
        "created": "2026-01-02T03:04:05+00:00",
    }
    first, alone = document["classes"]
    assert {key: first[key] for key in ("number", "identity", "medoid", "diameter", "bounded")} == {
        "number": 1,
        "identity": "c1a55c1a55c1",
        "medoid": "resnet32",
        "diameter": 0.03,
        "bounded": False,
    }
    assert first["shared"] == {"family": "resnet", "dataset": "cifar10"}
    assert [member["name"] for member in first["members"]] == ["resnet20", "resnet32"]
    assert alone["shared"] == {}


def test_one_class(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("classes", "--class", "c1a5")
    assert fake.called("partitions.get") == (("c1a5",), {})
    assert done.code == 0
    facts = dict(line.split(None, 1) for line in done.out.splitlines() if " " in line)
    assert facts["medoid"].strip() == "resnet32"
    assert facts["family"].strip() == "resnet"
    assert "dataset" in done.out
    assert sum(line.startswith(("resnet20 ", "resnet32 ")) for line in done.out.splitlines()) == 2
    assert archreg("classes", "--class", "c1a5", "--json").document["classes"][0]["identity"] == "c1a55c1a55c1"


def test_what_is_kept(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("classes", "--kept")
    [row] = [" ".join(line.split()) for line in done.out.splitlines() if "cover" in line]
    assert row == "12 2026-01-02 03:04:05 UTC layered v1, l1 0.035 cover 12,345 67 family resnet"
    [kept] = archreg("classes", "--kept", "--json").document["partitions"]
    assert (kept["scope"], kept["rule"], kept["models"], kept["classes"]) == ({"family": "resnet"}, "cover", 12345, 67)
    fake.answers["partitions.list"] = ()
    done = archreg("classes", "--kept")
    assert (done.code, done.out, done.err) == (0, "", "No equivalence classes are kept. Make them: archreg classes\n")


def test_what_was_kept_is_forgotten(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("classes", "--forget", "12")
    assert fake.called("partitions.forget") == ((12,), {})
    assert (done.code, done.out) == (
        0,
        "Forgot 1 equivalence class of 2 models (layered v1, l1, tolerance 0.035, complete, family vgg).\n",
    )
    assert archreg("classes", "--forget", "12", "--json").document["forgotten"]["id"] == 12
    fake.answers["partitions.forget"] = UnknownClassError("no partition is kept under the number 13", "see --kept")
    done = archreg("classes", "--forget", "13")
    assert (done.code, done.err) == (1, "archreg: no partition is kept under the number 13\n  see --kept\n")
    assert archreg("classes", "--forget", "0").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--class", "c1", "--kept"), "--kept cannot be combined with --class"),
        (("--class", "c1", "--family", "resnet"), "--family cannot be combined with --class"),
        (("--kept", "--max-params", "1M"), "--max-params cannot be combined with --kept"),
        (("--kept", "--rule", "single"), "--rule cannot be combined with --kept"),
        (("--kept", "--tolerance", "0.1"), "--tolerance cannot be combined with --kept"),
        (("--kept", "--distance", "l2"), "--distance cannot be combined with --kept"),
        (("--forget", "1", "--fingerprint", "layered"), "--fingerprint cannot be combined with --forget"),
        (("--class", "c1", "--no-keep"), "--keep/--no-keep cannot be combined with --class"),
        (("--forget", "1", "--kept"), "--kept cannot be combined with --forget"),
        (("--forget", "1", "--family", "resnet"), "--family cannot be combined with --forget"),
    ],
)
def test_what_does_not_go_together(archreg: Callable[..., Any], fake: Any, words: tuple[str, ...], said: str) -> None:
    done = archreg("classes", *words)
    assert done.code == 2
    assert said in done.err
    assert fake.calls == []


def test_show_names_the_class(archreg: Callable[..., Any], fake: Any) -> None:
    out = archreg("show", "resnet20").out
    assert "class c1a55c1a55c1 of 12 models (layered v1, l1, tolerance 0.035, complete)" in out
    [found] = archreg("show", "resnet20", "--json").document["memberships"]
    assert found["identity"] == "c1a55c1a55c1"
