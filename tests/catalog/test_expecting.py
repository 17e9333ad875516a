"""What `compress` and `select` expect of models whose metric is not stored, from those whose metric is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Metric, Registry
from registry.catalog import expecting
from registry.catalog.search_settings import settings_for
from registry.cli.app import main
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.models.adding import add_models
from registry.storage.models.bulk_figures import read_scored
from tests.catalog.factory import CONJUGACY, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from registry.types import ExpectedChange

FAMILIES, MEMBERS = 5, 8
SLOPE, NOISE = 4.0, 0.3  # points a factor of e in parameters, and their standard deviation


def law(parameters: int) -> float:
    return 70.0 + SLOPE * float(np.log(parameters / 1_000))


def top1(value: float, dataset: str = "cifar10", split: str = "test") -> tuple[Metric, ...]:
    return (Metric("top1", value, dataset, split),)


def scored(families: int = FAMILIES, members: int = MEMBERS) -> Iterator[Any]:
    """Models of several families and sizes with a metric that follows their size, and little else."""
    random = np.random.default_rng(0)
    for family in range(families):
        for member in range(members):
            parameters = 1_000 * 2**member + family
            yield made(
                f"f{family}-{member}",
                0.02 * member + 0.001 * family + 0.002 * random.random(),
                parameters=parameters,
                family=f"F{family}",
                dataset="cifar10",
                metrics=top1(law(parameters) + NOISE * random.standard_normal()),
            )


QUERY = f"f0-{MEMBERS - 1}"
CARD: dict[str, Any] = {"parameters": 8_100, "family": "F1", "dataset": "cifar10"}
SIZE: dict[str, Any] = {"min_params": CARD["parameters"], "max_params": CARD["parameters"]}
UNSCORED = {
    "asked": made("asked", 0.062, **CARD),
    "other spelling": made("other spelling", 0.062, **{**CARD, "family": "f1", "dataset": "CIFAR10"}),
    "by its own metric": made("by its own metric", 0.062, **{**CARD, "dataset": "", "metrics": top1(1.0, split="val")}),
    "other family": made("other family", 0.062, **{**CARD, "family": "unseen"}),
    "no family": made("no family", 0.062, **{**CARD, "family": ""}),
    "other data": made("other data", 0.062, **{**CARD, "dataset": "imagenet"}),
    "no data": made("no data", 0.062, **{**CARD, "dataset": ""}),
    "untrained": replace(made("untrained", 0.062, **CARD), conjugacy=replace(CONJUGACY, training_class="untrained")),
    "no class": replace(made("no class", 0.062, **CARD), conjugacy=None),
    "far": made("far", 9.0, **CARD),
    "smaller than any": made("smaller than any", 0.062, **{**CARD, "parameters": 8}),
}
KNOWN = {"asked", "other spelling", "by its own metric"}


@pytest.fixture
def fill(registry_url: str) -> Iterator[Callable[..., Registry]]:
    """A registry of the models given, on both databases."""
    opened: list[Registry] = []

    def filled(models: Iterable[Any]) -> Registry:
        with Store.open(registry_url, mode="create") as store:
            store.write(lambda connection: add_models(connection, [*models]))
        opened.append(Registry(registry_url))
        return opened[-1]

    yield filled
    for registry in opened:
        registry.close()


def expected(reg: Registry, query: str = QUERY, **terms: Any) -> dict[str, ExpectedChange | None]:
    # Within no tolerance nothing is equivalent, so that all smaller models are told of, whatever their class.
    found = reg.compress(query, tolerance=0.0, k=1_000, **terms)
    return {candidate.model.name: candidate.expected_change for candidate in found.candidates}


def test_what_is_expected_follows_from_the_scored_models(fill: Any) -> None:
    # The figures of conjugacy may be missing until they are computed again.
    bare = replace(made("bare", 0.05, parameters=5_000, family="F0", metrics=top1(law(5_000))), conjugacy=None)
    reg = fill([*scored(), *UNSCORED.values(), bare])
    found = expected(reg)
    assert {name for name, change in found.items() if change is not None} == KNOWN
    assert set(UNSCORED) <= set(found)
    change = found["asked"]
    assert change is not None
    assert (change.name, change.dataset, change.split, change.families) == ("top1", "cifar10", "test", FAMILIES)
    true = law(8_100) - reg[QUERY].metrics[0].value
    assert change.low < change.value < change.high
    # The noise of a change is that of two models, and 90 % of it lie within 3.3 standard deviations.
    assert abs(change.value - true) < 2.5 * NOISE
    assert 0.5 * 3.3 * 2**0.5 * NOISE < change.high - change.low < 3.0 * 3.3 * 2**0.5 * NOISE
    # Each model with its smaller ones, at most eight; sizes all differ.
    order = range(FAMILIES * MEMBERS + 1)
    assert change.pairs == sum(min(8, at) for at in order)
    assert 0.85 <= change.coverage <= 1.0
    assert found["other spelling"] == change
    # Another order of the families, which is that of the models, tells the same again.
    assert expected(reg) == found


def test_the_expected_change_comes_with_its_distance_and_size(fill: Any) -> None:
    smaller = made("smaller", 0.042, **{**CARD, "parameters": 4_100})
    reg = fill([*scored(), UNSCORED["asked"], smaller])
    found = expected(reg)
    assert found["asked"] is not None
    assert found["smaller"] is not None
    assert found["asked"].value - found["smaller"].value == pytest.approx(SLOPE * np.log(8_100 / 4_100), abs=1.5)


@pytest.mark.parametrize(
    "models",
    [
        pytest.param([*scored(members=3)], id="few models"),
        pytest.param([*scored(families=2, members=20)], id="two families"),
        pytest.param([replace(m, card=replace(m.card, metrics=())) for m in scored()], id="no metrics"),
        pytest.param([replace(m, card=replace(m.card, family="")) for m in scored()], id="no families"),
    ],
)
def test_too_little_is_known(fill: Any, models: list[Any]) -> None:
    reg = fill([*models, UNSCORED["asked"]])
    largest = max(reg.models(), key=lambda model: model.parameters)
    assert set(expected(reg, largest.name).values()) == {None}


def test_a_query_of_an_unknown_kind(fill: Any) -> None:
    odd = made("odd", 0.14, **{**CARD, "parameters": 100_000, "family": "odd", "metrics": ()})
    own = made("own", 0.14, **{**CARD, "parameters": 100_000, "family": "F2", "metrics": top1(88.0)})
    unlabelled = made("unlabelled", 0.14, **{**CARD, "parameters": 100_000, "family": "", "metrics": top1(88.0)})
    reg = fill([*scored(), odd, own, unlabelled, UNSCORED["asked"]])
    assert expected(reg, "odd")["asked"] is None
    assert expected(reg, "unlabelled")["asked"] is None
    assert expected(reg, "own")["asked"] is not None


def test_a_metric_of_no_data_set(fill: Any) -> None:
    models = [
        replace(model, card=replace(model.card, dataset="", metrics=(Metric("top1", model.card.metrics[0].value),)))
        for model in scored()
    ]
    # Of what data the candidate is, nothing tells.
    assert expected(fill([*models, UNSCORED["no data"]]))["no data"] is None


def test_shapes_alone_tell_nothing(fill: Any, registry_url: str) -> None:
    reg = fill([*scored(), UNSCORED["asked"]])
    distances: dict[Any, float | None] = {reg["asked"]: 0.078}
    with Store.open(registry_url, mode="read") as store:
        settings = settings_for(store, LAYERED, None, None)
        assert set(expecting.expected_changes(store, settings, reg[QUERY], distances)) == {reg["asked"].id}
        assert expecting.expected_changes(store, settings, reg[QUERY], {reg["asked"]: None}) == {}
        settings = replace(settings, by_shapes=True)
        assert expecting.expected_changes(store, settings, reg[QUERY], distances) == {}


def test_a_metric_on_another_split_is_another_metric(fill: Any) -> None:
    val = made("val", 0.062, **{**CARD, "metrics": top1(75.0, split="val")})
    both = made("both", 0.062, **{**CARD, "metrics": (*top1(75.0), *top1(75.0, split="val"))})
    found = expected(fill([*scored(), val, both]))
    assert found["val"] is not None
    assert found["both"] is None  # its change is stored


def test_few_models_of_a_large_family_are_read(fill: Any, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = [made(f"crowd-{n}", 0.05, parameters=3_000 + n, family="F0", metrics=top1(float(n))) for n in range(100)]
    others = [made(name, 0.0, family=name, metrics=(Metric("top1", 1.0, *place),)) for name, place in OTHERS.items()]
    fill([*scored(families=3), *crowd, *others, made("no family", 0.0, metrics=top1(1.0))])
    with Store.open(registry_url, mode="read") as store:
        read = store.read(read_scored, top1(0.0)[0], 5)
        assert Counter(row.family for row in read) == {"F0": 5, "F1": 5, "F2": 5}
        assert store.read(read_scored, top1(0.0)[0], 5) == read
        everything = store.read(read_scored, top1(0.0)[0], 1_000)
        assert Counter(row.family for row in everything) == {"F0": 100 + MEMBERS, "F1": MEMBERS, "F2": MEMBERS}
        assert set(read) < set(everything)
        values = {
            row.model_id: row.value for row in everything if row.parameters >= 3_000 and row.value == int(row.value)
        }
        assert sorted(values.values()) == list(range(100))
    monkeypatch.setattr(expecting, "MODELS", 14)
    spread = expecting._spread(everything)
    assert Counter(row.family for row in spread) == {"F0": 5, "F1": 5, "F2": 4}


OTHERS = {"other data": ("imagenet", "test"), "other split": ("cifar10", "val"), "neither": ("", "")}


def test_select(fill: Any) -> None:
    reg = fill([*scored(), *UNSCORED.values()])
    # Models of one size, all of which are on the front of the smallest.
    found = reg.select(like=QUERY, aims=("min:params",), tolerance=100.0, k=100, **SIZE)
    shown = {each.model.name: each.expected_change for group in found.classes for each in (group.best, *group.others)}
    assert {name for name, change in shown.items() if change is not None} == KNOWN
    by_compress = expected(reg)
    assert shown == {name: by_compress[name] for name in shown}
    assert len(shown) > len(KNOWN)
    near = reg.select(like=QUERY, aims=("min:distance",), tolerance=100.0)
    assert [(group.best.model.name, group.best.expected_change) for group in near.classes] == [(QUERY, None)]
    alone = reg.select(aims=("min:params",))
    assert {each.best.expected_change for each in alone.classes} == {None}


def test_frames(fill: Any) -> None:
    reg = fill([*scored(), UNSCORED["asked"], UNSCORED["other family"]])
    place = "top1@cifar10/test"
    answers = (
        reg.compress(QUERY, tolerance=100.0, k=100),
        reg.select(like=QUERY, aims=("min:params",), tolerance=100.0, k=100, **SIZE),
    )
    change = expected(reg)["asked"]
    assert change is not None
    for answer in answers:
        frame = answer.to_frame().set_index("name")
        columns = [f"expected.{place}", f"expected_low.{place}", f"expected_high.{place}"]
        told = frame.loc["asked", columns]
        assert told.tolist() == [change.value, change.low, change.high]
        assert frame.drop("asked")[columns].isna().all(axis=None)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    assert (left.value.code or 0, err) == (0, "")
    return out


def test_the_command_line(fill: Any, registry_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    reg = fill([*scored(), UNSCORED["asked"], UNSCORED["other family"]])
    settings = ("--tolerance", "100", "-k", "100", "--db", registry_url)
    change = expected(reg)["asked"]
    assert change is not None
    text = f"top1 {change.value:+.3g} expected (90 %: {change.low:+.3g} to {change.high:+.3g})"
    learned = f"learned from {change.pairs} pairs of models of {FAMILIES} families"
    for words in (
        ("compress", QUERY),
        ("select", "--like", QUERY, "--aim", "min:params", "--aim", "max:distance", "--min-params", "8100",
         "--max-params", "8100"),
    ):  # fmt: skip
        out = said(capsys, *words, *settings)
        rows = {line.strip().split("  ")[0]: line for line in out.splitlines()}
        assert text in rows["asked"], words
        assert learned in " ".join(out.split()), words
        assert rows["other family"].rstrip().endswith("not known"), words
        if words[0] == "compress":
            assert "expected" not in rows["f1-0"]
    found = json.loads(said(capsys, "compress", QUERY, "--json", *settings))
    told = {candidate["name"]: candidate["expected_change"] for candidate in found["candidates"]}
    assert told["other family"] is None
    assert {name: told["asked"][name] for name in ("value", "low", "high", "pairs", "coverage")} == {
        "value": change.value,
        "low": change.low,
        "high": change.high,
        "pairs": change.pairs,
        "coverage": change.coverage,
    }
