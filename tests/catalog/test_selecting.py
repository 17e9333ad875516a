from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from registry import Metric, MetricBound, Registry
from registry.catalog.objectives import parse_aim
from registry.errors import EmptyRegistryError, UsageError
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.models.measured_values import drop_spec
from registry.types import Aim
from tests.catalog.factory import made

if TYPE_CHECKING:
    from pathlib import Path


def top1(value: float, dataset: str = "cifar10", **more: Any) -> tuple[Metric, ...]:
    return (Metric("top1", value, dataset, "test", **more),)


STAGE = (("stage", "x"),)
# Two classes on a line, some 0.01 apart within and far between: a of three on the front and one that is beaten, b of
# one; others are of another data set, of unknown figures, or of the other tail class.
MODELS = (
    made("a-small", 0.0, parameters=100, size=400, metrics=top1(90.0), licence="MIT", family="a", tags=STAGE),
    made("a-mid", 0.01, parameters=200, size=800, metrics=top1(91.0), licence="MIT", family="a", gflops=2.0),
    made("a-large", 0.02, parameters=300, size=1200, metrics=top1(92.0), licence="GPL", family="a", gflops=1.0),
    made("a-beaten", 0.01, parameters=250, size=1000, metrics=top1(90.5), licence="MIT", family="a"),
    made("b-tiny", 5.00, parameters=50, size=200, metrics=top1(80.0), licence="MIT", family="b", task="vision"),
    made("c-edge", 0.01, parameters=40, size=160, metrics=top1(70.0), family="c", edge=True),
    made("d-other", 0.01, parameters=10, size=40, metrics=top1(99.0, "svhn"), family="d"),
    made("e-unknown", 0.01, parameters=10, size=44, family="e"),
)  # fmt: skip


@pytest.fixture
def reg(database_url: str) -> Any:
    with Store.open(database_url, mode="create") as store:
        for model in MODELS:
            store.add(model)
    with Registry(database_url) as opened:
        yield opened


def classes(found: Any) -> list[tuple[str, list[str]]]:
    return [(group.best.model.name, [other.model.name for other in group.others]) for group in found.classes]


AIMS = ("max:top1@cifar10", "min:params")


def test_the_front_a_class_of_equivalents_as_one(reg: Registry) -> None:
    found = reg.select(aims=AIMS)
    assert [aim.label for aim in found.aims] == ["max top1@cifar10/test", "min parameters"]
    assert classes(found) == [("a-small", ["a-large", "a-mid"]), ("b-tiny", []), ("c-edge", [])]
    assert (found.models, found.passed, found.on_front, found.count, found.removals) == (8, 8, 5, 3, ())
    assert found.unknown == (("max top1@cifar10/test", 2),)
    best = found.classes[0].best
    assert (best.values, best.distance) == ((90.0, 100.0), None)
    # Nothing is near enough: each stands alone, by the first aim.
    alone = reg.select(aims=AIMS, tolerance=0.001)
    assert [name for name, _ in classes(alone)] == ["a-large", "a-mid", "a-small", "b-tiny", "c-edge"]
    assert classes(reg.select(aims=AIMS, tolerance=0.001, k=2)) == classes(alone)[:2]
    assert reg.select(aims=AIMS, tolerance=0.001, k=2).count == 5
    # The other way round, the beaten one beats: more parameters at less.
    worst = reg.select(aims=("min:top1@cifar10", "max:params"), tolerance=0.001, family="a")
    assert [name for name, _ in classes(worst)] == ["a-small", "a-beaten", "a-large"]


