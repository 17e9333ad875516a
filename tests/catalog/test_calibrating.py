from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Registry
from registry.catalog import calibrating
from registry.catalog.calibrating import sampled
from registry.equivalence import shipped, tolerance_for
from registry.errors import EmptyRegistryError, ReadOnlyError, SpecMismatchError, UsageError
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.equivalence.stored_calibrations import drop_calibration, put_calibration
from registry.storage.models.measured_values import drop_spec
from tests.catalog.factory import made

if TYPE_CHECKING:
    from tests.conftest import Postgres


@pytest.fixture
def fill(registry_url: str) -> Any:
    """A registry of the models given, on both databases."""
    opened: list[Registry] = []

    def filled(*models: Any) -> Registry:
        with Store.open(registry_url, mode="create") as store:
            for model in models:
                store.add(model)
        opened.append(Registry(registry_url))
        return opened[-1]

    yield filled
    for registry in opened:
        registry.close()


def families(*places: float) -> list[Any]:
    """Two models of a family at each of the places, a thousandth apart."""
    return [
        made(f"f{number}-{member}", place + member / 1000, family=f"F{number}", architecture=f"A{number}")
        for number, place in enumerate(places)
        for member in (0, 1)
    ]


def test_what_is_learnt_holds_until_it_is_reset(fill: Any) -> None:
    # 15 pairs of families, 0.1, 0.3, 0.7, 1.5 and 3.1 apart, and sums of neighbouring ones of these.
    reg = fill(*families(0.0, 0.1, 0.4, 1.1, 2.6, 5.7))
    before = reg.search("f0-0")
    assert before.calibration == shipped(LAYERED, "l1") == reg.calibration()
    tried = reg.calibrate(rate=0.1, dry_run=True)
    assert reg.calibration() == before.calibration == tried.previous
    found = reg.calibrate(rate=0.1)
    assert replace(found.calibration, created="") == replace(tried.calibration, created="")
    # Of 60 pairs of models six pass: the four of the nearest families, and 0.299 and one of the 0.3 of the next.
    assert found.calibration.tolerance == pytest.approx(0.3, abs=1e-6)
    assert (found.calibration.rate, found.calibration.models, found.calibration.families) == (0.1, 12, 6)
    low, high = found.calibration.tolerance_low, found.calibration.tolerance_high
    assert low is not None
    assert high is not None
    assert low < found.calibration.tolerance <= high
    assert (found.labelled, found.unlabelled) == (12, 0)

    holds = reg.calibration()
    assert holds.created.startswith("20")
    assert replace(holds, created="") == found.calibration
    assert holds.source.startswith("12 models of this registry, of 6 families, 20")
    for answer in (reg.search("f0-0"), reg.compare("f0-0", "f1-0"), reg.classes(), reg.compress("f0-0")):
        assert answer.calibration == holds
    assert reg.search("f0-0").tolerance == min(holds.tolerance, tolerance_for(holds, 1 / 11))
    assert reg.search("f0-0", distance="l2").calibration == shipped(LAYERED, "l2")
    assert reg.calibrate(rate=0.2).previous == holds

    assert reg.reset_calibration() == shipped(LAYERED, "l1") == reg.calibration()
    assert reg.reset_calibration() == shipped(LAYERED, "l1")


def test_the_same_seed_gives_the_same_interval(fill: Any) -> None:
    reg = fill(*families(0.0, 0.1, 0.4, 1.1, 2.6, 5.7))
    asked = [reg.calibrate(rate=0.1, seed=seed, dry_run=True).calibration for seed in (1, 1, 2)]
    assert asked[0] == asked[1]
    assert asked[0].tolerance == asked[2].tolerance


def test_relations(fill: Any) -> None:
    same = {"family": "x", "architecture": "a", "training": "sgd", "dataset": "d"}
    reg = fill(
        made("x0", 0.0, seed=0, **same),
        made("x1", 0.1, seed=1, **{**same, "family": " X ", "training": "SGD"}),
        made("x2", 0.3, **{**same, "training": "adam"}),
        made("x3", 0.7, family="x", architecture="b"),
        made("y0", 9.0, family="y", untrained=True),
        made("y1", 9.5, family="y", architecture="c"),
        made("unlabelled", 0.0),
    )
    found = reg.calibrate(rate=0.3, dry_run=True)
    assert (found.labelled, found.unlabelled) == (6, 1)
    rows = {relation.name: relation for relation in found.relations}
    assert {name: (row.pairs, row.families) for name, row in rows.items()} == {
        "unrelated": (8, 2),
        "same family": (4, 2),
        "same architecture, other training": (2, 1),
        "same architecture, other seed": (1, 1),
    }
    # Within the tolerance of 8.7 (2 of 8 unrelated pairs): one of the two models of y is of another class.
    assert found.calibration.tolerance == pytest.approx(8.7)
    assert rows["unrelated"].within == pytest.approx(2 / 8)
    assert rows["unrelated"].equivalent == pytest.approx(0 / 8)
    assert rows["same family"].within == 1.0
    assert rows["same family"].equivalent == pytest.approx(0.5)
    assert rows["same architecture, other seed"].median == pytest.approx(0.1)
    assert rows["same architecture, other training"].median in (pytest.approx(0.2), pytest.approx(0.3))


