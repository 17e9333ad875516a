from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Metric, MetricBound, Registry
from registry.catalog.objectives import parse_aim
from registry.equivalence import shipped
from registry.errors import EmptyRegistryError, UsageError
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.equivalence.stored_calibrations import put_calibration
from registry.storage.models.measured_values import drop_spec
from registry.types import Aim, Calibration
from tests.catalog.factory import made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def top1(value: float, dataset: str = "cifar10", **more: Any) -> tuple[Metric, ...]:
    return (Metric("top1", value, dataset, "test", **more),)


STAGE = (("stage", "x"),)
# Two classes on a line, some 0.01 apart within and far between: a of three on the front and one that is beaten, b of
# one; others are of another data set, of unknown figures, or of the other training class.
MODELS = (
    made("a-small", 0.0, parameters=100, size=400, metrics=top1(90.0), licence="MIT", family="a", tags=STAGE),
    made("a-mid", 0.01, parameters=200, size=800, metrics=top1(91.0), licence="MIT", family="a", gflops=2.0),
    made("a-large", 0.02, parameters=300, size=1200, metrics=top1(92.0), licence="GPL", family="a", gflops=1.0),
    made("a-beaten", 0.01, parameters=250, size=1000, metrics=top1(90.5), licence="MIT", family="a"),
    made("b-tiny", 5.00, parameters=50, size=200, metrics=top1(80.0), licence="MIT", family="b", task="vision"),
    made("c-raw", 0.01, parameters=40, size=160, metrics=top1(70.0), family="c", untrained=True),
    made("d-other", 0.01, parameters=10, size=40, metrics=top1(99.0, "svhn"), family="d"),
    made("e-unknown", 0.01, parameters=10, size=44, family="e"),
)  # fmt: skip


def store_all(url: str) -> None:
    with Store.open(url, mode="create") as store:
        for model in MODELS:
            store.add(model)


@pytest.fixture
def reg(copied: Callable[..., str]) -> Any:
    with Registry(copied(store_all)) as opened:
        yield opened


def classes(found: Any) -> list[tuple[str, list[str]]]:
    return [(group.best.model.name, [other.model.name for other in group.others]) for group in found.classes]


AIMS = ("max:top1@cifar10", "min:params")


def test_the_front_a_class_of_equivalents_as_one(reg: Registry) -> None:
    found = reg.select(aims=AIMS)
    assert [aim.label for aim in found.aims] == ["max top1@cifar10/test", "min parameters"]
    assert classes(found) == [("a-small", ["a-large", "a-mid"]), ("b-tiny", []), ("c-raw", [])]
    assert (found.models, found.passed, found.on_front, found.count, found.removals) == (8, 8, 5, 3, ())
    assert found.unknown == (("max top1@cifar10/test", 2),)
    assert (found.spec, found.distance, found.calibration) == (LAYERED, "l1", shipped(LAYERED, "l1"))
    best = found.classes[0].best
    assert (best.values, best.distance) == ((90.0, 100.0), None)
    # Nothing is near enough: each stands alone, by the first aim.
    alone = reg.select(aims=AIMS, tolerance=0.001)
    assert [name for name, _ in classes(alone)] == ["a-large", "a-mid", "a-small", "b-tiny", "c-raw"]
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


def test_the_default_aim_is_the_most_common_metric_where_it_was_measured(tmp_path: Path) -> None:
    both = (*top1(90.0), Metric("top1", 80.0, "cifar10", "val"), Metric("top1", 70.0, "svhn", "test"))
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        store.add(made("first", 0.0, metrics=(Metric("acc", 50.0), *both)))
        store.add(made("second", 0.1, metrics=both[1:2], parameters=10))
        store.add(made("third", 0.2, family="bare"))
    with Registry(tmp_path / "r.db") as reg:
        # Two have it, and one each of the others.
        assert reg.select().aims == (Aim("top1", True, "cifar10", "val"), Aim("parameters", False))
        # A bound names its data set, though other ones have that metric, too; then the split is open.
        assert reg.select(min_metric={"top1@svhn": 60}).aims[0] == Aim("top1", True, "svhn", "test")
        with pytest.raises(UsageError, match=r"top1@cifar10 is ambiguous: top1@cifar10/test, top1@cifar10/val"):
            reg.select(min_metric={"top1@cifar10": 60})
        # Of models without metrics: the distance, if there is anything to be near to.
        assert reg.select(family="bare").aims == (Aim("parameters", False),)
        assert reg.select(like="third", family="bare").aims == (Aim("distance", False), Aim("parameters", False))


