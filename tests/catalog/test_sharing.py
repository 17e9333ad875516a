"""One registry in several threads, after a change of the working folder, shown and copied."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from registry import Among, Registry
from registry.catalog.ingest_runs import IngestRuns
from registry.catalog.kept_classes import KeptClasses
from registry.catalog.vector_index import VectorIndex
from registry.errors import DatabaseMissingError, UsageError

if TYPE_CHECKING:
    from tests.catalog.conftest import Filled


def test_threads_wait_for_each_other(filled: Filled) -> None:
    alone = {name: filled.reg.nearest(name, k=3) for name in ("wide", "slim")}
    barrier = threading.Barrier(4)

    def ask(name: str) -> bool:
        barrier.wait()
        return all(filled.reg.nearest(name, k=3) == alone[name] for _ in range(30))

    def store(name: str) -> bool:
        barrier.wait()
        done = [filled.reg.ingest(torch.nn.Linear(4, 3), name=f"{name}{n}", tags=[("kind", name)]) for n in range(5)]
        return [each.status for each in done] == ["added"] * 5

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, ["wide", "slim", "wide", "slim"]))
        assert all(pool.map(store, ["a", "b", "c", "d"]))
    assert len(filled.reg.models(tags=[("kind", "d")])) == 5
    assert filled.reg.check() == ()


def test_a_thread_waits_while_another_is_asked(asked: Filled) -> None:
    told = threading.Event()
    with asked.reg._lock:  # as within any method
        other = threading.Thread(target=lambda: (asked.reg.stats(), told.set()))
        other.start()
        assert asked.reg.stats().models  # its own thread does not wait
        assert not told.wait(0.2)
    assert told.wait(30)
    other.join()


WAITING = {
    "index": lambda reg: reg.index.check(),
    "runs": lambda reg: reg.runs.list(),
    "partitions": lambda reg: reg.partitions.list(),
    "nearest": lambda reg: reg.nearest("wide"),
    "compare": lambda reg: reg.compare("wide", "slim"),
    "classes": lambda reg: reg.classes(keep=False),
    "models": lambda reg: reg.models(),
    "show": lambda reg: reg.show("wide"),
    "[]": lambda reg: reg["wide"],
    "in": lambda reg: "wide" in reg,
    "len": len,
    "iter": list,
    "check": lambda reg: reg.check(),
    "calibration": lambda reg: reg.calibration(),
}


@pytest.mark.parametrize("question", WAITING)
def test_every_question_waits(asked: Filled, question: str) -> None:
    answered = threading.Event()
    with asked.reg._lock:
        other = threading.Thread(target=lambda: (WAITING[question](asked.reg), answered.set()))
        other.start()
        assert not answered.wait(0.05)
    assert answered.wait(30)
    other.join()


OPENING = ("_database", "_databases", "_settings", "_question", "_both", "_opened", "_asked", "_selected")


def test_every_method_that_opens_the_database_holds_the_lock() -> None:
    """What is done by its store, or by the database handed on, is done within ``with ...lock``."""
    unlocked: list[str] = []
    for group in (Registry, Among, IngestRuns, VectorIndex, KeptClasses):
        for name, method in inspect.getmembers(group, inspect.isfunction):
            if name in ("__init__", "__repr__", "_settings", "_question", "_both", "_opened", "_asked", "_selected"):
                continue
            tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
            locked = {
                id(node)
                for block in ast.walk(tree)
                if isinstance(block, ast.With) and ast.unparse(block.items[0].context_expr).endswith("lock")
                for node in ast.walk(block)
            }
            unlocked += [
                f"{group.__name__}.{name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr in OPENING
                if id(node) not in locked
            ]
    assert unlocked == []


def test_within_a_running_event_loop(asked: Filled) -> None:
    async def ask() -> list[int]:
        here = len(asked.reg.nearest("wide", k=2))
        others = await asyncio.gather(*(asyncio.to_thread(asked.reg.nearest, "wide", 2) for _ in range(4)))
        return [here, *map(len, others)]

    assert asyncio.run(ask()) == [2] * 5


@pytest.mark.parametrize("url", ["zoo.db", "sqlite:///zoo.db", Path("zoo.db"), None])
def test_a_relative_path_is_from_where_it_was_given(
    tmp_path: Path, url: str | Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    name = "archreg.db" if url is None else "zoo.db"
    unopened, opened = Registry(url), Registry(url)
    with pytest.raises(DatabaseMissingError, match=rf"^(sqlite:///)?{name} holds no registry yet"):
        opened.models()
    monkeypatch.chdir(elsewhere)
    with unopened, opened:
        unopened.ingest(torch.nn.Linear(4, 3), name="one")
        opened.ingest(torch.nn.Linear(4, 3), name="other")
        assert [model.name for model in unopened.models()] == ["one", "other"]
        assert (
            repr(opened) == f"Registry({('sqlite:///' if url == 'sqlite:///zoo.db' else '') + str(tmp_path / name)!r})"
        )
    assert (tmp_path / name).exists()
    assert not list(elsewhere.iterdir())
    with pytest.raises(DatabaseMissingError, match=f"{name} holds no registry yet"):
        Registry(url).models()


def test_a_registry_shows_where_it_is_without_a_password(asked: Filled) -> None:
    assert repr(asked.reg) == f"Registry({asked.reg._database.url!r})"
    shown = repr(Registry("postgresql://me:secret@host/db"))
    assert shown == "Registry('postgresql://me:***@host/db')"
    assert repr(Registry("postgresql://me:secret@host:port/db")) == "Registry('...')"


def test_a_registry_cannot_be_pickled(asked: Filled) -> None:
    with pytest.raises(TypeError, match=r"Registry\('.*registry\.db'\) is a connection"):
        pickle.dumps(asked.reg)


@pytest.mark.parametrize("url", [":memory:", "sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused_however_it_is_written(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Registry(url) as reg, pytest.raises(UsageError, match="a database in memory would be gone"):
        reg.ingest(torch.nn.Linear(4, 3), name="one")
    assert not list(tmp_path.iterdir())


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Registry("~/zoo.db") as reg:
        reg.ingest(torch.nn.Linear(4, 3), name="one")
    assert [path.name for path in tmp_path.iterdir()] == ["zoo.db"]


FORKED = """
import multiprocessing, sys
from registry import Registry
from registry.catalog.ingest_runs import IngestRuns
from registry.catalog.kept_classes import KeptClasses
from registry.catalog.vector_index import VectorIndex

reg = Registry(sys.argv[1])
alone = {name: reg.nearest(name, k=3) for name in ("wide", "slim")}


def ask(number):
    names = ("wide", "slim")[:: 1 if number % 2 else -1]
    return all(reg.nearest(name, k=3) == alone[name] for _ in range(40) for name in names)


with multiprocessing.get_context("fork").Pool(4) as pool:
    assert all(pool.map(ask, range(8), chunksize=1))
assert ask(0)
"""


def test_a_forked_process_opens_its_own(filled: Filled) -> None:
    """On one connection, answers to one process would come to another."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, filled.url], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