def test_labels_too_few_are_refused_and_nothing_is_stored(fill: Any) -> None:
    reg = fill(made("a", 0.0), made("b", 1.0))
    with pytest.raises(UsageError, match="at least two families, not 0 models of 0 families") as refused:
        reg.calibrate()
    assert "archreg set NAME --family" in (refused.value.remedy or "")
    reg.set("a", family="one")
    with pytest.raises(UsageError, match="not 1 model of 1 family"):
        reg.calibrate()
    reg.set("b", family="two")
    with pytest.raises(UsageError, match=r"2 models of 2 families cannot show a rate of 0\.01") as refused:
        reg.calibrate()
    assert "--rate" in (refused.value.remedy or "")
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="rate must lie between 0 and 1"):
            reg.calibrate(rate=rate)
    assert reg.calibration() == shipped(LAYERED, "l1")


def test_identical_unrelated_models_are_refused(fill: Any) -> None:
    reg = fill(*families(0.0, 0.0, 0.0, 0.0, 5.0))
    with pytest.raises(UsageError, match="at distance 0, more than the rate"):
        reg.calibrate(rate=0.05)


def test_a_role_that_may_only_read(postgres: Postgres) -> None:
    name = postgres.new_database()
    try:
        with Store.open(postgres.url(name), mode="create") as store:
            for model in families(0.0, 0.1, 0.4, 1.1, 2.6, 5.7):
                store.add(model)
        with postgres.connect(name) as connection:
            connection.execute(f"CREATE ROLE reader_{name} LOGIN".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}".encode())
        with Registry(postgres.url(name, user=f"reader_{name}")) as reader:
            before = reader.calibration()
            with pytest.raises(ReadOnlyError, match="permission denied for table calibrations") as refused:
                reader.calibrate(rate=0.1)
            assert refused.value.remedy == (
                "connect as a role, and to a server, that may write; archreg calibrate --dry-run only shows it"
            )
            assert reader.calibrate(rate=0.1, dry_run=True).calibration.models == 12
            with pytest.raises(ReadOnlyError, match="permission denied"):
                reader.reset_calibration()
            assert reader.calibration() == before
    finally:
        with postgres.connect(name) as connection:
            connection.execute(f"DROP OWNED BY reader_{name}".encode())
            connection.execute(f"DROP ROLE reader_{name}".encode())
        postgres.drop(name)


def test_a_calibration_of_another_spec_never_applies(fill: Any, registry_url: str) -> None:
    reg = fill(*families(0.0, 0.1, 0.4, 1.1, 2.6, 5.7))
    found = reg.calibrate(rate=0.1).calibration
    reg.close()
    with Store.open(registry_url, mode="write") as store:
        store.write(put_calibration, replace(found, spec_hash="0123456789abcdef", tolerance=99.0))
    assert reg.calibration().tolerance == found.tolerance
    reg.close()
    with Store.open(registry_url, mode="write") as store:
        store.write(drop_calibration, LAYERED.hash, "l1")
    assert reg.calibration() == shipped(LAYERED, "l1")


def test_nothing_to_learn_from(fill: Any, registry_url: str) -> None:
    reg = fill(made("a", 0.0, family="x"))
    reg.close()
    with Store.open(registry_url, mode="write") as store:
        store.write(drop_spec, LAYERED.hash)
    with pytest.raises(SpecMismatchError, match="archreg refingerprint"):
        reg.calibrate()
    reg.remove("a")
    with pytest.raises(EmptyRegistryError, match="archreg ingest"):
        reg.calibrate()


def test_beyond_some_number_a_sample_is_measured(fill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "MODELS", 8)
    models = [made(f"m{i}", float(i), family="large" if i < 20 else f"f{i}") for i in range(24)]
    found = fill(*models).calibrate(rate=0.3, dry_run=True)
    assert (found.labelled, found.calibration.models, found.calibration.families) == (24, 8, 5)
    assert {relation.name: relation.pairs for relation in found.relations} == {"unrelated": 4 * 4 + 6, "same family": 6}


@pytest.mark.parametrize(
    ("counts", "most", "taken"),
    [
        ({"a": 3, "b": 2}, 5, {"a": 3, "b": 2}),
        ({"a": 30, "b": 2}, 10, {"a": 8, "b": 2}),
        ({"a": 30, "b": 30, "c": 1}, 11, {"a": 5, "b": 5, "c": 1}),
        ({"a": 1, "b": 1, "c": 1}, 3, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_as_many_of_each_family_as_fit(counts: dict[str, int], most: int, taken: dict[str, int]) -> None:
    labels = [name for name, count in counts.items() for _ in range(count)]
    np.random.default_rng(0).shuffle(labels)
    rows = sampled(labels, most, seed=0)
    assert rows == sorted(set(rows))
    assert Counter(labels[row] for row in rows) == taken
    assert rows == sampled(labels, most, seed=0)


def test_more_families_than_fit() -> None:
    rows = sampled([str(i) for i in range(100)], 10, seed=0)
    assert len(set(rows)) == 10
    assert rows != sampled([str(i) for i in range(100)], 10, seed=1)
