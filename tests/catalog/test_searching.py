"""Look-ups by radius, of modules and of several, what is unknown, and by an index: on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Metric, MetricBound, Registry
from registry.catalog import search_settings, searching
from registry.catalog.search_settings import candidates
from registry.equivalence import DISTANCES, distances, shipped
from registry.errors import StorageError, UsageError
from registry.spectral.specs import LAYERED
from registry.storage import Store
from tests.catalog.conftest import Filled, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Postgres


def names(found: Any) -> list[str]:
    return [neighbour.model.name for neighbour in found.neighbours]


def test_within_a_radius(filled: Filled) -> None:
    everything = filled.reg.search("wide", 3)
    [_, second, third] = [neighbour.distance for neighbour in everything.neighbours]
    assert names(filled.reg.search("wide", radius=second)) == names(everything)[:2]  # the bound itself is within
    assert names(filled.reg.search("wide", radius=np.nextafter(second, 0))) == names(everything)[:1]
    assert names(filled.reg.search("wide", 1, radius=third)) == names(everything)[:1]
    nothing = filled.reg.search("wide", radius=0.0)
    assert (names(nothing), nothing.searched, nothing.radius) == ([], 3, 0.0)
    assert (nothing.spec, nothing.distance, nothing.calibration) == (LAYERED, "l1", shipped(LAYERED, "l1"))
    by_l2 = filled.reg.search("wide", distance="l2")
    assert (by_l2.distance, by_l2.calibration, by_l2.radius) == ("l2", shipped(LAYERED, "l2"), None)
    assert (by_l2.note, by_l2.indexed, by_l2.unknown) == ("", False, 0)
    for radius in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"^radius must be finite and not negative, not {radius}$"):
            filled.reg.search("wide", radius=radius)
    with pytest.raises(UsageError, match=r"^radius must be a number, not 'far'"):
        filled.reg.search("wide", radius="far")
    with pytest.raises(UsageError, match=r"^k must be at least 1, not 0"):
        filled.reg.search("wide", 0)


def test_equivalents_within_a_radius(filled: Filled) -> None:
    """Within both: the radius where it is the smaller, else the tolerance."""
    everything = filled.reg.search("wide", equivalent=True, tolerance=1e6)
    assert names(everything) == ["twin", "slim"]
    [first, second] = [neighbour.distance for neighbour in everything.neighbours]
    between = (first + second) / 2
    for found in (
        filled.reg.nearest("wide", equivalent=True, tolerance=1e6, radius=between),
        filled.reg.nearest("wide", 5, equivalent=True, tolerance=1e6, radius=between),
        filled.reg.nearest("wide", equivalent=True, tolerance=between, radius=1e6),
    ):
        assert [neighbour.model.name for neighbour in found] == ["twin"]
    assert filled.reg.nearest("wide", equivalent=True, tolerance=1e6, radius=first / 2) == ()


def test_several_and_a_live_module(filled: Filled) -> None:
    torch = pytest.importorskip("torch")
    both = filled.reg.search_all(["wide", filled.files / "slim.safetensors"], k=2)
    assert both == (filled.reg.search("wide", 2), filled.reg.search("slim", 2))
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 20))
    found = filled.reg.search(module)
    assert (found.searched, len(found.neighbours)) == (4, 4)
    filled.reg.ingest(module, name="live")
    again = filled.reg.search(module)  # known by its weights now, and left out
    assert again.neighbours == replace(found, searched=4).neighbours
    assert names(filled.reg.search("live")) == names(found)


def test_what_is_unknown_fails_a_bound_and_is_counted(filled: Filled) -> None:
    reg = filled.reg
    reg.set("slim", gflops=0.5)
    reg.set("dense", gflops=5.0)
    found = reg.search("wide", max_gflops=1.0)
    assert (names(found), found.unknown) == (["slim"], 1)  # twin; the one asked about does not count
    assert reg.search("wide", max_gflops=1.0, family="mlp").unknown == 0  # dense is known, and too costly
    top1 = MetricBound("top1", 97.5)
    found = reg.search("dense", metrics=(top1,))
    assert (names(found), found.unknown) == (["wide"], 1)  # slim is known to fail; twin has none
    assert reg.search("dense", metrics=(top1,), max_gflops=1.0).unknown == 2  # wide passes but for its gigaflops
    assert reg.search("wide").unknown == reg.search("wide", family="conv").unknown == 0


def test_few_read_alone_and_all_remembered_answer_alike(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[dict[str, Any]] = [
        {"family": "conv"}, {"family": "conv", "equivalent": True}, {"max_params": 30_000, "radius": 5.0},
        {"max_params": 30_000, "equivalent": True, "tolerance": 1e6},
    ]  # fmt: skip
    few = [filled.reg.search("wide", **question) for question in questions]
    monkeypatch.setattr(search_settings, "FEW", -1)
    for question, found in zip(questions, few, strict=True):
        with Registry(filled.url) as fresh:
            assert fresh.search("wide", **question) == found == filled.reg.search("wide", **question)
    assert names(few[-1]) == ["slim"]


def test_a_few_are_read_without_remembering_all(asked: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_settings, "FEW", 2)
    ids = [asked.reg.show(name).summary.id for name in ("wide", "twin", "slim")]

    def read(store: Store, wanted: list[int] | None) -> tuple[bool, bool, list[int]]:
        found = candidates(store, LAYERED, wanted)
        chosen = found.ids if found.rows is None else found.ids[found.rows]
        return found.cached, LAYERED.hash in store.memory, sorted(chosen.tolist())

    with Store.open(asked.url, mode="read") as store:
        assert read(store, ids[:2]) == (False, False, ids[:2])
        assert read(store, ids) == (True, True, ids)
        assert read(store, ids[:2]) == (True, True, ids[:2])  # as they are remembered now
    with Store.open(asked.url, mode="read") as store:
        cached, remembered, every = read(store, None)
        assert (cached, remembered, len(every)) == (True, True, 4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_bounds_rule_out_none_of_the_nearest(asked: Filled, distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are many, float32 bounds decide which are measured; here where there are few, too."""
    questions: list[dict[str, Any]] = [{"k": 1}, {"k": 2}, {"k": 2, "family": "conv"}, {"radius": 0.5}]
    plain = [asked.reg.search("wide", distance=distance, **question) for question in questions]
    monkeypatch.setattr(distances, "PLAIN", 0)
    monkeypatch.setattr(search_settings, "FEW", -1)
    with Registry(asked.url) as reg:
        assert [reg.search("wide", distance=distance, **question) for question in questions] == plain


