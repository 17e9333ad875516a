"""Searches by an index, for which a stand-in answers: what is asked of it, and when it is not relied on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import select

from registry import Registry
from registry.catalog import searching
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.engine.schema import conjugacy, specs
from registry.storage.equivalence.stored_calibrations import put_calibration
from registry.storage.index import pgvector_index
from registry.storage.index.pgvector_index import Opened, OpenIndex
from registry.storage.models.vectors import count_vectors, read_fingerprints
from registry.types import Calibration
from tests.catalog.factory import NETWORKS, made

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection

# Twelve on a line, at 0, 1, 3, 6, ...: no two are as far apart. Ten are of one family, three untrained.
PLACES = [float(place * (place + 1) // 2) for place in range(12)]
UNTRAINED = {3, 5, 8}


@dataclass
class StandIn:
    """An index of a SQLite file. ``lost``: ids that it lacks; ``stops``: rows after which a scan gives up."""

    lost: set[int] = field(default_factory=set)
    stops: int = 1_000
    problem: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def open(self, store: Store, spec: Any, distance: str) -> OpenIndex:
        state = store.read(lambda connection: connection.execute(select(specs).where(specs.c.hash == spec.hash)).one())
        problem = self.problem or ("" if distance == "l1" else "the index is of l1")
        opened = Opened("public", problem, "run: archreg index build")
        return OpenIndex(opened, state, distance, store.read(count_vectors, state.id))

    def find(
        self,
        connection: Connection,
        index: OpenIndex,
        query: NDArray[np.float32] | int,
        k: int,
        *,
        ids: Sequence[int] | None = None,
        trainings: Sequence[str] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self.asked.append({"query": query, "k": k, "ids": ids, "trainings": trainings})
        known, vectors = read_fingerprints(connection, index.state.hash)
        place = {int(model): row for row, model in enumerate(known)}
        if isinstance(query, int):
            # Near to a model that is not there is anything, as pgvector has it.
            query = vectors[place[query]] if query not in self.lost else np.full(vectors.shape[1], np.nan, np.float32)
        held = np.array([row for model, row in place.items() if model not in self.lost], np.intp)
        apart = np.abs(vectors[held].astype(float) - query).sum(axis=1)
        order = held[apart.argsort(kind="stable")][: self.stops]
        classes = conjugacy.c
        rows = connection.execute(select(classes.model_id, classes.training_class))
        classed = {row[0]: row[1] for row in rows}
        passing = [
            row
            for row in order.tolist()
            if (ids is None or int(known[row]) in ids) and (trainings is None or classed[int(known[row])] in trainings)
        ]
        found = sorted(passing[: k + 2])  # some more, in no order
        return known[found], vectors[found]

    def lacks(self, connection: Connection, index: OpenIndex, model_id: int | None = None) -> bool:
        held = count_vectors(connection, index.state.id) - len(self.lost)
        return held < index.held if model_id is None else model_id in self.lost


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn()
    monkeypatch.setattr(Store, "index", lambda store, spec, distance: found.open(store, spec, distance))
    monkeypatch.setattr(pgvector_index, "find_near", found.find)
    monkeypatch.setattr(pgvector_index, "index_lacks", found.lacks)
    return found


@pytest.fixture(scope="session")
def _stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("indexed") / "registry.db"
    curve = ((0.0, 0.5), (0.05, 2.0), (0.1, 20.0), (0.5, 50.0), (1.0, 90.0))
    with Store.open(str(path), mode="create") as store:
        for number, place in enumerate(PLACES):
            store.add(made(f"m{number}", place, family="a" if number < 10 else "b", untrained=number in UNTRAINED))
        store.write(put_calibration, Calibration(LAYERED.hash, "l1", 0.75, 60.0, curve, "ours"))
    return path


@pytest.fixture
def reg(_stored: Path, index: StandIn) -> Iterator[Registry]:
    with Registry(_stored) as opened:
        yield opened


def names(found: Any) -> list[str]:
    return [neighbour.model.name for neighbour in found.neighbours]


def test_it_answers_as_the_exact_search(reg: Registry, index: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "VISIT", 0)
    for name in ("m0", "m4", "m5", "m11"):
        for question in (
            {}, {"k": 1}, {"k": 3}, {"k": 11}, {"k": 12}, {"k": 3, "family": "a"}, {"k": 3, "family": "b"},
            {"equivalent": True}, {"equivalent": True, "k": 2}, {"equivalent": True, "k": 2, "tolerance": 4.0},
            {"equivalent": True, "k": 3, "radius": 5.0}, {"equivalent": True, "k": 3, "radius": 1e6},
            {"equivalent": True, "k": 9, "tolerance": 20.0, "radius": 10.0, "family": "a"},
            {"k": 5, "radius": 6.0}, {"k": 2, "radius": 6.0}, {"k": 1, "radius": 3.0, "family": "a"},
        ):  # fmt: skip
            found, exact = reg.search(name, **question), reg.search(name, exact=True, **question)
            assert (found.indexed, exact.indexed) == (True, False), (name, question)
            assert replace(found, indexed=False) == exact, (name, question)
            assert name not in names(found)
    # One more than asked for, as the model itself is there, too.
    reg.search("m4", 3, family="a", equivalent=True)
    own, passing = reg.show("m4").summary, sorted(model.id for model in reg.models(family="a"))
    assert index.asked[-1] == {"query": own.id, "k": 4, "ids": passing, "trainings": (own.training_class,)}
    reg.search("m4", 3)
    assert index.asked[-1] == {"query": own.id, "k": 4, "ids": None, "trainings": None}
    assert reg.search("m4", 3, equivalent=True, assume_trained=True).indexed
    assert index.asked[-1]["trainings"] == ("trained", "undetermined")


def test_it_is_asked_where_that_is_cheaper(reg: Registry) -> None:
    """Where 4 (k + 1) of 12 vectors are no more than the square of what passes."""
    assert len(reg.models(family="a")) == 10
    for question, indexed in (
        ({"k": 1, "family": "a"}, True),  # 96 to 100
        ({"k": 2, "family": "a"}, False),  # 144 to 100
        ({"k": 2, "min_params": 1}, True),  # 144 to 144
        ({"k": 3, "min_params": 1}, False),
        ({"k": 11}, True),
        ({"k": searching.INDEXED_K}, True),
        ({"k": searching.INDEXED_K + 1}, False),
        ({"radius": 1e6}, False),  # how many those are it cannot know
    ):
        found = reg.search("m4", **question)
        assert (found.indexed, found.note) == (indexed, ""), question
        assert replace(found, indexed=False) == reg.search("m4", exact=True, **question), question


def test_what_is_not_in_it_is_looked_for_by_its_vector(
    reg: Registry, index: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "VISIT", 0)
    # A model that does not pass the filter of its own question.
    found = reg.search("m4", 2, family="b")
    assert (found.indexed, names(found), found.searched) == (True, ["m10", "m11"], 2)
    [vector] = [asked["query"] for asked in index.asked]
    assert vector[0] == PLACES[4]
    assert replace(found, indexed=False) == reg.search("m4", 2, family="b", exact=True)
    # Weights that are stored, and are asked about by their hash.
    found = reg.search(f"sha256:{reg.show('m4').summary.content_hash}", 3)
    assert found == reg.search("m4", 3)
    assert found.indexed
    # Weights that are not stored.
    save_file(NETWORKS["slim"](), tmp_path / "slim.safetensors")
    for question in ({"k": 2}, {"k": 12}, {"k": 20}, {"k": 3, "equivalent": True, "tolerance": 1e6}):
        found = reg.search(tmp_path / "slim.safetensors", **question)
        assert (found.indexed, found.searched, found.model.id) == (True, 12, 0)
        assert replace(found, indexed=False) == reg.search(tmp_path / "slim.safetensors", exact=True, **question)
        assert len(index.asked[-1]["query"]) == LAYERED.length


def test_all_are_searched_where_it_cannot_be_used(reg: Registry, index: StandIn) -> None:
    index.problem = "the index is behind the vectors"
    found = reg.search("m4")
    note = "All models were searched: the index is behind the vectors; run: archreg index build"
    assert (found.indexed, found.note) == (False, note)
    assert replace(found, note="") == reg.search("m4", exact=True)
    assert index.asked == []
    index.problem = ""
    assert reg.search("m4").indexed
    assert "the index is of l1; run:" in reg.search("m4", distance="l2").note


def test_all_are_searched_where_it_lacks_some(reg: Registry, index: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "VISIT", 0)
    ids = {model.name: model.id for model in reg.models()}
    lacking = "All models were searched: the index lacks some vectors; run: archreg index build"

    def search(note: str, **question: Any) -> None:
        found = reg.search("m4", **question)
        assert (found.indexed, found.note) == (False, note), question
        assert replace(found, note="") == reg.search("m4", exact=True, **question)

    # The model that is asked about.
    index.lost = {ids["m4"]}
    search(lacking)
    search(lacking, k=3, family="a")
    search(lacking, k=3, equivalent=True)
    assert reg.search("m4", 2, family="b").indexed  # where it does not pass, it is not missed
    # Others, which only a short answer shows; of what passes a filter, a scan may just have stopped before.
    index.lost = {ids["m7"]}
    search(lacking, k=11)
    search("", k=10, family="a")
    search("", k=11, equivalent=True, tolerance=1e6)
    assert reg.search("m4", 3).indexed
    # All of those that pass.
    index.lost = {ids["m10"], ids["m11"]}
    search(lacking, k=2, family="b")
    search(lacking, k=3, family="b", equivalent=True)


def test_all_are_searched_where_a_scan_stopped_too_early(
    reg: Registry, index: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "VISIT", 0)
    index.stops = 5  # m2 to m6
    for question, indexed in (
        ({"k": 4}, True),
        ({"k": 3, "family": "a"}, True),
        ({"k": 4, "family": "a"}, True),
        ({"k": 5, "family": "a"}, False),
        ({"k": 2, "equivalent": True, "tolerance": 1e6}, True),  # m2 and m6; the two others are of the other class
        ({"k": 3, "equivalent": True, "tolerance": 1e6}, False),
        # It did not stop before the radius, beyond which nothing is asked for.
        ({"k": 5, "family": "a", "radius": 5.0}, True),
        ({"k": 5, "family": "a", "radius": 50.0}, False),
        ({"k": 3, "equivalent": True, "tolerance": 8.0}, True),
    ):
        found = reg.search("m4", **question)
        assert found.indexed == indexed, question
        assert replace(found, indexed=False) == reg.search("m4", exact=True, **question), question
