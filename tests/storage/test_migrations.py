"""Revisions: what they make is what the schema says, and old databases come through them whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import ForeignKeyConstraint, text

from registry.errors import ReadOnlyError, StorageError
from registry.storage import PartitionKey, Store
from registry.storage.engine import migrate, ownership
from registry.storage.engine.address import Address
from registry.storage.engine.connections import make_engine, reading
from registry.storage.engine.schema import metadata
from registry.storage.engine.schema_version import HEAD, version_at
from registry.storage.equivalence.stored_partitions import all_partitions, find_partition, put_partition
from registry.storage.journal.run_history import list_runs
from registry.storage.journal.run_journal import NewRun, begin_run, end_run
from registry.storage.models.changes import remove
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import (
    missing_fingerprints,
    read_conjugacy,
    read_fingerprints,
    read_sketches,
    read_spectra,
)
from registry.types import ModelCard
from tests.storage.factory import SPEC, conjugacy_of, new_model, spectra_of, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Postgres

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "tests" / "assets"
FROZEN = sorted(path.stem for path in ASSETS.glob("v*.sqlite"))
COUNTS = {  # rows of every table that the databases of a revision were frozen with
    "v0001": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1,
    },
    "v0002": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1, "partitions": 0, "classes": 0, "members": 0,
        "runs": 0, "items": 0,
    },
    "v0003": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1, "partitions": 1, "classes": 1, "members": 2,
        "runs": 1, "items": 2,
    },
    "v0004": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1, "partitions": 1, "classes": 1, "members": 2,
        "runs": 1, "items": 2,
    },
    "v0005": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1, "partitions": 1, "classes": 1, "members": 2,
        "runs": 1, "items": 2,
    },
    "v0006": {
        "architectures": 2, "models": 3, "names": 4, "tags": 4, "metrics": 4, "skipped": 3, "layers": 9, "spectra": 2,
        "specs": 2, "fingerprints": 4, "conjugacy": 2, "calibrations": 1, "partitions": 1, "classes": 1, "members": 2,
        "runs": 1, "items": 2, "sketches": 1,
    },
}  # fmt: skip


def counts(url: str) -> dict[str, int]:
    engine = make_engine(Address.parse(url), "read")
    with reading(engine) as connection:
        found = {table: connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in metadata.tables}  # noqa: S608
    engine.dispose()
    return found


def test_the_newest_revision_is_the_one_this_program_reads() -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    assert scripts.get_heads() == [HEAD]
    revisions = [script.revision for script in scripts.walk_revisions()]
    # Older, newer and unknown ones are told apart by this alone.
    assert revisions[::-1] == [f"v{number:04}" for number in range(1, len(revisions) + 1)]


def test_every_foreign_key_has_an_index() -> None:
    for table in metadata.tables.values():
        leading = {index.columns[0].name for index in table.indexes} | {table.primary_key.columns[0].name}
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint):
                assert constraint.columns[0].name in leading, f"{table.name}: {constraint.columns[0].name}"


class TestSchema:
    def test_revisions_make_what_the_schema_says(self, registry_url: str) -> None:
        engine = make_engine(Address.parse(registry_url), "read")
        with reading(engine) as connection:
            assert migrate.drift(connection) == []
        engine.dispose()
        assert migrate.check(registry_url) == ()
        assert version_at(registry_url) == HEAD

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("ALTER TABLE models ADD COLUMN colour TEXT", "colour"),
            ("DROP INDEX ix_models_parameters", "ix_models_parameters"),
            ("DROP TABLE calibrations", "calibrations"),
        ],
    )
    def test_drift_is_seen(self, database_url: str, change: str, said: str) -> None:
        Store.open(database_url, mode="create").close()
        execute(database_url, change)
        engine = make_engine(Address.parse(database_url), "read")
        with reading(engine) as connection:
            assert any(said in line for line in migrate.drift(connection))
        engine.dispose()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("DELETE FROM layers WHERE position = 1", "declares 3 layers and has 2"),
            ("UPDATE layers SET position = 7 WHERE position = 2", "declares 3 layers and has 3"),
            ("UPDATE layers SET count = count + 1 WHERE position = 0", "spectra of model"),
            ("UPDATE specs SET length = 9 WHERE name = 'mme'", "the mme vector"),
        ],
    )
    def test_contradictions_are_seen(self, registry_url: str, change: str, said: str) -> None:
        with Store.open(registry_url, mode="write") as store:
            store.add(new_model("a"))
        assert migrate.check(registry_url) == ()
        execute(registry_url, change)
        assert any(said in line for line in migrate.check(registry_url))

    def test_vectors_are_never_stored_out_of_line(self, postgres: Postgres, migrated_database: str) -> None:
        with postgres.connect(migrated_database) as connection:
            found = connection.execute(
                "SELECT attrelid::regclass::text, attstorage FROM pg_attribute"
                " WHERE attname IN ('vector', 'data') AND attrelid::regclass::text IN ('fingerprints', 'spectra')"
            ).fetchall()
            extensions = connection.execute("SELECT extname FROM pg_extension").fetchall()
        kinds = {table: kind if isinstance(kind, str) else kind.decode() for table, kind in found}
        assert kinds == {"fingerprints": "p", "spectra": "e"}
        assert extensions == [("plpgsql",)]

    def test_sqlite_keeps_a_log_and_its_keys(self, tmp_path: Path, empty_file: Path) -> None:
        path = str(shutil.copy(empty_file, tmp_path / "a.db"))
        with Store.open(path, mode="write") as store, store._engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "busy_timeout", "trusted_schema")
            }
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000, "trusted_schema": 0}


def execute(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement)
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as other:
        other.execute(statement.encode())


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Which kind of database, and a URL where nothing is yet."""
    if request.param == "sqlite":
        yield "sqlite", f"sqlite:///{tmp_path / 'old.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.new_database()
    yield "postgres", server.url(name)
    server.drop(name)