def test_six_known_metrics_are_named_and_the_others_counted(tmp_path: Path) -> None:
    for count, words in (
        (6, "known metrics: m0, m1, m2, m3, m4, m5"),
        (8, "known metrics: m0, m1, m2, m3, m4, m5 and 2 more"),
    ):
        with Store.open(str(tmp_path / f"{count}.db"), mode="create") as store:
            store.add(made("a", 0.0, metrics=tuple(Metric(f"m{number}", 1.0) for number in range(count))))
        with Registry(tmp_path / f"{count}.db") as reg, pytest.raises(UsageError) as refused:
            reg.select(aims=("max:none",))
        assert refused.value.remedy == words


def test_constraints(reg: Registry) -> None:
    assert classes(reg.select(aims=AIMS, min_metric={"top1": 91}, licence="mit")) == [("a-mid", [])]
    assert classes(reg.select(aims=AIMS, max_metric={"top1@cifar10": 75})) == [("c-raw", [])]
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


def test_the_tolerance_follows_from_the_models_that_pass(reg: Registry, database_url: str) -> None:
    """As that of a search: among two 1 in 2 may pass, and among seven 1 in 7."""
    reg.close()
    curve = ((0.0, 0.0), (0.1, 0.001), (0.25, 0.005), (0.5, 0.015), (1.0, 0.9))
    with Store.open(database_url, mode="write") as store:
        store.write(put_calibration, Calibration(LAYERED.hash, "l1", 0.75, 0.6, curve, "ours"))
    few, all_ = reg.select(like="a-large", licence="MIT", family="a"), reg.select(like="a-large")
    assert (few.searched, all_.searched) == (3, 7)
    for found, where in ((few, {"licence": "MIT", "family": "a"}), (all_, {})):
        searched = reg.search("a-large", equivalent=True, **where)
        assert (found.tolerance, found.rate) == (searched.tolerance, searched.rate)
    assert few.tolerance > all_.tolerance
    assert reg.select().tolerance == pytest.approx(0.001 + 0.004 * (1 / 8 - 0.1) / 0.15)
    assert reg.select(tolerance=0.5).tolerance == 0.5
    # Of none that pass, and so of what removed them, it is the calibrated one: b is beyond it, c of another class.
    none = reg.select(like="a-large", max_params=1)
    assert (none.tolerance, none.searched) == (0.6, 0)
    assert [(r.constraint, r.removes, r.without) for r in none.removals] == [
        ("at most 1 parameter", 8, 6),
        ("equivalent to a-large", 2, 0),
    ]


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

    # Others would pass if it were not for their size, which is no constraint that could be dropped.
    larger = reg.compress("b-tiny", licence="MIT")
    assert [(r.constraint, r.removes, r.without) for r in larger.removals] == [
        ("licence MIT", 4, 3),
        ("smaller than b-tiny", 5, 0),
    ]

    misspelt = reg.select(task="visoin")
    assert [(r.constraint, r.removes, r.without, r.near) for r in misspelt.removals] == [
        ("task visoin", 8, 8, ("vision",))
    ]
    several = reg.select(
        tags=(("stage", "y"),), metrics=(MetricBound("top1", 95.0, None, "cifar10"),), min_bytes=10_000, like="a-mid",
        tolerance=0.0,
    )  # fmt: skip
    assert [(r.constraint, r.removes, r.without, r.unknown, r.near) for r in several.removals] == [
        ("at least 10,000 bytes", 8, 0, 0, ()),
        ("top1@cifar10 at least 95", 8, 0, 2, ()),
        ("tag stage=y", 8, 0, 0, ()),
        ("equivalent to a-mid", 4, 0, 0, ()),
    ]
    # a-beaten, d-other and e-unknown are where a-mid is.
    assert reg.select(like="a-mid", tolerance=0.0, family="b").removals[-1].without == 1


def test_bounds_on_metrics_are_told_in_words_with_the_models_of_unknown_value(reg: Registry) -> None:
    found = reg.select(
        metrics=(
            MetricBound("top1", 99.5), MetricBound("top1", None, 10.5, "cifar10"), MetricBound("top5", 1.0, 2.0),
        )
    )  # fmt: skip
    assert [(r.constraint, r.removes, r.unknown) for r in found.removals] == [
        ("top1 at least 99.5", 8, 1),
        ("top1@cifar10 at most 10.5", 8, 2),
        ("top5 at least 1 at most 2", 8, 8),
    ]


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


