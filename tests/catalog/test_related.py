"""Questions about relations among many models: what is found, what is left out, and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from registry.catalog import relatives, searching
from registry.errors import SpecMismatchError, UsageError
from registry.types import Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.types import Related

SHAPES = ((32, 16), (32, 32), (32, 32), (24, 32), (10, 24))
Tensors = dict[str, np.ndarray]


def network(seed: int, shapes: tuple[tuple[int, ...], ...] = SHAPES, prefix: str = "l") -> Tensors:
    rng = np.random.default_rng(seed)
    return {f"{prefix}{at}.weight": rng.standard_normal(shape).astype(np.float32) for at, shape in enumerate(shapes)}


def tuned(start: Tensors, seed: int, amount: float) -> Tensors:
    """A descendant: correlation 1 / sqrt(1 + amount^2)."""
    rng = np.random.default_rng([seed, 7])
    return {name: w + amount * rng.standard_normal(w.shape).astype(np.float32) for name, w in start.items()}


def permuted(start: Tensors, seed: int) -> Tensors:
    """The same function, with the hidden units in another order."""
    rng = np.random.default_rng(seed)
    found, order = {}, np.arange(start["l0.weight"].shape[1])
    for at, (name, w) in enumerate(start.items()):
        outputs = rng.permutation(len(w)) if at < len(start) - 1 else np.arange(len(w))
        found[name] = np.ascontiguousarray(w[outputs][:, order])
        order = outputs
    return found


def add(reg: Registry, folder: Path, name: str, tensors: Tensors, **card: str) -> None:
    save_file(tensors, folder / f"{name}.safetensors")
    done = reg.ingest(folder / f"{name}.safetensors", **card)  # type: ignore[arg-type]
    assert (done.status, done.message) == ("added", "")


def told(found: Related) -> list[tuple[str, str]]:
    return [(each.model.name, each.relation.verdict) for each in found.relatives]


def store_family(url: str) -> None:
    """A start with descendants, one with another head, and strangers of its topology and of another."""
    start = network(1)
    head = {**start, "l4.weight": network(2, ((7, 24),))["l0.weight"]}
    with TemporaryDirectory() as name, Registry(url) as reg:
        folder = Path(name)
        add(reg, folder, "start", start, family="a")
        add(reg, folder, "near", tuned(start, 1, 0.1), family="a")
        add(reg, folder, "far", tuned(start, 2, 1.0), family="b")
        add(reg, folder, "head", head, family="b")
        add(reg, folder, "shuffled", permuted(start, 3), family="a")
        add(reg, folder, "stranger", network(4), family="a")
        add(reg, folder, "narrow", network(5, ((9, 8), (9, 9), (9, 9), (9, 9))), family="a")


@pytest.fixture
def reg(copied: Callable[..., str]) -> Iterator[Registry]:
    with Registry(copied(store_family)) as reg:
        yield reg


EXPECTED = [("shuffled", "permuted"), ("near", "related"), ("head", "related"), ("far", "related")]


def test_relatives_come_by_their_correlation(reg: Registry) -> None:
    found = reg.related("start")
    names = [name for name, _ in told(found)]
    assert names[0] == "shuffled"
    assert names[3] == "far"
    assert sorted(told(found)) == sorted(EXPECTED)
    assert (found.found, found.compared, found.exactly, found.unlike, found.unsketched) == (4, 5, 5, 1, 0)
    by_name = {each.model.name: each.relation for each in found.relatives}
    assert by_name["near"].correlation == pytest.approx(1 / np.sqrt(1.01), abs=0.1)
    assert by_name["far"].correlation == pytest.approx(1 / np.sqrt(2), abs=0.1)
    assert by_name["head"].layers == 4
    for name, relation in by_name.items():
        assert relation == reg.relation("start", name)


def test_limits_filters_and_all_verdicts(reg: Registry) -> None:
    found = reg.related("start", 2)
    assert (len(found.relatives), found.found) == (2, 4)
    assert [name for name, _ in told(reg.related("start", family="B"))] == ["head", "far"]
    every = reg.related("start", every=True)
    assert told(every)[-1] == ("stranger", "independent")
    assert every.found == 4
    lone = reg.related("narrow", every=True)
    assert (told(lone), lone.compared, lone.unlike) == ([], 0, 6)


def test_a_file_is_a_query_too_and_what_is_stored_of_it_is_left_out(reg: Registry, tmp_path: Path) -> None:
    save_file(tuned(network(1), 9, 0.2), tmp_path / "new.safetensors")
    found = reg.related(tmp_path / "new.safetensors")
    assert [name for name, _ in told(found)][:3] in (["start", "near", "head"], ["head", "start", "near"])
    assert found.model.id == 0
    save_file(network(1), tmp_path / "again.safetensors")
    assert "start" not in {name for name, _ in told(reg.related(tmp_path / "again.safetensors"))}


@pytest.mark.parametrize("limit", [64_000_000, 1])
def test_signs_find_the_same(reg: Registry, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """With many models, those compared exactly are chosen by signs: here with all but none allowed without."""
    expected = told(reg.related("start"))
    monkeypatch.setattr(relatives, "MOST_EXACT", 4)
    cache = reg._database.readable().sketches(1)
    monkeypatch.setattr(cache, "limit", limit)
    found = reg.related("start")
    assert told(found) == expected
    assert (found.compared, found.exactly) == (5, 4)  # signs rule out what is permuted
    assert reg.related("stranger").found == 0
    assert len(cache._signs) == (2 if limit > 1 else 1)
    monkeypatch.setattr(relatives, "MOST_EXACT", 2)
    assert (reg.related("start").exactly, reg.related("start").unchecked) == (2, 1)
    assert {name for name, _ in told(reg.related("start"))} == {"shuffled", "near", "head"}


def test_too_many_models_are_cut_and_counted(reg: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relatives, "MOST_COMPARED", 4)
    found = reg.related("start")
    assert (found.compared, found.cut) == (4, 1)  # the one with another head has less in common
    assert "head" not in {name for name, _ in told(found)}
    monkeypatch.setattr(relatives, "MOST_COMPARED", 100)
    monkeypatch.setattr(relatives, "MOST_TOPOLOGIES", 1)
    assert (reg.related("start").compared, reg.related("start").cut) == (4, 1)


@pytest.mark.parametrize("exact", [400, 2])
def test_memory_follows_the_database(
    reg: Registry, database_url: str, tmp_path: Path, exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process adds, removes, and reads weights again; the answers are those of a registry opened anew."""
    monkeypatch.setattr(relatives, "MOST_EXACT", exact)

    def same() -> list[tuple[str, str]]:
        with Registry(database_url) as fresh:
            expected = fresh.related("start")
        found = reg.related("start")
        assert found == expected
        return told(found)

    same()
    with Registry(database_url) as other:
        add(other, tmp_path, "newer", tuned(network(1), 5, 0.05))
        assert ("newer", "related") in same()
        other.remove("near")
        assert "near" not in {name for name, _ in same()}
        add(other, tmp_path, "fresh", {**tuned(network(1), 6, 0.05), "l5.weight": network(8, ((12, 10),))["l0.weight"]})
        assert ("fresh", "related") in same()
        other.rename("newer", "renamed")
        other.set("renamed", family="z")
        assert ("renamed", "related") in same()


