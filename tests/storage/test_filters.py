"""Which models a filter lets through, and which it leaves out only for values that are not known."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.dialects.postgresql import psycopg

from registry.storage.engine.dialects import among, listed
from registry.storage.engine.schema import models
from registry.storage.models.model_queries import candidate_ids, unknown_count
from registry.types import Metric, ModelCard
from registry.types.filters import Filter, MetricBound
from tests.storage.factory import new_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.storage import Store

TOP1 = MetricBound("top1", minimum=90.0)
# new_model has 1,000 + seed parameters and 4,000 + 4 seed bytes.
CARDS = (
    ModelCard(
        family="ResNet", architecture="r20", task="vision", dataset="cifar10", licence="MIT", gflops=1.0,
        metrics=(Metric("top1", 95.0, "cifar10"),), tags=(("stage", "Prod"),),
    ),
    ModelCard(family="resnet", architecture="r32", dataset="svhn", gflops=2.0, metrics=(Metric("top1", 85.0, "svhn"),)),
    ModelCard(family="vgg", architecture="r20", task="speech", licence="BSD", metrics=(Metric("top1", 91.0, "svhn"),)),
    ModelCard(family="vgg", dataset="mnist", gflops=1.5, tags=(("stage", "test"), ("owner", "prod"))),
    ModelCard(family="vit", metrics=(Metric("loss", 90.5),)),
)  # fmt: skip


@pytest.fixture
def seeds(store: Store) -> Callable[[Filter | None], list[int]]:
    """Ask a store of one model a card; a model is told by its card's place."""
    ids = {store.add(new_model(f"m{seed}", seed, card=card)).model_id: seed for seed, card in enumerate(CARDS)}

    def passing(wanted: Filter | None) -> list[int]:
        return [ids[found] for found in store.read(candidate_ids, wanted)]

    return passing


PASSING: tuple[tuple[dict[str, Any], list[int]], ...] = (
    ({}, [0, 1, 2, 3, 4]),
    ({"family": "RESNET"}, [0, 1]),
    ({"architecture": "r20"}, [0, 2]),
    ({"task": "Vision"}, [0]),
    ({"licence": "mit"}, [0]),
    ({"family": "vgg", "architecture": "r20"}, [2]),
    ({"dataset": "SVHN"}, [1, 2]),  # of the card, or measured on
    ({"dataset": "cifar10"}, [0]),
    ({"dataset": "Mnist"}, [3]),
    ({"min_params": 1003}, [3, 4]),
    ({"max_params": 1001}, [0, 1]),
    ({"min_params": 1001, "max_params": 1002}, [1, 2]),
    ({"min_params": 0}, [0, 1, 2, 3, 4]),
    ({"max_params": 0}, []),
    ({"min_bytes": 4012}, [3, 4]),
    ({"max_bytes": 4004}, [0, 1]),
    ({"max_gflops": 1.5}, [0, 3]),
    ({"metrics": (TOP1,)}, [0, 2]),
    ({"metrics": (MetricBound("TOP1", maximum=91.0),)}, [1, 2]),
    ({"metrics": (MetricBound("top1", 86.0, 94.0),)}, [2]),
    ({"metrics": (MetricBound("top1", 95.0, 95.0),)}, [0]),
    ({"metrics": (MetricBound("top1", 80.0, dataset="SVHN"),)}, [1, 2]),
    ({"metrics": (TOP1, MetricBound("top1", maximum=92.0))}, [2]),
    ({"tags": (("Stage", "prod"),)}, [0]),
    ({"tags": (("stage", "test"), ("owner", "prod"))}, [3]),
    ({"tags": (("stage", "test"), ("owner", "test"))}, []),
)


UNKNOWN: tuple[tuple[dict[str, Any], int], ...] = (
    ({}, 0),
    ({"family": "vgg", "min_params": 2_000}, 0),
    ({"max_gflops": 10.0}, 2),
    ({"max_gflops": 0.5}, 2),  # what is known to cost more is left out for that
    ({"max_gflops": 10.0, "family": "vgg"}, 1),
    ({"max_gflops": 10.0, "min_params": 1003}, 1),
    ({"metrics": (TOP1,)}, 2),
    ({"metrics": (MetricBound("top1", 90.0, dataset="svhn"),)}, 3),
    ({"metrics": (TOP1, MetricBound("loss", maximum=100.0))}, 4),
    ({"metrics": (MetricBound("top1", maximum=92.0), MetricBound("loss", maximum=1.0))}, 3),
    # Of the two bounds together: m2 lacks one value and keeps the other, m3 likewise, and m4 lacks both; m1 is
    # known to fail the one that it has a value for.
    ({"metrics": (TOP1,), "max_gflops": 10.0}, 3),
    ({"metrics": (TOP1,), "max_gflops": 1.5}, 3),
    ({"metrics": (TOP1,), "max_gflops": 1.2}, 2),
    ({"metrics": (MetricBound("top1", 93.0),), "max_gflops": 10.0}, 2),
    ({"metrics": (MetricBound("top1", 93.0),), "max_gflops": 10.0, "family": "vgg"}, 1),
)


