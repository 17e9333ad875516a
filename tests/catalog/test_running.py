"""Runs: the journal, going on after whatever ended them, several at once; on both databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks.stress import content, ingest, kill_and_resume, make_models, write_at_once
from registry import Registry
from registry.catalog import measuring
from registry.errors import DatabaseMissingError, StorageError, UsageError
from registry.ingest import Silent
from registry.storage import Store
from registry.storage import store as store_module
from registry.storage.journal.run_journal import beat_run
from registry.storage.models import adding
from registry.storage.models.changes import remove
from registry.types import ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.types import ModelRef
    from tests.conftest import Postgres

NAMES = [f"m{n}" for n in range(6)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return make_models(tmp_path / "models", {name: n for n, name in enumerate(NAMES)})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are opened, which a finished item is not."""
    names: list[str] = []
    real = measuring.Reading.__call__

    def watched(reading: Any, task: Any) -> Any:
        names.append(task.ref.name)
        return real(reading, task)

    monkeypatch.setattr(measuring.Reading, "__call__", watched)
    return names


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back is stored at once, so that it is known at which model something happens."""
    monkeypatch.setattr(sys.modules["registry.ingest.runner"], "HOLD", 0.0)


class Stopping(Silent):
    """Raises when so many models are done."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.left, self.error = after, error

    def start(self, ref: ModelRef) -> None:  # noqa: ARG002
        if self.left == 0:
            raise self.error
        self.left -= 1


def states(reg: Registry, run: int = 1) -> list[str]:
    return [item.state for item in reg.runs.items(run)]


def test_an_interrupted_run_goes_on_and_reads_nothing_twice(
    database_url: str, models: Path, measured: list[str]
) -> None:
    with Registry(database_url) as reg:
        refs = reg.plan([models])
        with pytest.raises(KeyboardInterrupt) as stopped:
            reg.ingest_all(refs, progress=Stopping(4, KeyboardInterrupt()), command="archreg ingest models")
        assert stopped.value.__notes__ == ["4 of 6 models are stored"]
        [run] = reg.runs.list()
        assert (run.state, run.command, run.done, run.waiting) == ("interrupted", "archreg ingest models", 4, 2)
        results = reg.ingest_all(refs)
        assert [result.status for result in results] == ["known"] * 4 + ["added"] * 2
        assert results[0].message == "stored by an earlier start of this run"
        [run] = reg.runs.list()
        assert (run.state, run.done, run.failed) == ("done", 6, 0)
        assert states(reg) == ["added"] * 6
        assert [result.status for result in reg.ingest_all(refs)] == ["known"] * 6
        assert len(reg.runs.list()) == 1
    assert measured == NAMES


def test_what_changed_or_went_is_done_again(registry_url: str, models: Path, measured: list[str]) -> None:
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        reg.ingest_all(refs, replace=True)
        measured.clear()
        make_models(models, {"m1": 77})
        os.utime(models / "m2.safetensors", (1, 1))
        reg.remove("m3")
        reg.rename("m4", "other")
        results = reg.ingest_all(reg.plan([models]), replace=True)
        assert measured == ["m1", "m2", "m3", "m4"]
        assert [result.status for result in results] == ["known", "added", "known", "added", "named", "known"]
        assert reg.show("m4").summary.names == ("other", "m4")


def test_another_plan_is_another_run(registry_url: str, models: Path) -> None:
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        reg.ingest_all(refs[:4])
        results = reg.ingest_all(refs)
        assert [result.message for result in results[:4]] == ["already stored; nothing added"] * 4
        reg.ingest_all(reg.plan([models], card=ModelCard(family="tiny")))
        assert {model.family for model in reg.models()} == {"tiny"}
        reg.ingest_all(refs, keep_spectra=False)
        assert [run.items for run in reg.runs.list()] == [6, 6, 6, 4]