def test_models_without_sketches_are_counted_and_refused(reg: Registry, tmp_path: Path) -> None:
    from sqlalchemy import delete

    from registry.storage.engine.schema import sketches

    store = reg._database.writable()
    model = reg["near"].id
    store.write(lambda connection: connection.execute(delete(sketches).where(sketches.c.model_id == model)))
    reg.close()
    found = reg.related("start")
    assert (found.compared, found.unsketched) == (4, 1)
    with pytest.raises(SpecMismatchError, match="near: it has no sketches of this version"):
        reg.related("near")
    save_file(tuned(network(1), 1, 0.1), tmp_path / "near.safetensors")
    reg.ingest(tmp_path / "near.safetensors")  # adds what is missing, which the memory is told of
    assert ("near", "related") in told(reg.related("start"))
    save_file(network(11), tmp_path / "unread.safetensors")
    reg.ingest(tmp_path / "unread.safetensors", headers_only=True)
    assert reg.related("start").unsketched == 1
    with pytest.raises(SpecMismatchError, match="unread: its weights were not read"):
        reg.related("unread")


def test_sketches_that_are_imported_later_are_seen(reg: Registry, tmp_path: Path) -> None:
    from sqlalchemy import delete

    from registry.storage.engine.schema import sketches

    reg.export(tmp_path / "whole.db")
    store = reg._database.writable()
    store.write(lambda connection: connection.execute(delete(sketches)))
    reg.close()
    with pytest.raises(SpecMismatchError):
        reg.related("start")
    reg.export(tmp_path / "bare.db")
    with Registry(tmp_path / "bare.db") as bare:
        assert bare.relation("start", "near").verdict == "not comparable"
        bare.import_from(tmp_path / "whole.db")
        assert told(bare.related("start"))[0] == ("shuffled", "permuted")
        assert bare.related("start").found == 4