def test_smaller_is_less_by_one_at_least(tmp_path: Path) -> None:
    sizes = {"less": (99, 399, 0.5), "asked": (100, 400, 1.0), "same": (100, 400, 1.0), "more": (101, 401, 1.5)}
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        for name, (parameters, size, gflops) in sizes.items():
            store.add(made(name, 0.0, parameters=parameters, size=size, gflops=gflops))
    with Registry(tmp_path / "r.db") as reg:
        for bounds in ({}, {"max_params": 500}, {"max_bytes": 500}, {"max_gflops": 9.0}, {"max_ratio": 1.0}):
            found = reg.compress("asked", tolerance=1.0, **bounds)
            assert [each.model.name for each in found.candidates] == ["less"], bounds
        reg.set("less", gflops=float(np.nextafter(1.0, 0.0)))
        assert len(reg.compress("asked", tolerance=1.0, max_gflops=9.0).candidates) == 1
        # Of every size that is bounded.
        reg.set("less", gflops=1.0)
        assert reg.compress("asked", tolerance=1.0, max_bytes=500, max_gflops=9.0).candidates == ()
        # A ratio is of whole parameters.
        assert reg.compress("asked", tolerance=1.0, max_ratio=0.99).searched == 1
        assert reg.compress("asked", tolerance=1.0, max_ratio=0.989).searched == 0


def test_the_size_that_is_bounded_decides_which_is_smallest(tmp_path: Path) -> None:
    """Of equal gigaflops the fewest bytes; no gigaflops at all are fewest; parameters go before all."""
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        for place, (name, parameters, size, gflops) in enumerate(
            (("few", 10, 500, 0.75), ("light", 90, 100, 0.5), ("heavy", 90, 300, 0.25), ("free", 80, 400, 0.0),
             ("same", 20, 200, 0.25))
        ):  # fmt: skip
            store.add(made(name, 0.01 * place, parameters=parameters, size=size, gflops=gflops))
        store.add(made("asked", 0.0, parameters=200, size=800, gflops=2.0))
    with Registry(tmp_path / "r.db") as reg:
        for bounds, expected in (
            ({}, ["few", "same", "free", "light", "heavy"]),
            ({"max_bytes": 600}, ["light", "same", "heavy", "free", "few"]),
            ({"max_gflops": 1.5}, ["free", "same", "heavy", "light", "few"]),
            ({"max_gflops": 1.5, "max_bytes": 600}, ["free", "same", "heavy", "light", "few"]),
            ({"max_params": 150, "max_bytes": 600}, ["few", "same", "free", "light", "heavy"]),
            ({"max_ratio": 0.5, "max_gflops": 1.5}, ["few", "same", "free", "light", "heavy"]),
        ):  # fmt: skip
            found = reg.compress("asked", tolerance=1.0, **bounds)
            assert [each.model.name for each in found.candidates] == expected, bounds
        saved = {each.model.name: each.gflops_saved for each in reg.compress("asked", tolerance=1.0).candidates}
        assert saved == {"few": 0.625, "light": 0.75, "heavy": 0.875, "free": 1.0, "same": 0.875}
        # Without knowing both there is no telling, nor of what costs nothing to begin with.
        reg.set("same", gflops=None)
        assert {each.gflops_saved for each in reg.compress("asked", tolerance=1.0, max_params=20).candidates} == {
            0.625,
            None,
        }
        for gflops in (0.0, None):
            reg.set("asked", gflops=gflops)
            assert {each.gflops_saved for each in reg.compress("asked", tolerance=1.0).candidates} == {None}


def test_a_class_is_led_by_its_smallest(tmp_path: Path) -> None:
    """By parameters, then bytes, then the place on the front; the others follow in the order of the front."""
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        for name, parameters, size, seen, unseen in (
            ("big", 300, 900, 92.0, 60.0), ("wide", 100, 800, 90.0, 70.0), ("late", 100, 400, 80.0, 90.0),
            ("first", 100, 400, 85.0, 80.0), ("beaten", 10, 40, 80.0, 80.0),
        ):  # fmt: skip
            metrics = (*top1(seen), *top1(unseen, "svhn"))
            store.add(made(name, 0.0, parameters=parameters, size=size, metrics=metrics))
    with Registry(tmp_path / "r.db") as reg:
        found = reg.select(aims=("max:top1@cifar10", "max:top1@svhn"))
        assert classes(found) == [("first", ["big", "wide", "late"])]
        assert found.classes[0].best.values == (85.0, 80.0)
        assert [other.values for other in found.classes[0].others] == [(92.0, 60.0), (90.0, 70.0), (80.0, 90.0)]