def test_failures_are_told_and_tried_again(registry_url: str, models: Path, measured: list[str]) -> None:
    save_file({"w": np.full((4, 4), np.nan, np.float32)}, models / "a.safetensors")  # before any success
    save_file({"w": np.full((4, 4), np.nan, np.float32)}, models / "m9.safetensors")
    with Registry(registry_url) as reg:
        refs = reg.plan([models], card=ModelCard(family="tiny", tags=(("k", "v"),)))
        reg.ingest_all(refs, keep_spectra=False)
        failed = reg.runs.items(1, states=["failed"])
        assert [(item.name, item.attempts) for item in failed] == [("a", 1), ("m9", 1)]
        assert all(item.remedy and "w" in item.message for item in failed)
        make_models(models, {"a": 99})
        measured.clear()
        results = reg.runs.retry(1)
        assert [result.status for result in results] == ["added", *["known"] * 6, "failed"]
        assert measured == ["a", "m9"]
        [item] = reg.runs.items(1, states=["failed"])
        assert (item.name, item.attempts) == ("m9", 2)
        shown = reg.show("a")
        assert (shown.summary.family, shown.tags, shown.has_spectra) == ("tiny", (("k", "v"),), False)
        for ask in (reg.runs.get, reg.runs.items, reg.runs.retry):
            with pytest.raises(UsageError, match="no run 5") as refused:
                ask(5)
            assert refused.value.remedy


def test_no_success_no_database_and_no_journal(tmp_path: Path) -> None:
    save_file({"w": np.full((4, 4), np.nan, np.float32)}, tmp_path / "a.safetensors")
    with Registry(tmp_path / "new.db") as reg:
        [result] = reg.ingest_all(reg.plan([tmp_path / "a.safetensors"]))
        assert result.status == "failed"
        with pytest.raises(DatabaseMissingError):
            reg.runs.list()


