"""Several processes at once."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

from registry.storage import Store
from registry.storage.engine import migrate
from registry.storage.models.model_queries import count_models, read_details, read_stats
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import read_fingerprints
from tests.storage.factory import CARD, LAYERS, SPEC, add_many, add_named, new_model

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITERS = 4
EACH = 25


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes that have not inherited this one's connections; what they import is imported once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.storage.factory", "registry.storage.engine.migrate", "sqlalchemy.dialects.sqlite"]
    )
    with ProcessPoolExecutor(8, mp_context=context) as executor:
        list(executor.map(Counter, ["a"] * 8))  # all started, so that what follows is at once
        yield executor


def test_first_uses_at_once_make_one_registry(pool: ProcessPoolExecutor, database_url: str) -> None:
    at = [time.time() + 0.5] * 8
    statuses = list(pool.map(add_named, [database_url] * 8, [f"m{n}" for n in range(8)], range(8), at))
    assert statuses == ["added"] * 8
    with Store.open(database_url, mode="read") as store:
        assert sorted(model.name for model in store.read(read_summaries)) == [f"m{n}" for n in range(8)]
    assert migrate.check(database_url) == ()


def test_writers_lose_nothing(pool: ProcessPoolExecutor, registry_url: str) -> None:
    jobs = [pool.submit(add_many, registry_url, worker * EACH, EACH) for worker in range(WRITERS)]
    with Store.open(registry_url, mode="read") as store:  # readers wait for nobody and see whole models
        while not all(job.done() for job in jobs):
            for model in store.read(read_summaries):
                assert model.metrics
                assert len(store.read(read_details, model.id).layers) == len(LAYERS)
        assert [status for job in jobs for status in job.result()] == ["added"] * WRITERS * EACH
        assert store.read(count_models) == WRITERS * EACH
        assert len(store.read(read_fingerprints, SPEC.hash)[0]) == WRITERS * EACH
        assert store.read(read_stats).families == ((CARD.family, WRITERS * EACH),)
    assert migrate.check(registry_url) == ()


def test_the_same_weights_by_many_names_are_one_model(pool: ProcessPoolExecutor, registry_url: str) -> None:
    for content in range(3):
        names = [f"{content}-{n}" for n in range(8)]
        at = [time.time() + 0.2] * 8
        statuses = Counter(pool.map(add_named, [registry_url] * 8, names, [content] * 8, at))
        assert statuses == {"added": 1, "named": 7}
        with Store.open(registry_url, mode="read") as store:
            assert sorted(store.read(find_model, f"{content}-3").names) == names
            assert store.read(count_models) == content + 1
    assert migrate.check(registry_url) == ()


def test_one_name_for_different_weights_goes_to_one(pool: ProcessPoolExecutor, registry_url: str) -> None:
    jobs = [pool.submit(add_named, registry_url, "a", seed) for seed in range(8)]
    outcomes = Counter(type(job.exception()).__name__ for job in jobs)
    assert outcomes == {"NoneType": 1, "NameTakenError": 7}
    with Store.open(registry_url, mode="write") as store:
        assert store.read(count_models) == 1
        assert store.add(new_model("b", 99)).status == "added"
