"""Answers: JSON documents, tables and sentences."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.cli import json_output, tables
from registry.errors import EmptyRegistryError
from registry.types import Choice, Decay, Metric, MetricBound, ModelSummary, Neighbour, Removal, Search, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_nearest_in_words(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("nearest", "resnet20", "-k", "5")
    assert done.code == 0
    assert "layered v1, l1, tolerance 0.035" in done.out
    resnet32, vgg11 = (line for line in done.out.splitlines() if line.startswith(("resnet32", "vgg11")))
    assert "0.021" in resnet32
    assert "99.6 %" in resnet32
    assert "269,722" in resnet32
    assert "top1 92.63 (cifar10 test)" in resnet32
    assert " equivalent" in resnet32
    assert "not equivalent: distance 0.5 exceeds 0.035" in vgg11
    # 0.4 % of 163
    assert "0.40 % of unrelated pairs pass" in done.out
    assert "0.652 false passes are expected among the 163 models searched" in done.out


def test_nearest_as_json(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    document = archreg("nearest", "resnet20", "--json").document
    assert {key: document[key] for key in ("query", "distance", "tolerance", "rate", "searched")} == {
        "query": "resnet20",
        "distance": "l1",
        "tolerance": 0.035,
        "rate": 0.004,
        "searched": 163,
    }
    assert document["fingerprint"] == {
        "name": "layered",
        "version": 1,
        "label": "layered v1",
        "hash": samples.spec.hash,
    }
    first, second = document["neighbours"]
    assert (first["name"], first["distance"], first["equivalent"]) == ("resnet32", 0.021, True)
    assert first["metrics"][0]["name"] == "top1"
    assert second["equivalent"] is False
    assert second["reasons"] == ["distance 0.5 exceeds 0.035"]
    assert set(first) >= set(ModelSummary.__slots__) - {"catalogue", "registries"} | set(Verdict.__slots__)
    assert not {"catalogue", "registries"} & set(first)  # of other questions alone


def test_every_filter_reaches_the_registry(archreg: Callable[..., Any], fake: Any) -> None:
    words = [
        "--family",
        "resnet",
        "--architecture",
        "resnet20",
        "--task",
        "vision",
        "--dataset",
        "cifar10",
        "--licence",
        "MIT",
        "--min-params",
        "1k",
        "--max-params",
        "1.5M",
        "--min-bytes",
        "1Ki",
        "--max-bytes",
        "2GB",
        "--max-gflops",
        "0.5",
        "--metric",
        "top1@cifar10>=92",
        "--metric",
        "loss<=1",
        "--tag",
        "stage=production",
        "--tag",
        "owner=vision",
        "--related-to",
        "resnet32",
        "--unrelated-to",
        "./new.pt",
    ]
    expected = {
        "family": "resnet",
        "architecture": "resnet20",
        "task": "vision",
        "dataset": "cifar10",
        "licence": "MIT",
        "min_params": 1000,
        "max_params": 1_500_000,
        "min_bytes": 1024,
        "max_bytes": 2 * 10**9,
        "max_gflops": 0.5,
        "metrics": (MetricBound("top1", 92.0, None, "cifar10"), MetricBound("loss", None, 1.0)),
        "tags": (("stage", "production"), ("owner", "vision")),
        "related_to": "resnet32",
        "unrelated_to": "./new.pt",
    }
    question = {"fingerprint": "mme", "distance": "l2", "tolerance": 0.1, "assume_trained": True}
    asked = ("--fingerprint", "mme", "--distance", "l2", "--tolerance", "0.1", "--assume-trained")
    archreg("list", *words)
    assert fake.called("models")[1] == expected
    archreg("nearest", "x", "-k", "3", "--equivalent", *asked, *words)
    assert fake.called("search") == (
        ("x",),
        {"k": 3, "radius": None, "equivalent": True, "exact": False, "relations": True} | question | expected,
    )
    archreg("classes", *asked, *words)
    assert fake.called("classes")[1] == question | expected | {"rule": None, "keep": True}
    archreg("compress", "x", "--max-ratio", "0.5", *asked, *words)
    assert fake.called("compress") == (
        ("x",),
        {"max_ratio": 0.5, "k": 10, "explain": False, "relations": True} | question | expected,
    )


def test_without_filters_none_reach_the_registry(archreg: Callable[..., Any], fake: Any) -> None:
    archreg("list")
    assert fake.called("models") == ((), {})
    archreg("compare", "a", "b")
    asked = {"fingerprint": "layered", "distance": None, "tolerance": None, "strict": False, "assume_trained": False}
    assert fake.called("compare") == (("a", "b"), {**asked, "audited": True})


def test_compare_strictly(archreg: Callable[..., Any], fake: Any) -> None:
    archreg("compare", "a", "b", "--strict", "--assume-trained")
    assert fake.called("compare")[1]["strict"] is True
    assert fake.called("compare")[1]["assume_trained"] is True


@pytest.mark.parametrize("assumed", [False, True])
@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("nearest", "x"), "search"),
        (("compress", "x"), "compress"),
        (("select",), "select"),
        (("classes",), "classes"),
    ],
)
def test_undetermined_models_are_assumed_to_be_trained_where_it_is_asked(
    words: tuple[str, ...], asked: str, assumed: bool, archreg: Callable[..., Any], fake: Any, samples: Any
) -> None:
    sample = samples.answers[asked]
    fake.answers[asked] = replace(sample("x") if callable(sample) else sample, assume_trained=assumed)
    option = ("--assume-trained",) if assumed else ()
    told = archreg(*words, *option).out
    assert ("Models of undetermined training class were judged as trained." in told) is assumed
    assert fake.called(asked)[1]["assume_trained"] is assumed
    assert archreg(*words, *option, "--json").document["assume_trained"] is assumed


def test_nothing_found_is_no_error(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    found = fake.answers["search"] = Search(
        samples.summary(), samples.spec, "l1", 0.035, 0.01, 0, (), samples.calibration
    )
    assert "No other model matches the filters." in archreg("nearest", "x").out
    fake.answers["search"] = replace(found, searched=7, radius=0.5)
    assert "No model is equivalent within the tolerance." in archreg("nearest", "x", "--equivalent").out
    assert "No model is within the radius 0.5." in archreg("nearest", "x", "--radius", "0.5").out
    done = archreg("nearest", "x", "--json")
    assert done.code == 0
    assert done.document["neighbours"] == []


def test_compare(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("compare", "resnet20", "resnet32")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "resnet20 and resnet32 are equivalent."
    assert (
        lines[6] == "The distance 0.021 is within the tolerance 0.035; 99.6 % of unrelated pairs are farther apart "
        "(calibrated on 163 published models of 20 families)."
    )
    assert "Distances: l1 0.021, l2 0.004, linf 0.002." in lines[7]
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["question", "answer", "evidence"],
        ["same", "weights?", "no"],
        ["related?", "related", "a"],
        ["equivalent?", "yes", "distance"],
        ["sound?", "no", "resnet20:"],
    ]
    assert "correlation 0.83 +- 0.02 over 14 layers with 97.0 % of the weights" in lines[3]
    assert lines[4].endswith("distance 0.021, tolerance 0.035; both trained")
    assert lines[5].endswith("resnet20: 1 error; resnet32: nothing found (archreg audit shows them)")
    assert any(line.split() == ["tail", "class", "long", "long"] for line in lines)
    document = archreg("compare", "resnet20", "resnet32", "--json").document
    assert document["equivalent"] is True
    assert document["distance"] == 0.021
    assert document["tolerance"] == 0.035
    assert (document["same_weights"], document["relation"]["verdict"]) == ("no", "related")
    assert [each["rule"] for each in document["findings"]["a"]] == ["rank"]
    assert document["findings"]["b"] == []
    assert (document["relation"]["correlation"], document["relation"]["layers"]) == (0.83, 14)
    assert document["distances"] == {"l1": 0.021, "l2": 0.004, "linf": 0.002}
    for side, name in (("a", "resnet20"), ("b", "resnet32")):
        assert document[side]["name"] == name
        assert document[side]["training_class"] == "trained"
        assert document[side]["tail_class"] == "long"
        assert document[side]["conjugacy"]["tail"] == {"0.01": 5.5, "0.02": 4.5, "0.05": 3.5}


def test_compare_says_where_two_models_differ(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    lines = archreg("compare", "resnet20", "resnet32").out.splitlines()
    assert lines[8:13] == [
        "Spectra differ most at x = 1.31: 12.3 % more of resnet32 than of resnet20 lies below. "
        "By depth, they differ most near 0.8, by 0.21 decades of x.",
        "Layers that differ most from the other network at the same depth (decades of x):",
        "  resnet20: fc.weight (0.41 at 1.00), conv1.weight (0.2 at 0.00)",
        "  resnet32: head.weight (0.5 at 1.00)",
        "Shares of the layered l1 distance: shapes 25.0 %, spectra 75.0 %.",
    ]
    document = archreg("compare", "resnet20", "resnet32", "--json").document["contrast"]
    assert (document["location"], document["difference"]) == (1.31, -0.123)
    assert document["layers_b"] == [{"name": "head.weight", "position": 31, "depth": 1.0, "distance": 0.5}]
    assert document["shares"] == {"shapes": 0.25, "spectra": 0.75}

    differing = samples.answers["compare"]("a", "b")
    fake.answers["compare"] = replace(differing, contrast=None)
    assert "are not stored." in archreg("compare", "a", "b").out.splitlines()[8]
    assert archreg("compare", "a", "b", "--json").document["contrast"] is None
    none = replace(differing.contrast, difference=0.0, layers_a=(), layers_b=(), shares=(("shapes", 0.0),))
    fake.answers["compare"] = replace(differing, contrast=none)
    assert archreg("compare", "a", "b").out.splitlines()[8] == "Their spectra and shapes are the same."


@pytest.mark.parametrize(
    ("decay", "words"),
    [
        (Decay("power", 4.2, 1412, 0.4, 2.43, 3.1), "power law, exponent 2.43 (Vuong 3.1, 1,412 eigenvalues"),
        (Decay("exponential", 4.2, 30, 0.4, 2.43, -3.1), "exponential, rate 0.4 (Vuong -3.1, 30 eigenvalues beyond"),
        (
            Decay("undecided", 4.2, 30, 0.4, 2.43, 0.5),
            "undecided: exponential, rate 0.4 or power law, exponent 2.43 (Vuong 0.5, 30 eigenvalues beyond x = 4.2)",
        ),
        (Decay("undecided", 4.2, 3), "undecided: 3 eigenvalues beyond x = 4.2 are too few to decide"),
        (Decay("undecided", 4.2, 1), "undecided: 1 eigenvalue beyond x = 4.2 is too few to decide"),
    ],
)
def test_show_says_how_the_tail_decays(
    archreg: Callable[..., Any], fake: Any, samples: Any, decay: Decay, words: str
) -> None:
    shown = samples.answers["show"]("x")
    fake.answers["show"] = replace(shown, conjugacy=replace(shown.conjugacy, decay=decay))
    assert words in archreg("show", "x").out
    document = archreg("show", "x", "--json").document["conjugacy"]["decay"]
    assert document == {name: getattr(decay, name) for name in Decay.__slots__}
    for conjugacy in (None, replace(shown.conjugacy, decay=None)):
        fake.answers["show"] = replace(shown, conjugacy=conjugacy)
        assert "decays" not in archreg("show", "x").out


def test_show_says_what_the_classes_mean(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    shown = samples.answers["show"]("x")
    out = archreg("show", "x").out
    assert "trained: outside the 99 % band of Gaussian networks of the same shapes (12.5 times its width)" in out
    assert "long: the tail extends beyond that of uncorrelated weights" in out
    # x*(0.01) of Gaussian weights is 3; that of the others is not known here.
    assert (
        "x = 5.5 within 0.01 (1.83 times as far as Gaussian weights), x = 4.5 within 0.02, x = 3.5 within 0.05" in out
    )
    other = replace(
        shown.conjugacy, z=0.5, tail_class="edge", training_class="untrained", wishart_tail=((0.01, 5.5), (0.02, 3.0))
    )
    fake.answers["show"] = replace(shown, conjugacy=other)
    out = archreg("show", "x").out
    assert "untrained: within the 99 % band of Gaussian networks of the same shapes (0.5 times its width)" in out
    assert "edge: the tail ends where that of uncorrelated weights ends" in out
    assert "x = 5.5 within 0.01 (1 times as far as Gaussian weights), x = 4.5 within 0.02 (1.5), x = 3.5" in out
    fake.answers["show"] = replace(shown, conjugacy=None)
    assert "Gaussian" not in archreg("show", "x").out


def test_weights_that_were_not_read_are_not_called_sound(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    shown, compared = samples.answers["show"]("x"), samples.answers["compare"]("x", "y")
    fault, header = compared.findings_a[0], replace(shown.summary, weights_read=False)

    def told(command: str, *asked: str) -> str:
        [line] = [" ".join(row.split()) for row in archreg(command, *asked).out.splitlines() if row.startswith("sound")]
        return line

    fake.answers["show"] = replace(shown, rules=("config",))
    assert told("show", "x") == "sound yes: nothing found by 1 rule"
    fake.answers["show"] = replace(shown, summary=header, rules=("config",))
    assert told("show", "x") == "sound not known: the weights were not read; nothing found by 1 rule"
    fake.answers["show"] = replace(shown, summary=header, rules=("config",), findings=(fault,))
    assert told("show", "x") == "sound no: 1 error by 1 rule; archreg audit x"

    fake.answers["compare"] = replace(compared, findings_a=())
    assert told("compare", "x", "y").startswith("sound? yes")
    fake.answers["compare"] = replace(compared, b=replace(compared.b, weights_read=False), findings_a=())
    assert told("compare", "x", "y") == "sound? not known x: nothing found; y: weights not read, nothing found"
    fake.answers["compare"] = replace(compared, b=replace(compared.b, weights_read=False))
    assert told("compare", "x", "y").startswith("sound? no x: 1 error; y: weights not read")


def test_compare_says_how_a_file_is_audited(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    compared = samples.answers["compare"]("x", "y")
    file = replace(compared.b, id=0, location="/runs/my net.pt")
    for b, told in ((file, "y was not audited: archreg audit '/runs/my net.pt'"), (compared.b, "y was not audited")):
        fake.answers["compare"] = replace(compared, b=b, findings_a=(), findings_b=None)
        [line] = [line for line in archreg("compare", "x", "y").out.splitlines() if line.startswith("sound?")]
        assert line.endswith(f"x: nothing found; {told}")


def test_compare_of_unequal_models_is_no_error(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    equal = samples.answers["compare"]("a", "b")
    why = ("one is trained, the other untrained",)
    fake.answers["compare"] = replace(equal, verdict=samples.verdict(0.02, equivalent=False, reasons=why))
    done = archreg("compare", "a", "b")
    assert done.code == 0
    assert "a and b are not equivalent: one is trained, the other untrained." in done.out
    assert archreg("compare", "a", "b", "--json").document["equivalent"] is False
    # Just beyond the tolerance, by digits that tell; the distance is said once.
    far = samples.verdict(0.03500042, equivalent=False, reasons=("distance 0.035 beyond the tolerance 0.035",))
    fake.answers["compare"] = replace(equal, verdict=far)
    first, _, _, _, _, _, second, *_ = archreg("compare", "a", "b").out.splitlines()
    assert first == "a and b are not equivalent: too far."
    assert second.startswith("The distance 0.0350004 is beyond the tolerance 0.035; ")
    nearly = samples.verdict(float(np.nextafter(0.035, 1)), equivalent=False)
    fake.answers["compare"] = replace(equal, verdict=nearly)
    assert f"The distance {nearly.distance!r} is beyond the tolerance 0.035; " in archreg("compare", "a", "b").out


def test_classes_of_a_model_that_is_not_stored_come_from_its_conjugacy(
    archreg: Callable[..., Any], fake: Any, samples: Any
) -> None:
    equal = samples.answers["compare"]("a", "b")
    fake.answers["compare"] = replace(equal, a=replace(equal.a, tail_class="", training_class=""), conjugacy_b=None)
    document = archreg("compare", "a", "b", "--json").document
    assert document["a"]["tail_class"] == "long"
    assert document["b"]["tail_class"] == "long"
    assert document["b"]["conjugacy"] is None


def test_select(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    words = ("--aim", "max:top1@cifar10", "--aim", "min:params", "--like", "resnet56", "-k", "1", "--licence", "MIT")
    done = archreg("select", *words, "--tolerance", "0.1")
    assert fake.called("select") == (
        (),
        {
            "aims": ("max:top1@cifar10", "min:params"),
            "like": "resnet56",
            "k": 1,
            "fingerprint": "layered",
            "distance": None,
            "tolerance": 0.1,
            "assume_trained": False,
            "licence": "MIT",
        },
    )
    lines = done.out.splitlines()
    assert lines[:3] == [
        "9 of 163 models pass the constraints.",
        "5 models were left out: top1@cifar10/test is unknown.",
        "Pareto front (highest top1@cifar10/test and fewest parameters): 3 models in 2 equivalence classes.",
    ]
    assert lines[3].split()[:4] == ["name", "top1@cifar10/test", "parameters", "size"]
    assert lines[4].split()[:3] == ["resnet8", "87.5", "78,042"]
    assert lines[5].startswith("  resnet20")
    assert lines[6] == "1 equivalence class is not shown; -k shows more."
    assert lines[7].endswith("tolerance 0.035, calibrated on 163 published models of 20 families.")
    document = archreg("select", "--json").document
    assert document["aims"] == ["max top1@cifar10/test", "min parameters"]
    [group] = document["classes"]
    assert (group["name"], group["aims"]["max top1@cifar10/test"], group["distance"]) == ("resnet8", 87.5, None)
    assert [other["name"] for other in group["others"]] == ["resnet20"]
    assert (document["unknown"], document["calibration"]["models"]) == ({"max top1@cifar10/test": 5}, None)

    found = replace(samples.answers["select"], like=samples.summary("resnet56"), searched=162, count=1)
    fake.answers["select"] = found
    done = archreg("select", "--like", "resnet56")
    assert "9 of 163 models pass and are equivalent to resnet56." in done.out
    fake.answers["select"] = replace(found, passed=1)
    done = archreg("select", "--like", "runs/cnn.pth")
    assert done.out.startswith("1 of 163 models passes and is equivalent to runs/cnn.pth (stored as resnet56).\n")
    unread = replace(samples.summary("resnet56"), weights_read=False, created="")
    fake.answers["select"] = replace(found, like=unread)
    done = archreg("select", "--like", "runs/cnn.pth")
    assert "9 of 163 models pass and are alike in shapes to resnet56 (weights not compared)." not in done.out
    assert "9 of 163 models pass and are alike in shapes to resnet56 (weights not read)." in done.out
    assert "0.599 false passes are expected among the 162 models searched" in done.out


def test_select_says_what_left_nothing(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    removals = (Removal("family resnte", 163, 4, near=("resnet",)), Removal("licence MIT", 60, 0))
    fake.answers["select"] = replace(
        samples.answers["select"], passed=0, classes=(), count=0, on_front=0, removals=removals, aims=(), unknown=()
    )
    done = archreg("select", "--family", "resnte", "--licence", "MIT")
    assert done.code == 0
    assert done.out.splitlines() == [
        "0 of 163 models pass the constraints.",
        "constraint     removes  pass without it",
        "family resnte      163                4",
        "licence MIT         60                0",
        "No model has family resnte. Similar: resnet.",
        "Without 'family resnte', 4 models would pass.",
    ]
    assert archreg("select", "--json").document["removals"][0]["near"] == ["resnet"]
    fake.answers["select"] = replace(fake.answers["select"], removals=(Removal("a", 9, 0), Removal("b", 9, 0)))
    assert archreg("select").out.endswith("No model passes without any single constraint: drop more than one.\n")


def test_calibrate(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    done = archreg("calibrate", "--rate", "0.02", "--seed", "4", "--distance", "l2")
    assert fake.called("calibrate") == (
        (), {"rate": 0.02, "seed": 4, "dry_run": False, "fingerprint": "layered", "distance": "l2"},
    )  # fmt: skip
    lines = done.out.splitlines()
    assert lines[0] == (
        "New: tolerance 0.04 (95 % interval 0.03 to 0.05) at a rate of 1 %, "
        "calibrated on 812 models of this registry, of 31 families, 2026-01-02."
    )
    assert lines[1].startswith("Previous: tolerance 0.035 (too few families for an interval)")
    assert lines[2] == "3 models without a family were left out."
    assert "same family" in done.out
    assert "73.0 %" in done.out
    assert lines[-1] == "The new calibration is stored and in use."
    document = archreg("calibrate", "--json").document
    assert (document["calibration"]["tolerance_low"], document["calibration"]["resolution"]) == (0.03, 0.001)
    assert document["calibration"]["quantiles"][-1] == [1.0, 1.0]
    assert "quantiles" not in document["previous"]
    assert [relation["name"] for relation in document["relations"]] == ["unrelated", "same family"]
    assert document["stored"] is True
    assert archreg("calibrate", "--dry-run").out.endswith("Nothing was stored.\n")

    sampled = replace(samples.answers["calibrate"], labelled=90_000)
    fake.answers["calibrate"] = sampled
    assert "A sample of the 90,000 labelled models was used" in archreg("calibrate").out


def test_calibrate_reset(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("calibrate", "--reset", "--fingerprint", "mme")
    assert fake.called("reset_calibration") == ((), {"fingerprint": "mme", "distance": None})
    assert done.out.startswith("The shipped calibration is used again: tolerance 0.035")
    assert archreg("calibrate", "--reset", "--json").document["calibration"]["tolerance"] == 0.035
    for words in (("--rate", "0.1"), ("--seed", "3"), ("--dry-run",)):
        refused = archreg("calibrate", "--reset", *words)
        assert refused.code == 2
        assert "cannot be combined with --reset" in refused.err


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "1.5", "nan", "x"])
def test_a_rate_out_of_range_is_wrong_usage(archreg: Callable[..., Any], fake: Any, rate: str) -> None:
    done = archreg("calibrate", f"--rate={rate}")
    assert done.code == 2
    assert rate in done.err


def test_rates_too_small_to_tell_are_bounds(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    # The nearest of the unrelated pairs is 0.01 apart, and makes 1 in 1,000 of them.
    near = samples.verdict(0.005, tolerance=0.009, rate=0.001, closer_than=1.0)
    found = Search(
        samples.summary(),
        samples.spec,
        "l1",
        0.009,
        0.001,
        5000,
        (Neighbour(samples.summary(), near),),
        samples.calibration,
    )
    fake.answers["search"] = found
    done = archreg("nearest", "x")
    assert (
        "At the tolerance 0.009, at most 0.10 % of unrelated pairs pass: at most 5 false passes are expected"
        in done.out
    )
    assert " all pairs " in done.out
    fake.answers["compare"] = replace(samples.answers["compare"]("a", "b"), verdict=near)
    assert "all unrelated pairs measured are farther apart" in archreg("compare", "a", "b").out


def test_compress(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("compress", "resnet56")
    assert "resnet8 saves 71.1 % of the parameters, 70.9 % of the bytes.\nThe distance 0.021 is within" in done.out
    assert (
        "99.6 % of unrelated pairs are farther apart. 0.603 false passes are expected among the 163 models searched"
        in done.out
    )
    assert "(calibrated on 163 published models of 20 families)" in done.out
    assert "top1 -5.13, worse (cifar10 test)" in done.out
    document = archreg("compress", "resnet56", "--json").document
    assert (document["equivalent"], document["searched"], document["rate"]) == (True, 163, 0.0037)
    assert document["model"]["name"] == "resnet56"
    [candidate] = document["candidates"]
    assert candidate["name"] == "resnet8"
    assert candidate["params_saved"] == 0.7106
    assert candidate["changes"][0]["change"] == pytest.approx(-5.13)
    assert (candidate["changes"][0]["better"], candidate["gflops_saved"], candidate["contrast"]) == (False, None, None)


def test_compress_says_how_a_metric_is_stored_where_one_can_be(
    archreg: Callable[..., Any], fake: Any, samples: Any
) -> None:
    found = samples.answers["compress"]("my net")
    [candidate] = found.candidates
    found = replace(found, candidates=(replace(candidate, changes=(), expected_change=None),))
    unknown = "The models share no stored metric, so the loss is unknown."

    def told(*options: str) -> str:
        [line] = [line for line in archreg("compress", "x", *options).out.splitlines() if line.startswith(unknown)]
        return line.removeprefix(unknown)

    fake.answers["compress"] = found
    assert told("--db", "own.db") == " Set one: archreg set 'my net' --metric top1=92.6"
    assert told("--db", "published:") == ""
    fake.answers["compress"] = replace(found, model=replace(found.model, id=0))
    assert (
        told("--db", "own.db")
        == " Store the model and set one: archreg ingest FILE, archreg set NAME --metric top1=92.6"
    )


def test_compress_where_none_is_equivalent(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    near = replace(samples.candidate, verdict=samples.verdict(0.3, reasons=("too far",)))
    fake.answers["compress"] = replace(samples.answers["compress"]("x"), equivalent=False, candidates=(near,))
    done = archreg("compress", "resnet20")
    assert done.code == 0
    assert "None of the 163 smaller models is equivalent. The nearest are:" in done.out
    assert "too far" in done.out
    assert "beyond the tolerance" in done.out
    fake.answers["compress"] = replace(
        fake.answers["compress"], searched=0, candidates=(), removals=(Removal("at most 1 gigaflops", 9, 7, 8),)
    )
    lines = archreg("compress", "resnet20").out.splitlines()
    assert lines[2] == "No smaller model passes the constraints."
    assert lines[3].split() == ["constraint", "removes", "unknown", "pass", "without", "it"]
    assert lines[4].split() == ["at", "most", "1", "gigaflops", "9", "8", "7"]
    assert lines[5] == "Without 'at most 1 gigaflops', 7 models would pass."
    document = archreg("compress", "resnet20", "--json").document
    assert (document["candidates"], document["note"]) == ([], "")
    fake.answers["compress"] = replace(
        fake.answers["compress"], removals=(Removal(f"smaller than {fake.answers['compress'].model.name}", 163, 0),)
    )
    assert archreg("compress", "resnet20").out.splitlines()[2:] == ["Of 163 models, none is smaller."]
    note = "The gigaflops of resnet20 are unknown: smaller refers to parameters."
    fake.answers["compress"] = replace(samples.answers["compress"]("resnet20"), note=note)
    assert archreg("compress", "resnet20", "--max-gflops", "1").out.splitlines()[2] == note
    assert archreg("compress", "resnet20", "--max-gflops", "1", "--json").document["note"] == note


def test_compare_gives_both_names(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    compared = replace(samples.answers["compare"]("resnet20", "resnet32"), asked_a="./a.pt", asked_b="")
    fake.answers["compare"] = compared
    assert archreg("compare", "./a.pt", "resnet32").out.startswith("resnet20 (./a.pt) and resnet32 are equivalent.\n")
    document = archreg("compare", "./a.pt", "resnet32", "--json").document
    assert (document["a"]["name"], document["a"]["asked"]) == ("resnet20", "./a.pt")
    assert (document["b"]["name"], document["b"]["asked"]) == ("resnet32", "resnet32")


PARTS = (
    "Some weights could not be read and are no part of the comparison: part (3 of 269,722).",
    "Layers with NaN or infinity are no part of the comparison: part (1 value).",
)


def test_weights_that_are_not_all_there_are_named(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    part = samples.summary("part", unread=3, nonfinite=1)
    fake.answers["compare"] = replace(samples.answers["compare"]("resnet20", "resnet32"), a=part)
    fake.answers["search"] = replace(samples.answers["search"](), model=part, older=2)
    fake.answers["compress"] = replace(samples.answers["compress"]("part"), model=part, older=2)
    selection = samples.answers["select"]
    fake.answers["select"] = replace(selection, like=part, older=2)
    fake.answers["classes"] = replace(samples.answers["classes"], older=2)
    for words in (["compare", "part", "b"], ["nearest", "part"], ["compress", "part"], ["select", "--like", "part"]):
        out = archreg(*words).out
        assert set(PARTS) <= set(out.splitlines()), words
    left_out = "2 models of an older matrix rule were left out: archreg db check lists them."
    for words in (["nearest", "part"], ["compress", "part"], ["select", "--like", "part"], ["classes"]):
        assert left_out in archreg(*words).out.splitlines(), words
        assert archreg(*words, "--json").document["older"] == 2
    fake.answers["select"] = replace(selection, like=None, older=1)
    out = archreg("select").out
    assert "1 model of an older matrix rule was compared with no other: archreg db check lists them." in out


def test_where_the_weights_are_from(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    model = samples.summary(
        "q", precision="int4 gptq", format="torch", location="/runs/q.pt", entry="ema", unread=3, nonfinite=1
    )
    fake.answers["models"] = (model,)
    header, row = archreg("list").out.splitlines()
    assert {"precision", "format", "location"} <= set(header.split())
    assert "int4 gptq" in row
    assert row.endswith("torch   /runs/q.pt[ema]")
    fake.answers["show"] = replace(samples.answers["show"]("q"), summary=model, notes=("One note", "another"))
    out = [" ".join(line.split()) for line in archreg("show", "q").out.splitlines()]
    for line in (
        "precision int4 gptq", "format torch", "location /runs/q.pt", "entry ema", "not read 3 weights of 269,722",
        "not finite 1 value", "notes One note; another",
    ):  # fmt: skip
        assert line in out
    document = archreg("show", "q", "--json").document
    assert (document["summary"]["precision"], document["notes"]) == ("int4 gptq", ["One note", "another"])


def test_list(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    done = archreg("list")
    assert "1.08 MB" in done.out
    assert done.out.splitlines()[1].split()[6:8] == ["trained", "long"]
    assert done.err == "2 models.\n"
    assert [model["name"] for model in archreg("list", "--json").document["models"]] == ["resnet20", "resnet32"]
    fake.answers["models"] = ()
    assert "No stored model matches the filters." in archreg("list", "--family", "vgg").err
    fake.answers["unmatched"] = EmptyRegistryError("zoo.db holds no models", "fill it: archreg ingest REF")
    empty = archreg("list")
    assert (empty.code, empty.out) == (0, "")
    assert empty.err == "zoo.db holds no models; fill it: archreg ingest REF\n"
    assert archreg("list", "--json").document == {"models": []}


def test_show(archreg: Callable[..., Any], fake: Any) -> None:
    done = archreg("show", "resnet20")
    for text in ("x = 5.5 within 0.01", "owner=vision", "12.5 times", "c0ffee", "2026-01-02 03:04:05 UTC"):
        assert text in done.out
    document = archreg("show", "resnet20", "--json").document
    assert document["summary"]["created"] == "2026-01-02T03:04:05Z"
    assert "conv1.weight" not in done.out
    layers = archreg("show", "resnet20", "--layers").out
    assert "16x3x3x3" in layers
    assert "batch statistics" in layers
    document = archreg("show", "resnet20", "--json").document
    assert document["summary"]["name"] == "resnet20"
    assert document["layers"][0]["entropy"] is None  # not a number, and so null
    assert document["layers"][0]["shape"] == [16, 3, 3, 3]
    assert document["tags"] == {"owner": "vision"}
    assert document["fingerprints"] == ["layered v1", "mme v1"]


def test_stats(archreg: Callable[..., Any], fake: Any) -> None:
    assert "resnet 2" in archreg("stats").out
    document = archreg("stats", "--json").document
    assert document["families"] == {"resnet": 2}
    assert document["fingerprints"] == {"layered v1": 2}
    assert document["bytes"] == 40_960


def test_spectra(archreg: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    target = tmp_path / "x.npz"
    target.write_text("old")
    document = archreg("spectra", "resnet20", "-o", str(target), "--json").document
    assert document == {"file": str(target), "layers": 2, "eigenvalues": 32}
    with np.load(target) as stored:
        assert stored["names"].tolist() == ["conv1.weight"] * 2
        assert (stored["p"].tolist(), stored["q"].tolist()) == ([16, 16], [27, 27])
        assert stored["mean"].tolist() == [0.25, 0.25]
        assert stored["offsets"].tolist() == [0, 16, 32]
        assert stored["values"].dtype == np.float32
        np.testing.assert_array_equal(stored["values"][16:], np.linspace(0.5, 1.5, 16, dtype=np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_distances(archreg: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    target = tmp_path / "d.npz"
    done = archreg("distances", "-o", str(target), "--distance", "l2", "--family", "resnet")
    assert "2 models" in done.out
    assert fake.called("distances") == ((), {"fingerprint": "layered", "distance": "l2", "family": "resnet"})
    with np.load(target) as stored:
        assert stored["names"].tolist() == ["a", "b"]
        np.testing.assert_array_equal(stored["distances"], [[0.0, 0.5], [0.5, 0.0]])


def test_a_file_that_cannot_be_written_is_an_error(archreg: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    (tmp_path / "x.npz").mkdir()
    done = archreg("spectra", "resnet20", "-o", str(tmp_path / "x.npz"))
    assert done.code == 1
    assert "cannot write" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (True, True),
        ((1, (2.0, None)), [1, [2.0, None]]),
        ({1: "x"}, {"1": "x"}),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    assert json_output.plain(value) == expected
    assert type(json_output.plain(value)) is type(expected)


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no form"):
        json_output.plain({1, 2})


@pytest.mark.parametrize(
    ("count", "expected"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1_078_888, "1.08 MB"), (999_600, "1 MB"), (10**16, "1e+04 TB")],
)
def test_sizes(count: int | None, expected: str) -> None:
    assert tables.size(count) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), (0.15123, "0.151"), (999.4, "999"), (999.6, "1,000"), (1913.2, "1,910"), (-1913.2, "-1,910"),
     (999_600.0, "1e+06"), (math.inf, "-")],
)  # fmt: skip
def test_numbers(value: float | None, expected: str) -> None:
    assert tables.number(value) == expected


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, "0.0 %"), (1e-5, "<0.1 %"), (0.996, "99.6 %"), (0.9994, "99.9 %"), (0.9996, ">99.9 %"), (1.0, "100.0 %")],
)
def test_per_cents_do_not_claim_all_or_nothing(fraction: float, expected: str) -> None:
    assert tables.percent(fraction) == expected


HOSTILE = "[bold red]x[/]\x1b[31m\nfake line\u202e\udc80" + "long/" * 60 + "end"


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "show {}",
        "nearest {}",
        "compare {} {}",
        "classes",
        "compress {} --explain",
        "select",
        "tag {}",
        "rm {} -y",
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_names_are_shown_whole_and_harmless(
    words: str, terminal: bool, archreg: Callable[..., Any], fake: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = samples.summary(HOSTILE, family=HOSTILE)
    fake.answers |= {
        "models": [bad],
        "search": Search(
            bad, samples.spec, "l1", 0.035, 0.01, 9, (Neighbour(bad, samples.verdict()),), samples.calibration
        ),
        "classes": replace(
            samples.answers["classes"],
            classes=(replace(samples.answers["classes"].classes[0], medoid=HOSTILE, members=(bad, bad)),),
        ),
        "compress": replace(samples.answers["compress"](HOSTILE), candidates=(replace(samples.candidate, model=bad),)),
        "select": replace(
            samples.answers["select"],
            classes=(replace(samples.answers["select"].classes[0], best=Choice(bad, (1.0, 2.0), 0.1)),),
        ),
    }
    if terminal:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "dumb")  # a terminal without colours of our own, so that any escape is the name's
        monkeypatch.setattr("registry.cli.tables.is_terminal", lambda: True)
    done = archreg(*[word.format(HOSTILE) for word in words.split()])
    assert done.code == 0, done.err
    assert not {"\x1b", "\u202e", "\udc80"} & set(done.out)
    assert "\nfake line" not in done.out
    assert "…" not in done.out
    if not terminal:
        assert r"[bold red]x[/]\x1b[31m\nfake line\u202e\udc80" + "long/" * 60 + "end" in done.out
    document = archreg(*[word.format(HOSTILE) for word in words.split()], "--json")
    assert document.document
    assert document.out.isascii()


def test_nothing_is_cut_where_standard_output_is_no_terminal(
    archreg: Callable[..., Any], fake: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "folder/" * 30 + "model"
    fake.answers["models"] = [samples.summary(name)]
    rows = archreg("list").out.splitlines()
    assert len(rows) == 2
    assert name in rows[1]


@pytest.mark.parametrize("words", ["compare a b", "compress x --explain", "nearest x"])
def test_sentences_are_wrapped_on_a_terminal(
    words: str, archreg: Callable[..., Any], fake: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = replace(samples.candidate, contrast=samples.answers["compare"]("a", "b").contrast)
    fake.answers["compress"] = replace(samples.answers["compress"]("x"), candidates=(candidate,))
    piped = archreg(*words.split()).out
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("registry.cli.tables.is_terminal", lambda: True)
    shown = archreg(*words.split()).out
    assert max(map(len, piped.splitlines())) > 60
    assert max(map(len, shown.splitlines())) <= 60


def test_what_is_set_in_is_wrapped_under_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("registry.cli.tables.is_terminal", lambda: True)
    tables.say("plain words that are wrapped", "", "  words set in that are, too", "x" * 25)
    assert capsys.readouterr().out.splitlines() == [
        "plain words that are", "wrapped", "", "  words set in that", "  are, too", "x" * 20, "x" * 5,
    ]  # fmt: skip
    monkeypatch.setattr("registry.cli.tables.is_terminal", lambda: False)
    tables.say("  words set in that are not wrapped")
    assert capsys.readouterr().out == "  words set in that are not wrapped\n"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_folds_texts_and_cuts_none(
    width: int, archreg: Callable[..., Any], fake: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("registry.cli.tables.is_terminal", lambda: True)
    metrics = (Metric("Q", 1.0, "Q" * 10, "Q"), Metric("Q" * 9, 2.0))
    fake.answers["models"] = [samples.summary("Z" * 100, family="X" * 12, metrics=metrics)]
    shown = archreg("list").out
    assert (shown.count("Z"), shown.count("X"), shown.count("Q")) == (100, 12, 21)
    assert "269,722" in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_duplicates(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    done = archreg("list", "--duplicates", "--family", "resnet")
    assert fake.called("duplicates")[1] == {"family": "resnet"}
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[1:5] == [
        ["1", "identical", "resnet20", "1", "kB", "/a.pt"],
        ["900", "B", "/b.pt"],
        ["2", "related", "resnet20", "1", "kB", "/a.pt"],
        ["tuned", "0.93", "1.08", "MB"],
    ]
    assert done.out.splitlines()[5] == "900 B could be freed by keeping one of each identical or permuted group."
    assert done.err.startswith("1 model without sketches: compared by content alone.")
    document = archreg("list", "--duplicates", "--json").document
    assert document["freeable"] == 900
    assert document["groups"][1]["members"][1]["correlation"] == 0.93
    fake.answers["duplicates"] = replace(samples.answers["duplicates"], groups=(), unsketched=0)
    done = archreg("list", "--duplicates")
    assert (done.out, done.err) == ("Of 3 models none is there twice, and none is related to another.\n", "")