def test_what_passes(seeds: Callable[[Filter | None], list[int]]) -> None:
    assert [(wanted, seeds(Filter(**wanted))) for wanted, _ in PASSING] == list(PASSING)
    assert seeds(None) == [0, 1, 2, 3, 4]


FOLDED = (  # stored, asked, whether they are the same
    ("Stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE", True),
    ("STRASSE", "stra\N{LATIN SMALL LETTER SHARP S}e", True),
    ("\N{LATIN CAPITAL LETTER E WITH ACUTE}cole", "e\N{COMBINING ACUTE ACCENT}COLE", True),
    ("E\N{COMBINING ACUTE ACCENT}cole", "\N{LATIN SMALL LETTER E WITH ACUTE}cole", True),
    ("\N{KELVIN SIGN}-net", "k-NET", True),
    ("\N{GREEK SMALL LETTER FINAL SIGMA}", "\N{GREEK CAPITAL LETTER SIGMA}", True),
    ("Resnet", "rESNET", True),
    ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i", False),
    ("\N{LATIN SMALL LETTER DOTLESS I}", "I", False),
    ("ecole", "\N{LATIN SMALL LETTER E WITH ACUTE}cole", False),
    ("a%b_c", "a%B_C", True),
    ("axbyc", "a%b_c", False),
    ("a'b\\c", "A'B\\C", True),
)


@pytest.mark.parametrize(("stored", "asked", "same"), FOLDED)
def test_texts_are_folded_alike_on_both_databases(store: Store, stored: str, asked: str, same: bool) -> None:
    other = ModelCard(family="other", tags=(("other", "other"),))
    store.add(new_model("other", 0, card=other))
    card = ModelCard(
        family=stored, architecture=stored, task=stored, dataset=stored, licence=stored,
        metrics=(Metric(stored, 1.0, stored),), tags=((stored, stored),),
    )  # fmt: skip
    mine = store.add(new_model("mine", 1, card=card)).model_id
    found = [mine] if same else []
    for field in ("family", "architecture", "task", "dataset", "licence"):
        assert store.read(candidate_ids, Filter(**{field: asked})) == found
    assert store.read(candidate_ids, Filter(tags=((asked, asked),))) == found
    assert store.read(candidate_ids, Filter(metrics=(MetricBound(asked, 0.0, dataset=asked),))) == found
    assert store.read(unknown_count, Filter(metrics=(MetricBound(asked, 0.0),))) == 2 - same


def test_many_spellings_of_a_text(store: Store) -> None:
    names = {"".join(letters) for letters in product("aA", "bB", "cC")}
    for seed, name in enumerate(sorted(names)):
        store.add(new_model(name, seed, card=ModelCard(family=name)))
    assert len(store.read(candidate_ids, Filter(family="aBc"))) == 8


def test_what_only_unknown_values_leave_out(store: Store, seeds: Callable[[Filter | None], list[int]]) -> None:
    assert [(wanted, store.read(unknown_count, Filter(**wanted))) for wanted, _ in UNKNOWN] == list(UNKNOWN)


def test_the_model_asked_about_is_not_counted(store: Store, seeds: Callable[[Filter | None], list[int]]) -> None:
    assert seeds(Filter(architecture="r20", family="vgg")) == [2]
    [model_id] = store.read(candidate_ids, Filter(architecture="r20", family="vgg"))
    assert store.read(unknown_count, Filter(max_gflops=10.0), model_id) == 1


def test_lists_of_any_length_are_one_parameter(store: Store, seeds: Callable[[Filter | None], list[int]]) -> None:
    ids = store.read(candidate_ids)

    def chosen(connection: Any, condition: Callable[..., Any], column: Any, values: Any) -> list[int]:
        statement = models.select().where(condition(column, values, connection)).order_by(models.c.id)
        return list(connection.scalars(statement))

    assert store.read(chosen, among, models.c.id, ids[1:3]) == ids[1:3]
    assert store.read(chosen, among, models.c.id, [*ids[3:], *range(10**6, 10**6 + 40_000)]) == ids[3:]
    assert store.read(chosen, among, models.c.id, []) == []
    assert store.read(chosen, listed, models.c.task, {"vision", "Speech", 'a"b'}) == ids[:1]
    assert store.read(chosen, listed, models.c.task, ()) == []


@pytest.mark.parametrize(
    ("condition", "column", "values", "written"),
    [
        (among, models.c.id, [3, 1], "models.id = ANY (%(param_1)s::INTEGER[])"),
        (listed, models.c.task, ["b", "a"], "models.task = ANY (%(param_1)s::TEXT[])"),
    ],
    ids=["ids", "texts"],
)
def test_a_server_takes_a_list_as_an_array(condition: Any, column: Any, values: list[Any], written: str) -> None:
    dialect = psycopg.dialect()
    compiled = condition(column, values, SimpleNamespace(dialect=dialect)).compile(dialect=dialect)
    assert (str(compiled), compiled.params) == (written, {"param_1": values})