def test_what_others_store_is_found_at_once(filled: Filled) -> None:
    assert names(filled.reg.search("wide"))[0] == "twin"
    with Registry(filled.url) as other:
        other.remove("twin")
        assert "twin" not in names(filled.reg.search("wide"))
        other.ingest(filled.files / "twin.safetensors", name="back")
    assert names(filled.reg.search("wide"))[0] == "back"


QUESTIONS: tuple[tuple[tuple[str, Any], ...], ...] = (
    (), (("k", 1),), (("k", 2), ("family", "conv")), (("equivalent", True),), (("k", 3), ("radius", 1e-2)),
)  # fmt: skip


@pytest.fixture
def indexed(postgres_url: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    """A registry in Postgres, as no file has an index, which is asked however few the models are."""
    monkeypatch.setattr(searching, "VISIT", 0)
    with Registry(postgres_url) as reg:
        fill(reg, files)
        assert reg.index.build() == 4
        yield Filled(reg, postgres_url, files)


def test_an_index_answers_as_the_exact_search(indexed: Filled) -> None:
    reg = indexed.reg
    for question in (
        {}, {"k": 1}, {"k": 2, "family": "conv"}, {"equivalent": True}, {"equivalent": True, "tolerance": 1e-3, "k": 1},
        {"k": 3, "radius": 1e-2}, {"equivalent": True, "tolerance": 1e6, "k": 3, "radius": 1e-2},
    ):  # fmt: skip
        found, exact = reg.search("wide", **question), reg.search("wide", exact=True, **question)
        assert not exact.indexed
        assert replace(found, indexed=False) == exact, question
    assert reg.search("wide").indexed
    assert reg.search("wide", family="conv").indexed
    assert not reg.search("wide", radius=1.0).indexed  # how many there are it cannot know
    assert not reg.search("wide", searching.INDEXED_K + 1).indexed
    reg.ingest(indexed.files / "twin.safetensors", name="again")
    reg.remove("slim")
    assert names(reg.search("wide")) == names(reg.search("wide", exact=True)) == ["twin", "dense"]
    checked = reg.index.check(queries=3)
    assert checked is not None
    assert (checked.recall, checked.queries, checked.stored, checked.missing, checked.extra) == (1.0, 3, 3, 0, 0)


def test_the_index_answers_by_what_others_wrote_meanwhile(indexed: Filled) -> None:
    """Whatever a look-up has read before, the next one is of the database as it is."""
    reg = indexed.reg
    with Registry(indexed.url) as other:
        for change in (
            lambda: other.rename("twin", "renamed"), lambda: other.tag("slim", owner="anna"),
            lambda: other.set("slim", family="other"), lambda: other.set_metric("slim", Metric("top1", 1.5)),
            lambda: other.remove("renamed"), lambda: other.ingest(indexed.files / "twin.safetensors", name="back"),
            lambda: other.calibrate(rate=0.5), other.reset_calibration, other.index.drop, other.index.build,
            lambda: other.index.build(distance="l2"), lambda: other.rename("wide", "was wide"),
            lambda: other.rename("back", "wide"),
        ):  # fmt: skip
            change()
            asked = "was wide" if "was wide" in {model.name for model in reg.models()} else "wide"
            for question in ({}, {"family": "conv"}, {"distance": "l2"}, {"equivalent": True}):
                with Registry(indexed.url) as fresh:
                    exact = fresh.search(asked, exact=True, **question)
                found = reg.search(asked, **question)
                assert replace(found, indexed=False, note="") == exact
        assert reg.search("wide").indexed
        assert reg.search("wide", distance="l2").indexed
        other.index.drop()
        assert not reg.search("wide").indexed


def test_a_model_that_goes_while_it_is_asked_about(indexed: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked by its weights it is found before the search begins, and the index has it no more."""
    reg, file = indexed.reg, indexed.files / "wide.safetensors"
    expected = reg.search("wide", exact=True)
    really = searching.resolve

    def meanwhile(*given: Any, **options: Any) -> Any:
        asked = really(*given, **options)
        with Registry(indexed.url) as another:
            another.remove("wide")
        return asked

    monkeypatch.setattr(searching, "resolve", meanwhile)
    found = reg.search(file)
    assert found.indexed
    assert [(n.model, n.distance) for n in found.neighbours] == [(n.model, n.distance) for n in expected.neighbours]
    assert found.model == expected.model


def test_a_look_up_by_the_index_asks_little(indexed: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server far away is waited for as often as it is asked, and once more for the end."""
    import psycopg

    indexed.reg.search("wide")
    seen: list[str] = []
    really = psycopg.Cursor.execute

    def note(cursor: Any, statement: Any, *given: Any, **options: Any) -> Any:
        seen.append(str(statement))
        return really(cursor, statement, *given, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    assert indexed.reg.search("wide").indexed
    # One of them asks for models of an older matrix rule, which the answer counts.
    assert [words.split()[0] for words in seen] == ["BEGIN", *["SELECT"] * 6], seen


def test_models_without_a_vector_were_not_searched(indexed: Filled, postgres: Postgres) -> None:
    with postgres.connect(indexed.url.partition("@/")[2].partition("?")[0]) as connection:
        connection.execute(
            "WITH gone AS (DELETE FROM fingerprints AS f USING names AS n, specs AS s WHERE n.name = 'twin'"
            " AND n.model_id = f.model_id AND s.id = f.spec_id AND s.name = 'layered' RETURNING f.spec_id)"
            " UPDATE specs SET stamp = stamp + 1, removed = stamp + 1, indexed = stamp + 1"
            " WHERE id IN (SELECT spec_id FROM gone)"
        )
    for question in ({}, {"family": "conv"}):
        found, exact = indexed.reg.search("wide", **question), indexed.reg.search("wide", exact=True, **question)
        assert found.indexed
        assert replace(found, indexed=False) == exact
        assert found.searched == (1 if question else 2)  # not twin, nor the one asked about


def test_a_server_without_pgvector(postgres_url: str, files: Path, postgres: Postgres) -> None:
    """Where the server looks for extensions there is none; all else works, and nothing is left of the attempt."""
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with postgres.connect(name) as connection:
        connection.execute(f"ALTER DATABASE {name} SET extension_control_path = '/nonexistent'".encode())
    with Registry(postgres_url) as reg:
        fill(reg, files)
        before = reg.search("wide")
        with pytest.raises(StorageError, match="the server has no extension pgvector") as missing:
            reg.index.build()
        assert (missing.value.remedy or "").startswith("install pgvector 0.8 or later on the server")
        assert reg.search("wide") == before
        assert (before.indexed, before.note, names(before)[0]) == (False, "", "twin")
        assert reg.index.check() is None
        assert reg.index.drop() == 0
        reg.remove("twin")
        reg.ingest(files / "twin.safetensors", name="again")
        assert names(reg.search("wide"))[0] == "again"


def test_another_distance_or_a_stale_index_is_said_and_all_are_searched(indexed: Filled, postgres: Postgres) -> None:
    reg = indexed.reg
    found = reg.search("wide", distance="l2")
    assert not found.indexed
    assert "another distance than l2; run: archreg index build" in found.note
    assert found.neighbours == reg.search("wide", distance="l2", exact=True).neighbours
    assert "not of mme v1" in reg.search("wide", fingerprint="mme").note
    with postgres.connect(indexed.url.partition("@/")[2].partition("?")[0]) as connection:
        connection.execute("UPDATE specs SET stamp = stamp + 1")
    found = reg.search("wide")
    assert (found.indexed, names(found)[0]) == (False, "twin")
    assert "the index is behind the vectors" in found.note
    checked = reg.index.check()
    assert checked is not None
    assert (checked.recall, checked.problem) == (None, "the index is behind the vectors")
    assert reg.index.drop() == 1
    assert reg.search("wide").note == ""
    assert reg.index.check() is None


@pytest.mark.parametrize(
    "taken",
    [
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DELETE FROM {} WHERE model_id <> {own}",
        "DELETE FROM {} WHERE model_id = {own}",
    ],
)
def test_an_index_that_somebody_emptied_is_said_and_all_are_searched(
    taken: str, indexed: Filled, postgres: Postgres
) -> None:
    reg = indexed.reg
    own = reg.show("wide").summary.id
    exact = {question: reg.search("wide", exact=True, **dict(question)) for question in QUESTIONS}
    with postgres.connect(indexed.url.partition("@/")[2].partition("?")[0]) as connection:
        [(table,)] = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'archreg_vectors%' AND relkind = 'r'"
        ).fetchall()
        connection.execute(taken.format(table, own=own).encode())
    remedy = "run: archreg index build --fingerprint layered --distance l1"
    note = f"All models were searched: the index lacks some vectors; {remedy}"
    for question, expected in exact.items():
        found = reg.search("wide", **dict(question))
        assert replace(found, note="", indexed=False) == expected
        # Of what passes a filter there may be too little because a scan gave up.
        partly = "<>" in taken and ("family" in dict(question) or "equivalent" in dict(question))
        assert (found.indexed, found.note) == (False, "" if partly else note)
    # A model that does not pass its own question's filter is not missed in the index.
    other = reg.search("wide", family="mlp")
    assert replace(other, note="", indexed=False) == reg.search("wide", family="mlp", exact=True)
    checked = reg.index.check(queries=4, k=2)
    assert checked is not None
    assert (checked.missing > 0, checked.problem, checked.remedy) == (True, "", remedy)
    assert reg.index.build() == 4
    for question, expected in exact.items():
        found = reg.search("wide", **dict(question))
        assert replace(found, indexed=False) == expected
    assert reg.search("wide").indexed
    checked = reg.index.check(queries=4, k=2)
    assert checked is not None
    assert (checked.missing, checked.recall, checked.remedy) == (0, 1.0, "")


def test_a_file_needs_no_index(asked: Filled) -> None:
    with Registry(asked.url) as reg:
        assert reg.index.build() is None
        assert reg.index.check() is None
        with pytest.raises(UsageError, match="the distance linf has no index"):
            reg.index.build(distance="linf")