def test_what_is_aimed_at_by_default(reg: Registry) -> None:
    def labels(**asked: Any) -> list[str]:
        return [aim.label for aim in reg.select(**asked).aims]

    assert labels() == ["max top1@cifar10/test", "min parameters"]  # six have that
    assert labels(dataset="svhn") == ["max top1@svhn/test", "min parameters"]
    assert labels(family="e") == ["min parameters"]
    assert labels(metrics=(MetricBound("top1", None, 95.0, "cifar10"),)) == ["min top1@cifar10/test", "min parameters"]
    assert labels(min_metric={"top1@cifar10": 91}) == ["max top1@cifar10/test", "min parameters"]
    assert labels(like="e-unknown", family="e") == ["min distance", "min parameters"]
    assert labels(like="a-mid") == ["max top1@cifar10/test", "min parameters"]


def test_constraints(reg: Registry) -> None:
    assert classes(reg.select(aims=AIMS, min_metric={"top1": 91}, licence="mit")) == [("a-mid", [])]
    assert classes(reg.select(aims=AIMS, max_metric={"top1@cifar10": 75})) == [("c-edge", [])]
    assert classes(reg.select(aims=AIMS, tags=(("stage", "x"),))) == [("a-small", [])]
    assert classes(reg.select(aims=("min:gflops",))) == [("a-large", [])]
    assert reg.select(aims=("min:gflops",)).unknown == (("min gflops", 6),)
    assert classes(reg.select(aims=("min:bytes",), max_gflops=10.0)) == [("a-mid", [])]


def test_only_what_is_equivalent(reg: Registry) -> None:
    found = reg.select(like="a-large", aims=AIMS)
    assert classes(found) == [("a-small", ["a-large", "a-mid"])]
    # Itself, three others of a, and two without the metric; c is of another class, b far.
    assert (found.passed, found.searched) == (6, 7)
    assert found.like is not None
    assert found.like.name == "a-large"
    assert found.rate * found.searched <= 1
    distances = {c.model.name: c.distance for c in (found.classes[0].best, *found.classes[0].others)}
    assert distances == {"a-small": pytest.approx(0.02), "a-mid": pytest.approx(0.01), "a-large": 0.0}
    # A filter that the model itself does not pass.
    assert classes(reg.select(like="a-large", aims=AIMS, licence="MIT")) == [("a-small", ["a-mid"])]
    assert reg.select(like="a-large", aims=AIMS, licence="MIT").searched == 4
    nearest = reg.select(like="a-small", aims=("min:distance",), family="a", licence="GPL")
    assert classes(nearest) == [("a-large", [])]


def test_an_empty_answer_says_what_removed_the_models(reg: Registry) -> None:
    found = reg.select(family="a", licence="gpl", max_params=100)
    assert (found.classes, found.passed, found.aims, found.unknown) == ((), 0, (), ())
    assert [(r.constraint, r.removes, r.without, r.near) for r in found.removals] == [
        ("family a", 4, 0, ()),
        ("licence gpl", 7, 1, ()),
        ("at most 100 parameters", 3, 1, ()),
    ]
    # What is left without one is what a selection without it finds.
    assert reg.select(family="a", max_params=100).passed == 1
    assert reg.select(family="a", licence="gpl").passed == 1
    assert reg.select(licence="gpl", max_params=100).passed == 0

    costly = reg.select(max_gflops=0.5, min_metric={"top1@svhn": 5})
    assert [(r.constraint, r.removes, r.without, r.unknown) for r in costly.removals] == [
        ("at most 0.5 gigaflops", 8, 1, 6),
        ("top1@svhn at least 5", 7, 0, 7),
    ]
    none = reg.compress("b-tiny", max_gflops=1.5, licence="MIT")
    # Its own gigaflops are not known, nor then what is below them: it is no candidate for itself.
    assert none.note == "The gigaflops of b-tiny are unknown: smaller refers to parameters."
    assert [(r.constraint, r.removes, r.without, r.unknown) for r in none.removals] == [
        ("licence MIT", 4, 0, 0),
        ("at most 1.5 gigaflops", 7, 0, 6),
        ("smaller than b-tiny", 5, 0, 0),
    ]

    misspelt = reg.select(task="visoin")
    assert [(r.constraint, r.removes, r.without, r.near) for r in misspelt.removals] == [
        ("task visoin", 8, 8, ("vision",))
    ]
    several = reg.select(
        tags=(("stage", "y"),), metrics=(MetricBound("top1", 95.0, None, "cifar10"),), min_bytes=10_000, like="a-mid",
        tolerance=0.0,
    )  # fmt: skip
    assert [(r.constraint, r.removes, r.without) for r in several.removals] == [
        ("at least 10,000 bytes", 8, 0),
        ("top1@cifar10 at least 95", 8, 0),
        ("tag stage=y", 8, 0),
        ("equivalent to a-mid", 4, 0),
    ]
    # a-beaten, d-other and e-unknown are where a-mid is.
    assert reg.select(like="a-mid", tolerance=0.0, family="b").removals[-1].without == 1