def test_a_migration_waits_for_another(postgres: Postgres) -> None:
    name = postgres.new_database()
    with postgres.connect(name) as other, ThreadPoolExecutor(1) as thread:
        # What migrations/env.py locks, for the schema in use.
        other.execute("SELECT pg_advisory_lock(x'61726368'::int, hashtext('public'))")
        done = thread.submit(migrate.upgrade, postgres.url(name))
        with pytest.raises(TimeoutError):
            done.result(timeout=1.0)
        other.execute("SELECT pg_advisory_unlock_all()")
        assert done.result(timeout=30.0) == HEAD
    postgres.drop(name)


@pytest.fixture
def old(postgres: Postgres) -> Iterator[tuple[str, str]]:
    """Name and URL of a database of the first schema that belongs to a role of the database's name."""
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        for role in (name, f"{name}_reader", f"{name}_writer"):
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        connection.execute(f"GRANT CREATE ON SCHEMA public TO {name}".encode())
    url = postgres.url(name, user=name)
    execute(url, (ASSETS / "v0001.sql").read_text(encoding="utf-8"))
    yield name, url
    with postgres.connect(name) as connection:
        for role in (name, f"{name}_reader", f"{name}_writer"):
            connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
    postgres.drop(name)


def test_new_tables_are_their_owners_and_shared_like_the_others(postgres: Postgres, old: tuple[str, str]) -> None:
    name, url = old
    reader, writer = (postgres.url(name, user=f"{name}_{what}") for what in ("reader", "writer"))
    execute(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_reader, PUBLIC")
    execute(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}_writer")
    execute(url, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}_writer")
    with pytest.raises(ReadOnlyError, match=f"the tables are the role {name}'s") as caught:
        migrate.upgrade(writer)
    assert caught.value.remedy == f"connect as {name}"
    assert version_at(url) == "v0001"
    assert migrate.upgrade(postgres.url(name)) == HEAD  # the superuser's tables they are not
    with postgres.connect(name) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert owners == [(name,)]
    with Store.open(writer, mode="write") as store:
        assert store.add(new_model("fourth", 4)).status == "added"
        run = store.patiently(
            store.write, begin_run, NewRun("plan", "archreg ingest", "{}", "0", [('{"target": "a"}', "a", 1.0)])
        )
    with Store.open(reader, mode="read") as store:
        assert [found.id for found in store.read(list_runs)] == [run.id]
        store._mode = "write"
        with pytest.raises(ReadOnlyError):
            store.write(end_run, run.id, "done")
    assert migrate.check(reader) == ()


def test_an_upgrade_waits_for_whoever_uses_the_tables_and_holds_nobody_up(
    postgres: Postgres, old: tuple[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, url = old
    monkeypatch.setattr(ownership, "PAUSE", 0.1)
    with postgres.connect(name) as other, postgres.connect(name) as third, ThreadPoolExecutor(1) as thread:
        # Tables in the other order than an upgrade would take them: to wait for both would be a deadlock.
        other.execute("BEGIN; SELECT count(*) FROM specs; SELECT count(*) FROM fingerprints")
        done = thread.submit(migrate.upgrade, url)
        third.execute("SET statement_timeout = '5s'")
        for _ in range(20):
            other.execute("SELECT count(*) FROM layers")
            third.execute("SELECT count(*) FROM specs")
            time.sleep(0.05)
        assert not done.done()
        other.execute("COMMIT")
        assert done.result(timeout=30.0) == HEAD
    assert [record.message for record in caplog.records if record.name == "registry"] == [
        "others use the database; waiting for a moment without them"
    ]
    assert migrate.check(url) == ()


def test_an_upgrade_gives_up_in_the_end_and_has_changed_nothing(
    postgres: Postgres, old: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, url = old
    monkeypatch.setattr(ownership, "PATIENCE", 0.2)
    monkeypatch.setattr(ownership, "PAUSE", 0.1)
    with postgres.connect(name) as other:
        other.execute("BEGIN; SELECT count(*) FROM layers")
        with pytest.raises(StorageError, match=r"in use for 0\.2 s"):
            migrate.upgrade(url)
        assert version_at(url) == "v0001"
    assert migrate.upgrade(url) == HEAD


@pytest.mark.parametrize("version", FROZEN)
def test_a_frozen_database_is_upgraded_whole_and_used(place: tuple[str, str], version: str) -> None:
    kind, url = place
    if kind == "sqlite":
        shutil.copy(ASSETS / f"{version}.sqlite", url.removeprefix("sqlite:///"))
    else:
        execute(url, (ASSETS / f"{version}.sql").read_text(encoding="utf-8"))
    assert version_at(url) == version
    assert migrate.upgrade(url) == HEAD
    assert migrate.upgrade(url) == HEAD
    found = counts(url)
    assert {table: found[table] for table in COUNTS[version]} == COUNTS[version]
    assert migrate.check(url) == ()
    with Store.open(url, mode="write") as store:
        first, second = store.read(find_model, "first again"), store.read(find_model, "second")
        assert (first.names, second.family, second.layers) == (("first", "first again"), "vgg", 3)
        assert [metric.value for metric in first.metrics] == [0.3, 92.6]
        stored = store.read(read_spectra, first.id)
        assert stored is not None
        for spectrum, given in zip(stored, spectra_of(1), strict=True):
            assert (spectrum.layer, spectrum.mean) == (given.layer, given.mean)
            np.testing.assert_array_equal(spectrum.values, given.values)
        assert store.read(read_spectra, second.id) is None
        sketches = store.read(read_sketches, first.id)
        assert (sketches is None) == (version < "v0006")
        assert sketches is None or sketches.values.tolist() == np.arange(48).reshape(3, 16).tolist()
        assert store.read(read_conjugacy, [first.id]) == {first.id: conjugacy_of(1)}
        ids, vectors = store.read(read_fingerprints, SPEC.hash)
        assert ids.tolist() == [first.id, second.id]
        np.testing.assert_array_equal(vectors, [vector_of(seed, SPEC).vector for seed in (1, 2)])
        calibration = store.calibration(SPEC.hash, "l2")
        assert calibration is not None
        assert calibration.quantiles == ((0.01, 0.5), (0.5, 2.0))
        assert store.add(new_model("fourth", 4)).status == "added"
        assert store.add(new_model("third", 3, card=ModelCard())).status == "known"
        assert store.read(missing_fingerprints, SPEC.hash) == []
        store.write(remove, "first")
        assert [model.name for model in store.read(read_summaries)] == ["fourth", "second", "third"]
    assert migrate.check(url) == ()


KEPT = (
    "UPDATE calibrations SET accuracy_low = 0.25, accuracy_high = 0.75, models = 9, families = 4",
    "INSERT INTO partitions (id, spec_id, metric, rule, accuracy, scope, mark, models, created)"
    " SELECT 7, id, 'l2', 'complete', 0.125, '{}', 'mark', 2, '2026-01-02 03:04:05.000000' FROM specs"
    " WHERE hash = '%s'",
    "INSERT INTO classes (id, partition_id, number, identity, medoid_id, diameter, bounded, tail_class, training_class)"
    " VALUES (5, 7, 1, 'feedbeef', 1, 0.0625, false, 'long', 'trained')",
    "INSERT INTO members (class_id, model_id) VALUES (5, 1), (5, 2)",
)  # fmt: skip


def test_calibrations_and_classes_keep_their_rows_when_columns_are_renamed(place: tuple[str, str]) -> None:
    kind, url = place
    if kind == "sqlite":
        shutil.copy(ASSETS / "v0002.sqlite", url.removeprefix("sqlite:///"))
    else:
        execute(url, (ASSETS / "v0002.sql").read_text(encoding="utf-8"))
    for statement in KEPT:
        execute(url, statement.replace("%s", SPEC.hash))
    assert migrate.upgrade(url) == HEAD
    assert migrate.check(url) == ()
    with Store.open(url, mode="write") as store:
        calibration = store.calibration(SPEC.hash, "l2")
        assert calibration is not None
        assert (calibration.distance, calibration.tolerance, calibration.models) == ("l2", 0.5, 9)
        assert (calibration.tolerance_low, calibration.tolerance_high) == (0.25, 0.75)
        key = PartitionKey(SPEC.hash, "l2", "complete", 0.125, "{}")
        kept = store.read(find_partition, key)
        assert kept is not None
        assert [(each.identity, each.members, each.medoid) for each in kept.classes] == [("feedbeef", (1, 2), 1)]
        # What was unique still is: the same terms take the place of what was kept, the same key is refused.
        store.write(put_partition, key, "new", kept.classes, lambda _before: ["feedbeef"])
        assert [row.key for row in store.read(all_partitions)] == [key]
    for again in (
        "INSERT INTO calibrations (spec_hash, distance, rate, tolerance, quantiles, source, created)"
        " SELECT spec_hash, distance, rate, tolerance, quantiles, source, created FROM calibrations",
        "INSERT INTO partitions (spec_id, distance, rule, tolerance, scope, mark, models, created)"
        " SELECT spec_id, distance, rule, tolerance, scope, mark, models, created FROM partitions",
    ):
        with pytest.raises(Exception, match=r"(?i)unique"):
            execute(url, again)


def test_every_revision_is_frozen() -> None:
    revisions = {script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()}
    assert set(FROZEN) == revisions == set(COUNTS)
    assert all((ASSETS / f"{version}.sql").is_file() for version in FROZEN)


def test_an_upgrade_that_breaks_references_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(ASSETS / "v0001.sqlite", path)
    address = Address.parse(str(path))
    engine = make_engine(address, "migrate")
    migrate._run(address, engine)  # a sound one goes through
    execute(f"sqlite:///{path}", "DELETE FROM models WHERE id = 1")  # a plain connection keeps no foreign keys
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"would break \d+ references"):
        migrate._run(address, engine)
    engine.dispose()
    assert path.read_bytes() == before
    assert any("refers to a missing row of models" in line for line in migrate.check(str(path)))


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(ASSETS / "v0001.sqlite", path)
    execute(f"sqlite:///{path}", "CREATE TABLE items (id INTEGER)")  # the last that the second revision makes
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(StorageError, match="already exists"):
        migrate.upgrade(str(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before


def test_alembics_own_command_works_in_a_checkout(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dev.db'}"
    for arguments in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT, env={**os.environ, "ARCHREG_DB": url}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "No new upgrade operations detected" in done.stdout
    assert Config(str(ROOT / "alembic.ini")).get_main_option("script_location") == str(ROOT / "migrations")
    assert version_at(url) == HEAD