def test_one_and_two_layers_are_related_only_by_high_correlations(registry_url: str, tmp_path: Path) -> None:
    start = network(1, ((40, 40), (20, 40)))
    with Registry(registry_url) as reg:
        add(reg, tmp_path, "start", start)
        add(reg, tmp_path, "near", tuned(start, 1, 0.2))
        add(reg, tmp_path, "far", tuned(start, 2, 4.0))
        add(reg, tmp_path, "half", {"l0.weight": start["l0.weight"], "l1.weight": network(3, ((90, 40),))["l0.weight"]})
        found = reg.related("start", every=True)
    assert told(found) == [("near", "related"), ("far", "undecided")]
    assert found.unlike == 1  # less than half of the weights is in one layer of equal shape
    assert isinstance(found.relatives[0].relation, Relation)


def names_of(models: object) -> set[str]:
    return {model.name for model in models}  # type: ignore[attr-defined]


RELATIVES = {"start", "near", "far", "head", "shuffled"}


@pytest.mark.parametrize("exact", [400, 2])
def test_filters_on_relations(reg: Registry, monkeypatch: pytest.MonkeyPatch, exact: int) -> None:
    monkeypatch.setattr(relatives, "MOST_EXACT", exact)
    assert names_of(reg.models(related_to="start")) == RELATIVES
    assert names_of(reg.models(related_to="start", family="a")) == {"start", "near", "shuffled"}
    assert names_of(reg.models(unrelated_to="start")) == {"stranger", "narrow"}
    assert names_of(reg.models(related_to="start", unrelated_to="start")) == set()
    found = reg.search("stranger", 9, related_to="start")
    assert names_of(each.model for each in found.neighbours) == RELATIVES
    assert reg.classes(related_to="start").models == 5
    assert reg.classes(related_to="start").kept
    assert reg.classes(unrelated_to="start").models == 2
    assert names_of(each.model for each in reg.compress("near", unrelated_to="near", k=9).candidates) <= {"narrow"}
    assert reg.tree(unrelated_to="start").compared == 2


def test_filters_on_relations_tell_of_models_without_sketches(reg: Registry, tmp_path: Path) -> None:
    save_file(network(11), tmp_path / "unread.safetensors")
    reg.ingest(tmp_path / "unread.safetensors", headers_only=True)
    assert "unread" not in names_of(reg.models(unrelated_to="start")) | names_of(reg.models(related_to="start"))
    assert reg.search("start", related_to="start").unknown == 1
    assert reg.search("start", unrelated_to="start").unknown == 1
    assert reg.search("start", unrelated_to="start", family="none").unknown == 0
    [removal] = reg.select(related_to="narrow", family="b", aims=["min:params"]).removals[-1:]
    assert (removal.constraint, removal.removes, removal.unknown) == ("related to narrow", 7, 1)
    with pytest.raises(SpecMismatchError, match="unread: its weights were not read"):
        reg.models(related_to="unread")


def test_a_filter_that_cannot_tell_all_is_refused(reg: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relatives, "MOST_TOPOLOGIES", 1)
    with pytest.raises(UsageError, match="1 model beyond those compared may be related to start"):
        reg.models(unrelated_to="start")


def test_neighbours_and_candidates_come_with_their_relation(
    reg: Registry, database_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert all(each.relation is None for each in reg.nearest("start"))
    found = reg.search("start", 9, relations=True)
    assert {each.model.name: each.relation for each in found.neighbours} == {
        name: reg.relation("start", name) for name in names_of(reg.models()) - {"start"}
    }
    save_file(tuned(network(1), 9, 0.2), tmp_path / "new.safetensors")
    of_file = reg.search(tmp_path / "new.safetensors", 9, relations=True).neighbours
    assert {each.model.name for each in of_file if each.relation and each.relation.verdict == "related"} >= {
        "start",
        "near",
    }
    candidates = reg.compress("start", relations=True, tolerance=9.0).candidates
    assert {each.model.name: each.relation.verdict for each in candidates if each.relation} == {"head": "related"}
    from registry.cli.app import main

    def told_by(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--db", database_url])
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    lines = {line.split()[0]: line for line in told_by("nearest", "start").splitlines()}
    assert "related r 0.7" in lines["far"]
    assert "permuted" in lines["shuffled"]
    assert "independent" in lines["stranger"]
    assert "related r" in told_by("compress", "start", "--tolerance", "9")
    document = json.loads(told_by("nearest", "start", "--json"))
    assert {each["name"]: each["relation"]["verdict"] for each in document["neighbours"]}["near"] == "related"


def test_the_first_neighbours_alone_come_with_their_relation(reg: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOST_RELATIONS", 2)
    known = [each.relation is not None for each in reg.search("start", relations=True).neighbours]
    assert known == [True, True, False, False, False, False]