def test_what_is_not_smaller_would_not_pass_without_a_constraint(reg: Registry) -> None:
    sizes = {model.name: model.parameters for model in reg.models()}
    for name, own in sizes.items():
        fewer = sum(size < own for size in sizes.values())
        none = reg.compress(name, max_params=0)
        assert none.candidates == ()
        told = [(r.constraint, r.removes, r.without) for r in none.removals]
        if fewer:
            bound = ("at most 0 parameters", len(sizes), fewer)
            assert told == [bound, (f"smaller than {name}", len(sizes) - fewer, 0)]
            assert reg.compress(name, tolerance=0.0).searched == fewer
        else:  # no constraint is to blame
            assert told == [(f"smaller than {name}", len(sizes), 0)]


def test_of_unknown_gigaflops_nothing_is_said_to_be_below(reg: Registry) -> None:
    def smaller(name: str, **bounds: float) -> tuple[list[str], int, str]:
        found = reg.compress(name, tolerance=100.0, **bounds)
        return [each.model.name for each in found.candidates], found.searched, found.note

    in_words = "The gigaflops of {} are unknown: smaller refers to {}."
    reg.set("a-beaten", gflops=None)  # as it is: 250 parameters, between a-mid and a-large
    reg.set("d-other", gflops=5.0)
    assert smaller("a-beaten", max_gflops=9.0) == (
        ["a-mid", "d-other"], 2, in_words.format("a-beaten", "parameters")
    )  # fmt: skip
    assert smaller("a-beaten", max_gflops=9.0, max_bytes=10_000) == (
        ["a-mid", "d-other"], 2, in_words.format("a-beaten", "bytes")
    )  # fmt: skip
    both = in_words.format("a-beaten", "parameters and bytes")
    assert smaller("a-beaten", max_gflops=9.0, max_bytes=10_000, max_ratio=0.5) == (["d-other"], 1, both)
    # Known, it is the measure, whatever the parameters are; and nothing is below what costs nothing.
    reg.set("a-beaten", gflops=1.5)
    assert smaller("a-beaten", max_gflops=9.0) == (["a-large"], 1, "")
    reg.set("d-other", gflops=0.0)
    none = reg.compress("d-other", max_gflops=9.0)
    assert [(r.constraint, r.removes, r.without) for r in none.removals] == [("smaller than d-other", 8, 0)]


def test_of_equal_size_the_nearest_comes_first(tmp_path: Path) -> None:
    """By the size that is bounded; each is stored before all that are nearer."""
    places = {"far": 0.04, "middle": 0.03, "near": 0.01, "smallest": 0.05}
    small = {"smallest": 50}
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        for name, place in places.items():
            own = small.get(name, 100)
            store.add(made(name, place, parameters=own, size=4 * own, gflops=own / 100.0))
        store.add(made("asked", 0.0, parameters=200, size=800, gflops=2.0))
    with Registry(tmp_path / "r.db") as reg:
        for bounds in ({}, {"max_params": 150}, {"max_bytes": 600}, {"max_gflops": 1.5}):
            found = reg.compress("asked", tolerance=1.0, **bounds)
            assert [each.model.name for each in found.candidates] == ["smallest", "near", "middle", "far"], bounds
        assert [each.model.name for each in reg.compress("asked", k=2, tolerance=1.0).candidates] == [
            "smallest",
            "near",
        ]
        # Where none is equivalent, distance alone counts.
        none = reg.compress("asked", tolerance=0.0)
        assert not none.equivalent
        assert [each.model.name for each in none.candidates] == ["near", "middle", "far", "smallest"]