def test_odd_names_and_paths(registry_url: str, tmp_path: Path) -> None:
    folder = make_models(tmp_path / "odd", {"ok": 1})
    (folder / os.fsdecode(b"bad\xff\x1b.safetensors")).write_bytes((folder / "ok.safetensors").read_bytes())
    with Registry(registry_url) as reg:
        reg.ingest_all(reg.plan([folder / "ok.safetensors"]))
        results = reg.ingest_all(reg.plan([folder]))
        assert sorted(result.status for result in results) == ["failed", "known"]
        [item] = reg.runs.items(2, states=["failed"])
        assert "name" in item.message
        assert [result.status for result in reg.runs.retry(2)].count("failed") == 1


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_a_clean_stop(
    workers: int, registry_url: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SQLite and Postgres report it, at the fourth model, once; what comes with it is not stored either."""
    fit = 3
    real = Store.add_all

    def full(store: Store, given: Any, *rest: Any, **settings: Any) -> Any:
        nonlocal fit
        if len(given) > fit:
            fit = 1_000
            if "sqlite" in registry_url:
                error: Exception = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[attr-defined]
            else:
                import psycopg.errors

                error = psycopg.errors.DiskFull("could not extend file: No space left on device")

            def refuse(_connection: Any) -> Any:
                from sqlalchemy.exc import OperationalError

                raise OperationalError("INSERT", {}, error)

            return store.write(refuse)
        fit -= len(given)
        return real(store, given, *rest, **settings)

    monkeypatch.setattr(Store, "add_all", full)
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        with pytest.raises(StorageError, match=r"full|No space left") as stopped:
            reg.ingest_all(refs, workers=workers)
        [run] = reg.runs.list()
        done = run.done
        assert done == 3 if workers == 1 else done <= 3
        assert (run.state, reg.stats().models, run.waiting) == ("stopped", done, 6 - done)
        onward = (
            f"{done} of 6 models {'is' if done == 1 else 'are'} stored, and the same command continues with the rest"
        )
        assert stopped.value.remedy == f"free some disk space and run it again; {onward}"
        again = sorted(result.status for result in reg.ingest_all(refs, workers=workers))
        assert again == ["added"] * (6 - done) + ["known"] * done
        assert reg.check() == ()


@contextmanager
def no_space(url: str, table: str, rows: int) -> Iterator[None]:
    """The database itself refuses what a full disk would refuse, from that row of a table on.

    SQLite may grow no more from the statement on that would store this row; Postgres raises the error that it has for a
    full disk, of this statement.
    """
    if "sqlite" not in url:
        run(
            url,
            """
            CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE held integer;
            BEGIN
                EXECUTE format('SELECT count(*) FROM %%I', TG_TABLE_NAME) INTO held;
                IF held >= TG_ARGV[0]::integer THEN
                    RAISE EXCEPTION USING ERRCODE = 'disk_full',
                        MESSAGE = 'could not extend file: No space left on device';
                END IF;
                RETURN NEW;
            END $$
            """,
            f"CREATE TRIGGER no_space BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_space({rows - 1})",
        )
        yield
        run(url, f"DROP TRIGGER no_space ON {table}", "DROP FUNCTION no_space")
        return
    left = rows

    def limit(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal left
        left -= statement.startswith(f"INSERT INTO {table} ")
        if not left:
            cursor.execute("PRAGMA max_page_count=1")  # as many as there are, where these are more

    event.listen(Engine, "before_cursor_execute", limit)
    yield
    event.remove(Engine, "before_cursor_execute", limit)


def run(url: str, *statements: str) -> None:
    with Store.open(url, mode="write") as store:
        for statement in statements:
            store.write(lambda connection, statement=statement: connection.exec_driver_sql(statement))


LIMITED = """
from sqlalchemy import event
from sqlalchemy.engine import Engine
from registry.cli.app import main

@event.listens_for(Engine, "before_cursor_execute")
def limit(_connection, cursor, statement, *_rest):
    if statement.startswith("INSERT INTO sketches "):
        cursor.execute("PRAGMA max_page_count=1")

"""


def started(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


TABLES_OF_WEIGHTS = ("sketches", "weight_figures")
AS_OF_OLD = ("DELETE FROM sketches", "DELETE FROM weight_figures", "DELETE FROM items", "DELETE FROM runs")
"""Leave what a version kept that knew neither of these tables, and no run that has stored the models."""


def whole_content(models: Path, file: Path) -> dict[str, Any]:
    """What an ingest that nothing disturbs stores of the models."""
    with Registry(file) as reg:
        reg.ingest_all(reg.plan([models]), workers=1)
    stored = content(str(file))
    assert not any(None in row for row in stored.values())
    return stored


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("table", TABLES_OF_WEIGHTS)
def test_a_disk_full_of_what_only_weights_tell_leaves_whole_models(
    table: str, database_url: str, models: Path, tmp_path: Path
) -> None:
    whole = whole_content(models, tmp_path / "whole.db")
    with Registry(database_url) as reg:
        reg.ingest_all(reg.plan([models])[:1])
    with Registry(database_url) as reg, no_space(database_url, table, 3):
        with pytest.raises(StorageError, match=r"full|No space left") as stopped:
            reg.ingest_all(reg.plan([models]), workers=1)
        assert "\n" not in stopped.value.message
        assert (stopped.value.remedy or "").startswith("free some disk space and run it again; ")
        stored = content(database_url)
        assert 2 <= len(stored) < 6
        assert stored.items() <= whole.items()
    with Registry(database_url) as reg:
        assert reg.check() == ()
        again = [result.status for result in reg.ingest_all(reg.plan([models]), workers=1)]
        assert sorted(again) == ["added"] * (6 - len(stored)) + ["known"] * len(stored)
        assert reg.check() == ()
    assert content(database_url) == whole


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("table", TABLES_OF_WEIGHTS)
def test_a_disk_that_is_full_while_old_models_are_completed_leaves_them_as_they_were(
    table: str, database_url: str, models: Path, tmp_path: Path
) -> None:
    """Models of a version that kept neither sketches nor figures of weights."""
    whole = whole_content(models, tmp_path / "whole.db")
    with Registry(database_url) as reg:
        reg.ingest_all(reg.plan([models]), workers=1)
    run(database_url, *AS_OF_OLD)
    if "sqlite" in database_url:
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
            connection.execute("VACUUM")  # no page is free
        connection.close()
    with Registry(database_url) as reg, no_space(database_url, table, 3):
        with pytest.raises(StorageError, match=r"full|No space left"):
            reg.ingest_all(reg.plan([models]), workers=1)
        stored = content(database_url)
        parts = [row[-2:] for row in stored.values()]
        complete = sum(part != (None, None) for part in parts)
        assert 2 <= complete < 6
        assert all(row in (whole[key], (*whole[key][:-2], None, None)) for key, row in stored.items())
        assert len(reg.to_read_again()) == 6 - complete
    with Registry(database_url) as reg:
        reg.ingest_all(reg.plan([models]), workers=1)
        assert reg.to_read_again() == ()
        assert reg.check() == ()
    assert content(database_url) == whole


def test_the_command_tells_of_a_full_disk_in_two_lines(database_url: str, models: Path) -> None:
    with Registry(database_url) as reg:
        reg.ingest_all(reg.plan([models])[:1])
    if "sqlite" in database_url:
        path = database_url.removeprefix("sqlite:///")
        code = f"import sys; sys.argv = ['archreg', 'ingest', {str(models)!r}, '--db', {path!r}, '--workers', '1']"
        process = started(LIMITED + code + "; main()")
        with process:
            out, err = process.communicate(timeout=60)
    else:
        with no_space(database_url, "sketches", 2):
            process = ingest(database_url, models, "--workers", "1")
            out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "Traceback" not in out + err
    [told] = [line for line in err.splitlines() if line.startswith("archreg: ")]
    assert "full" in told or "No space left" in told
    assert "free some disk space and run it again" in err


def test_two_commands_at_once_store_what_only_weights_tell_once(database_url: str, tmp_path: Path) -> None:
    models = make_models(tmp_path / "models", {f"t{n}": n for n in range(16)})
    whole = whole_content(models, tmp_path / "whole.db")
    for _ in range(2):
        processes = [ingest(database_url, models, "--quiet", "--workers", "1") for _ in range(2)]
        told = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], told
        assert content(database_url) == whole
        with Registry(database_url) as reg:
            assert reg.to_read_again() == ()
            assert reg.check() == ()
        # The second time as if an older version had stored them: both complete the same models.
        run(database_url, *AS_OF_OLD)


class Cutting(Silent):
    """Cuts every connection to the server when the third model is done."""

    count = 0

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def done(self, ref: ModelRef, result: Any) -> None:  # noqa: ARG002
        self.count += 1
        if self.count == 3:
            cut(self.postgres)


def cut(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        others = b"pid <> pg_backend_pid() AND datname LIKE 't%'"
        connection.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE " + others)


@pytest.mark.usefixtures("one_by_one")
def test_a_lost_connection_is_made_again(
    postgres: Postgres, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", (0.01, 0.01))
    name = postgres.new_database()
    real = Store.write
    writes = 0

    def within(store: Store, work: Any, *given: Any, **settings: Any) -> Any:
        def cutting(connection: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == 4:
                cut(postgres)
            return work(connection, *given, **settings)

        return real(store, cutting)

    monkeypatch.setattr(Store, "write", within)
    try:
        with Registry(postgres.url(name)) as reg:
            results = reg.ingest_all(reg.plan([models]), progress=Cutting(postgres))
            assert [result.status for result in results] == ["added"] * 6
            assert reg.runs.list()[0].done == 6
            assert reg.check() == ()
    finally:
        postgres.drop(name)
    assert "; trying again in 0.01 s" in caplog.text


@pytest.mark.usefixtures("one_by_one")
def test_a_database_that_stays_away_is_a_clean_stop(
    registry_url: str, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", (0.01, 0.01))
    monkeypatch.setattr("registry.storage.engine.connections.BUSY_SECONDS", 0.01)
    real = Store.add_all
    count = 0

    def busy(store: Store, *given: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count < 3:
            return real(store, *given, **settings)

        def refuse(_connection: Any) -> Any:
            from sqlalchemy.exc import OperationalError

            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise OperationalError("INSERT", {}, error)

        return store.patiently(store.write, refuse)

    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_all", busy)
            with pytest.raises(StorageError) as stopped:
                reg.ingest_all(refs)
        assert "2 of 6 models are stored, and the same command continues with the rest" in (stopped.value.remedy or "")
        assert caplog.text.count("; trying again in 0.01 s") == 2
        assert [result.status for result in reg.ingest_all(refs)] == ["known"] * 2 + ["added"] * 4


def test_two_runs_of_one_plan_share_it(registry_url: str, models: Path, measured: list[str]) -> None:
    """One at work by its heart and its process; the other starts at the other end and leaves out what it has done."""
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        with pytest.raises(KeyboardInterrupt):
            reg.ingest_all(refs, progress=Stopping(2, KeyboardInterrupt()))
        assert measured == ["m0", "m1"]
        as_if(registry_url, state="running", worker=f"{os.uname().nodename}:{os.getppid()}")
        assert reg.runs.list()[0].state == "running"
        measured.clear()
        results = reg.ingest_all(refs)
        assert measured == ["m5", "m4", "m3", "m2"]
        assert [result.status for result in results] == ["known"] * 2 + ["added"] * 4
        assert [(run.state, run.done) for run in reg.runs.list()] == [("done", 6), ("running", 2)]
        with Store.open(registry_url, mode="write") as store:
            assert store.adopt(1) == [2, 3, 4, 5]
            assert store.adopt(1) == []
        assert states(reg) == ["added"] * 2 + ["known"] * 4
        assert reg.stats().models == 6


def test_a_run_is_dead_without_a_process_or_a_heartbeat(registry_url: str, models: Path) -> None:
    with Registry(registry_url) as reg:
        reg.ingest_all(reg.plan([models]))
        as_if(registry_url, state="running", worker=f"{os.uname().nodename}:999999999")
        assert reg.runs.list()[0].state == "died"
        as_if(registry_url, worker="elsewhere:1")
        assert reg.runs.list()[0].state == "running"
        as_if(registry_url, heartbeat=datetime.now(UTC) - timedelta(minutes=2))
        assert reg.runs.list()[0].state == "died"


def test_runs_are_forgotten_and_their_models_stay(registry_url: str, models: Path) -> None:
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        for count in (1, 2, 3, 6):
            reg.ingest_all(refs[:count])
        assert [run.id for run in reg.runs.list(limit=2)] == [4, 3]
        assert [(run.id, run.items) for run in reg.runs.list(limit=9)] == [(4, 6), (3, 3), (2, 2), (1, 1)]
        as_if(registry_url, state="running", worker=f"{os.uname().nodename}:{os.getppid()}")
        with pytest.raises(UsageError, match="run 1 is at work"):
            reg.runs.forget(1)
        assert reg.runs.forget(older_than=1) == 0
        assert reg.runs.forget(3) == 1
        assert reg.runs.forget(older_than=0) == 2
        assert [(run.id, run.state) for run in reg.runs.list()] == [(1, "running")]
        as_if(registry_url, worker=f"{os.uname().nodename}:999999999", heartbeat=datetime.now(UTC) - timedelta(days=3))
        assert reg.runs.forget(older_than=3.5) == 0
        assert reg.runs.forget(older_than=2.5) == 1
        with Store.open(registry_url, mode="read") as store:
            assert store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM items").scalar()) == 0
        assert (reg.runs.list(), reg.stats().models) == ((), 6)
        assert [result.message for result in reg.ingest_all(refs)] == ["already stored; nothing added"] * 6
        assert [run.id for run in reg.runs.list()] == [5]  # a number is never given twice
        for given in ({"run": 4}, {}, {"run": 5, "older_than": 1}, {"older_than": -1}, {"older_than": float("nan")}):
            with pytest.raises(UsageError) as refused:
                reg.runs.forget(**given)
            assert refused.value.remedy
        assert reg.check() == ()


def as_if(url: str, **values: Any) -> None:
    """Change what the journal says of its first run."""
    from sqlalchemy import update

    from registry.storage.engine.schema import runs

    with Store.open(url, mode="write") as store:
        store.write(lambda connection: connection.execute(update(runs).where(runs.c.id == 1).values(values)))


def test_a_run_gives_signs_of_life(registry_url: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.catalog.ingest_journal.BEAT", 0.02)
    beats: list[int] = []
    real = Store.write

    def counting(store: Store, work: Any, *given: Any, **settings: Any) -> Any:
        beats.extend(given if work is beat_run else ())
        return real(store, work, *given, **settings)

    monkeypatch.setattr(Store, "write", counting)

    class Slow(Silent):
        def start(self, ref: ModelRef) -> None:  # noqa: ARG002
            time.sleep(0.1)

    with Registry(registry_url) as reg:
        reg.ingest_all(reg.plan([models]), progress=Slow())
    assert len(beats) >= 3
    assert set(beats) == {1}


def test_workers_and_one_process_store_the_same(registry_url: str, models: Path, tmp_path: Path) -> None:
    with Registry(registry_url) as reg:
        first = reg.ingest_all(reg.plan([models])[:2])
        results = reg.ingest_all(reg.plan([models]), workers=2)
        assert [result.status for result in results] == ["known"] * 2 + ["added"] * 4
        assert results[0].message == "already stored; nothing added"
        assert [result.name for result in results] == NAMES
        assert len(first) == 2
    with Registry(tmp_path / "one.db") as reg:
        reg.ingest_all(reg.plan([models]), workers=1)
    assert content(registry_url) == content(str(tmp_path / "one.db"))


def test_weights_taken_for_stored_are_measured_after_all(
    registry_url: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed by somebody else after the workers were told what is there."""
    with Registry(registry_url) as reg:
        refs = reg.plan([models])
        reg.ingest_all(refs[:1])
        real = adding.whole_hashes

        def then_removed(*arguments: Any, **settings: Any) -> list[str]:
            hashes = real(*arguments, **settings)
            with Store.open(registry_url, mode="write") as other:
                other.write(remove, "m0")
            return hashes

        monkeypatch.setattr(adding, "whole_hashes", then_removed)
        assert [result.status for result in reg.ingest_all(refs, workers=2)] == ["added"] * 6


def test_ctrl_c_ends_well(database_url: str, tmp_path: Path) -> None:
    """The signal reaches the workers, too, as a terminal's does."""
    models = make_models(tmp_path / "many", {f"k{n}": n for n in range(300)})
    process = ingest(database_url, models, "--workers", "2")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[10/300]"):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    *_, told, remedy = err.splitlines()
    with Registry(database_url) as reg:
        [run] = reg.runs.list()
        assert 10 <= run.done < 300
        assert (run.state, run.done) == ("interrupted", reg.stats().models)
        assert told == f"archreg: interrupted: {run.done} of 300 models {'is' if run.done == 1 else 'are'} stored"
        assert reg.check() == ()
    assert remedy == "  finished work is kept; run the same command again to continue"
    assert "Traceback" not in err


@pytest.mark.parametrize(("count", "seconds", "begun"), [(24, 0.3, False), (240, 0.0, True)], ids=["starting", "begun"])
def test_killed_and_started_again(count: int, seconds: float, begun: bool, database_url: str, tmp_path: Path) -> None:
    """While it starts, and when the first of its models have come in, which are held for a quarter of a second."""
    models = make_models(tmp_path / "killed", {f"k{n}": n for n in range(count)})
    before, again = kill_and_resume(database_url, models, seconds, "--workers", "2", begun=begun)
    assert before < count  # it was killed before its end
    assert not begun or before > 0
    assert again == count - max(before, 0)  # what is stored is not read again
    with Registry(tmp_path / "whole.db") as reg:
        reg.ingest_all(reg.plan([models]))
    assert content(database_url) == content(str(tmp_path / "whole.db"))


def test_several_write_at_once(database_url: str, tmp_path: Path) -> None:
    write_at_once(database_url, tmp_path, writers=3, each=10)


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_may_be_a_function(files: Path, tmp_path: Path, workers: int) -> None:
    told: list[tuple[int, int]] = []
    with Registry(tmp_path / "new.db") as reg:
        refs = reg.plan([files])
        with pytest.raises(UsageError, match="progress must be a function of two numbers, not True"):
            reg.ingest_all(refs, progress=True)  # type: ignore[arg-type]
        reg.ingest_all(refs, workers=workers, progress=lambda done, of: told.append((done, of)))
        assert told == [(number, len(refs)) for number in range(1, len(refs) + 1)]
        assert len(reg.ingest_all(refs, progress=lambda *_: pytest.fail("nothing is left"))) == len(refs)