def test_an_aim_counts_once_and_one_way(reg: Registry) -> None:
    once = reg.select(aims=("max:top1@cifar10", "min:params"))
    assert reg.select(aims=("max:top1@cifar10", "max:top1@CIFAR10/test", "min:params", "min:parameters")) == once
    with pytest.raises(UsageError, match="top1@cifar10/test cannot be both maximised and minimised") as refused:
        reg.select(aims=("max:top1@cifar10", "min:top1@cifar10/test"))
    assert refused.value.remedy == "drop one of the aims"


def test_aims_that_no_model_reaches_together(reg: Registry) -> None:
    found = reg.select(aims=("max:top1@svhn", "min:gflops"))
    assert (found.classes, found.passed) == ((), 8)
    assert [(r.constraint, r.without) for r in found.removals] == [("a known top1@svhn/test", 2), ("a known gflops", 1)]


def test_models_without_a_fingerprint_stand_alone(reg: Registry, database_url: str) -> None:
    reg.close()
    with Store.open(database_url, mode="write") as store:
        store.write(drop_spec, LAYERED.hash)
    assert classes(reg.select(aims=AIMS, family="a")) == [("a-large", []), ("a-mid", []), ("a-small", [])]


SPELT = "write max:top1@cifar10, min:params, min:bytes, min:gflops or min:gmacs"
HELD = "known metrics: top1@cifar10/test, top1@svhn/test"
OF_TWO = "top1 is ambiguous: top1@cifar10/test, top1@svhn/test"


@pytest.mark.parametrize(
    ("aim", "message", "remedy"),
    [
        ("max:topp1", "no model that passes has the metric topp1", HELD),
        ("max:top1", OF_TWO, "choose one: --aim max:top1@cifar10/test"),
        ("min:top1", OF_TWO, "choose one: --aim min:top1@cifar10/test"),
        ("max:top1@mnist", "no model that passes has the metric top1@mnist", HELD),
        ("min:distance", "the aim distance needs a model to compare with", "add --like MODEL"),
        ("min:Distance@cifar10", "'min:Distance@cifar10': distance has no dataset", "write min:Distance"),
        ("min:params@cifar10", "'min:params@cifar10': parameters has no dataset", "write min:params"),
        ("params", "'params' is not an aim", SPELT),
        ("max:", "'max:' is not an aim", SPELT),
        ("max: @cifar10", "'max: @cifar10' is not an aim", SPELT),
        ("max:top1@", "'max:top1@' is not an aim", SPELT),
        ("most:params", "'most:params' is not an aim", SPELT),
    ],
)
def test_aims_that_cannot_be(reg: Registry, aim: str, message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as refused:
        reg.select(aims=(aim,))
    assert (refused.value.message, refused.value.remedy) == (message, remedy)


def test_an_aim_is_spelt_as_it_is_stored(reg: Registry) -> None:
    assert reg.select(aims=("max:TOP1@Cifar10/Test",)).aims == (Aim("top1", True, "cifar10", "test"),)


def test_an_aim_of_which_nothing_is_known(reg: Registry) -> None:
    with pytest.raises(UsageError, match="no model that passes has known gflops") as refused:
        reg.select(aims=("min:gflops",), family="b")
    assert refused.value.remedy == "archreg set NAME --gflops X, or drop the aim"
    with pytest.raises(UsageError, match="has the metric top1") as refused:
        reg.select(aims=("max:top1",), family="e")
    assert refused.value.remedy == "set one: archreg set NAME --metric 'top1@cifar10/test=92.6'"
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
        ("min:Distance", Aim("distance", False)),
        ("max:GFLOPS", Aim("gflops", True)),
        (" max: top1 @ cifar10 / test ", Aim("top1", True, "cifar10", "test")),
        ("max:mean reward@Ant-v3", Aim("mean reward", True, "Ant-v3")),
    ],
)
def test_aims_as_they_are_written(text: str, aim: Aim) -> None:
    assert parse_aim(text) == aim