def test_an_aim_counts_once_and_one_way(reg: Registry) -> None:
    once = reg.select(aims=("max:top1@cifar10", "min:params"))
    assert reg.select(aims=("max:top1@cifar10", "max:top1@CIFAR10/test", "min:params", "min:parameters")) == once
    with pytest.raises(UsageError, match="top1@cifar10/test cannot be both maximised and minimised"):
        reg.select(aims=("max:top1@cifar10", "min:top1@cifar10/test"))


def test_aims_that_no_model_reaches_together(reg: Registry) -> None:
    found = reg.select(aims=("max:top1@svhn", "min:gflops"))
    assert (found.classes, found.passed) == ((), 8)
    assert [(r.constraint, r.without) for r in found.removals] == [("a known top1@svhn/test", 2), ("a known gflops", 1)]


def test_models_without_a_fingerprint_stand_alone(reg: Registry, database_url: str) -> None:
    reg.close()
    with Store.open(database_url, mode="write") as store:
        store.write(drop_spec, LAYERED.hash)
    assert classes(reg.select(aims=AIMS, family="a")) == [("a-large", []), ("a-mid", []), ("a-small", [])]


@pytest.mark.parametrize(
    ("aim", "words", "remedy"),
    [
        ("max:topp1", "no model that passes has the metric topp1", "known metrics: top1@cifar10/test, top1@svhn/test"),
        ("max:top1", "top1 is ambiguous: ", "--aim max:top1@cifar10/test"),
        ("max:top1@mnist", "has the metric top1@mnist", "known metrics"),
        ("min:distance", "the aim distance needs a model to compare with", "--like"),
        ("params", "'params' is not an aim", "min:params"),
        ("max:", "'max:' is not an aim", "min:params"),
        ("max:top1@", "is not an aim", "max:top1@cifar10"),
        ("most:params", "is not an aim", "max:top1@cifar10"),
        ("min:params@cifar10", "parameters has no dataset", "min:params"),
    ],
)
def test_aims_that_cannot_be(reg: Registry, aim: str, words: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        reg.select(aims=(aim,))
    assert remedy in (refused.value.remedy or "")


def test_an_aim_of_which_nothing_is_known(reg: Registry) -> None:
    with pytest.raises(UsageError, match="no model that passes has known gflops"):
        reg.select(aims=("min:gflops",), family="b")
    with pytest.raises(UsageError, match="has the metric top1") as refused:
        reg.select(aims=("max:top1",), family="e")
    assert "archreg set NAME --metric" in (refused.value.remedy or "")
    with pytest.raises(UsageError, match="k must be at least 1"):
        reg.select(k=0)
    with pytest.raises(UsageError, match="unknown filter 'colour'"):
        reg.select(colour="red")
    for name in [model.name for model in reg.models()]:
        reg.remove(name)
    with pytest.raises(EmptyRegistryError, match="archreg ingest"):
        reg.select()


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("max:top1@cifar10/test", Aim("top1", True, "cifar10", "test")),
        ("min: loss ", Aim("loss", False)),
        ("min:Params", Aim("parameters", False)),
        ("min:size", Aim("bytes", False)),
        ("max:mean reward@Ant-v3", Aim("mean reward", True, "Ant-v3")),
    ],
)
def test_aims_as_they_are_written(text: str, aim: Aim) -> None:
    assert parse_aim(text) == aim
