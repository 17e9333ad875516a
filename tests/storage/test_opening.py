"""Opening: what is there, what is not, and who may do what."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.errors import (
    DatabaseMissingError,
    EmptyRegistryError,
    ReadOnlyError,
    SchemaVersionError,
    StorageError,
    UnknownModelError,
    UsageError,
)
from registry.storage import Store
from registry.storage.engine import address as url_module
from registry.storage.engine import migrate
from registry.storage.engine.address import Address
from registry.storage.engine.schema import metadata
from registry.storage.engine.schema_version import HEAD, version_at
from registry.storage.models.changes import remove
from registry.storage.models.measured_values import put_fingerprints
from registry.storage.models.model_queries import count_models, read_stats
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import all_specs, read_fingerprints
from tests.storage.factory import SPEC, new_model, vector_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.storage.store import Mode
    from tests.conftest import Postgres

ROOT = Path(__file__).resolve().parents[2]


class TestEitherDatabase:
    @pytest.mark.parametrize("mode", ["read", "write"])
    def test_nothing_is_there_and_nothing_is_made(self, database_url: str, mode: Mode) -> None:
        with pytest.raises(DatabaseMissingError) as caught:
            Store.open(database_url, mode=mode)
        assert "archreg ingest" in (caught.value.remedy or "")
        assert version_at(database_url) is None
        assert not Path(database_url.removeprefix("sqlite:///")).exists()

    def test_it_is_made_and_opened_again(self, database_url: str) -> None:
        for expected in ("added", "known"):
            with Store.open(database_url, mode="create") as store:
                assert store.add(new_model("a")).status == expected
        with Store.open(database_url, mode="read") as store:
            assert store.read(count_models) == 1

    @pytest.mark.parametrize("mode", ["read", "write", "create"])
    def test_an_old_schema_is_refused_with_the_command_that_upgrades_it(self, registry_url: str, mode: Mode) -> None:
        with stamped(registry_url, "v0001"), pytest.raises(SchemaVersionError) as caught:
            Store.open(registry_url, mode=mode)
        quoted = f"'{registry_url}'" if "?" in registry_url else registry_url
        assert caught.value.remedy == f"archreg db upgrade --db {quoted}"

    def test_a_place_that_is_implied_is_not_repeated(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARCHREG_DB", store.url)
        with Store.open(store.url, mode="write") as implied:
            with pytest.raises(EmptyRegistryError) as caught:
                implied.read(find_model, "a")
            assert (
                caught.value.remedy
                == "fill it: archreg ingest FILE_OR_FOLDER, or torchvision:resnet18 instead of a file"
            )
            implied.add(new_model("a"))
            monkeypatch.setenv("ARCHREG_DB", "other.db")
            with pytest.raises(UnknownModelError) as missing:
                implied.read(find_model, "zzz")
            assert missing.value.remedy == "see archreg list"
        with pytest.raises(UnknownModelError) as missing:
            store.read(find_model, "zzz")
        assert (missing.value.remedy or "").startswith("see archreg list --db ")

    def test_the_default_is_implied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ARCHREG_DB", raising=False)
        assert Address.parse("archreg.db").command("list") == "archreg list"
        assert Address.parse("./archreg.db").command("list") == "archreg list --db ./archreg.db"
        monkeypatch.setenv("ARCHREG_DB", "postgresql://me:secret@host/zoo")
        assert Address.parse("postgresql://me:secret@host/zoo").command("list") == "archreg list"
        assert Address.parse("archreg.db").command("list") == "archreg list --db archreg.db"

    def test_a_newer_schema_is_refused(self, registry_url: str) -> None:
        with stamped(registry_url, "v9999"):
            for attempt in (lambda: Store.open(registry_url, mode="create"), lambda: migrate.upgrade(registry_url)):
                with pytest.raises(SchemaVersionError, match=f"v9999, newer than this program's {HEAD}"):
                    attempt()
            assert version_at(registry_url) == "v9999"

    def test_reading_cannot_write(self, registry_url: str) -> None:
        with Store.open(registry_url, mode="read") as store:
            with pytest.raises(ReadOnlyError):
                store.add(new_model("a"))
            store._mode = "write"  # the database itself must refuse, not only the method
            if registry_url.startswith("sqlite"):
                with pytest.raises(ReadOnlyError, match="readonly"):
                    store.add(new_model("a"))
            assert store.read(count_models) == 0

    def test_a_mode_must_be_one(self, registry_url: str) -> None:
        with pytest.raises(UsageError, match="'append'"):
            Store.open(registry_url, mode="append")  # type: ignore[arg-type]


class stamped:  # noqa: N801 - a context manager, named as one
    """The registry as if of another version, for a while."""

    def __init__(self, url: str, version: str) -> None:
        self.url, self.version = url, version

    def __enter__(self) -> None:
        self._set(self.version)

    def __exit__(self, *_: object) -> None:
        self._set(HEAD)

    def _set(self, version: str) -> None:
        statements = ["DELETE FROM archreg_version", f"INSERT INTO archreg_version VALUES ('{version}')"]  # noqa: S608
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
                for statement in statements:
                    connection.execute(statement)
            return
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as other:
            for statement in statements:
                other.execute(statement.encode())


class TestAddresses:
    def test_a_path_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Store.open("zoo #1%20?.db", mode="create").close()
        assert (tmp_path / "zoo #1%20?.db").is_file()
        Store.open(f"sqlite:///{tmp_path}/b.db", mode="create").close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "zoo #1%20?.db"]

    @pytest.mark.parametrize("folder", ["host=a", "postgres", "a b"])
    def test_a_path_may_look_a_little_like_more(self, tmp_path: Path, folder: str) -> None:
        (tmp_path / folder).mkdir()
        for start in (f"{folder}/", f"{tmp_path}/{folder}/"):
            assert Address.parse(f"{start}zoo.db").path == Path(f"{start}zoo.db")

    @pytest.mark.parametrize("option", ["password", "sslpassword", "oauth_client_secret"])
    def test_secrets_among_the_options_are_not_shown(self, option: str) -> None:
        address = Address.parse(f"postgresql://anna@host/db?{option}=s3cret")
        assert address.label == f"postgresql://anna@host/db?{option}=***"
        assert address.redacted("no s3cret") == "no ***"

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_postgres_goes_through_psycopg(self, scheme: str) -> None:
        address = Address.parse(f"{scheme}://anna:s3cret@host:6432/db?sslmode=require")
        assert address.url.drivername == "postgresql+psycopg"
        assert address.label == "postgresql://anna:***@host:6432/db?sslmode=require"

    @pytest.mark.parametrize(
        "text",
        ["", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "sqlite://host/a.db",
         "sqlite:///file:a.db", "postgresql+asyncpg://h/d", "postgresql://u:s3cret@h:port/d",
         "postgresql://u:pa@s3cret@h/d", "postgresql:/u:s3cret@h/d", "Postgres:u:s3cret@h/d", "dbname=zoo",
         "host=h dbname=zoo password=s3cret", "password=s3cret host=/run/postgresql"],
    )  # fmt: skip
    def test_other_databases_are_refused(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            Store.open(text, mode="create")
        assert caught.value.remedy
        assert "s3cret" not in str(caught.value)

    def test_a_missing_driver_is_named_with_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(url_module, "find_spec", lambda _name: None)
        with pytest.raises(StorageError, match=r"pip install 'architecture-registry\[postgres\]'"):
            Store.open("postgresql://host/db", mode="read")


class TestFiles:
    @pytest.mark.parametrize("mode", ["read", "write", "create"])
    @pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\0" + b"\1" * 500])
    def test_other_files_are_refused_and_not_touched(self, tmp_path: Path, content: bytes, mode: Mode) -> None:
        path = tmp_path / "file.db"
        path.write_bytes(content)
        with pytest.raises(StorageError) as caught:
            Store.open(str(path), mode=mode)
        assert not isinstance(caught.value, DatabaseMissingError)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("journal", ["wal", "delete"])
    def test_another_programs_database_is_not_touched(self, tmp_path: Path, journal: str) -> None:
        path = tmp_path / "other.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"PRAGMA journal_mode={journal}")
            connection.execute("CREATE TABLE models (id)")
        before = path.read_bytes()
        modes: tuple[Mode, ...] = ("read", "write", "create")
        for mode in modes:
            with pytest.raises(StorageError, match="of something else"):
                Store.open(str(path), mode=mode)
        for command in (migrate.upgrade, migrate.check):
            with pytest.raises(StorageError, match="of something else"):
                command(str(path))
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_folders(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="is a folder"):
            Store.open(str(tmp_path), mode="create")
        modes: tuple[Mode, ...] = ("read", "write", "create")
        for mode in modes:
            with pytest.raises(StorageError, match=r"^/ is a folder "):
                Store.open("/", mode=mode)
        with pytest.raises(StorageError, match="does not exist") as caught:
            Store.open(str(tmp_path / "none" / "a.db"), mode="create")
        assert (caught.value.remedy or "").startswith("mkdir -p")
        with pytest.raises(DatabaseMissingError):
            migrate.upgrade(str(tmp_path / "a.db"))
        assert list(tmp_path.iterdir()) == []

    def test_readers_leave_no_files_behind(self, tmp_path: Path, empty_file: Path) -> None:
        path = tmp_path / "a.db"
        path.write_bytes(empty_file.read_bytes())
        with Store.open(str(path), mode="read") as store:
            assert store.read(count_models) == 0
        assert list(tmp_path.iterdir()) == [path]

    def test_a_full_disk_leaves_nothing_half_written(self, tmp_path: Path, empty_file: Path) -> None:
        from sqlalchemy import event

        path = tmp_path / "a.db"
        path.write_bytes(empty_file.read_bytes())
        with Store.open(str(path), mode="write") as store:
            pages = path.stat().st_size // 4096

            @event.listens_for(store._engine, "connect")
            def limit(connection: sqlite3.Connection, _record: object) -> None:
                connection.execute(f"PRAGMA max_page_count={pages + 1}")

            with pytest.raises(StorageError, match="full") as caught:
                store.add(new_model("big", tool_version="x" * 20_000))
            assert "disk space" in (caught.value.remedy or "")
            assert store.read(count_models) == 0
            assert not store.read(all_specs)
        assert migrate.check(str(path)) == ()


def look_around(path: Path) -> str:
    """Read a registry that may not be written, try to write it, and return what came of it."""
    with Store.open(str(path), mode="read") as store:
        names = [model.name for model in store.read(read_summaries)]
        vectors = store.read(read_fingerprints, SPEC.hash)[1].shape
    refused = 0
    modes: tuple[Mode, ...] = ("write", "create")
    for mode in modes:
        try:
            with Store.open(str(path), mode=mode) as store:
                store.add(new_model("b", 2))
        except ReadOnlyError:
            refused += 1
    return f"{names} {vectors} {refused}"


def upgrade_it(path: Path) -> str:
    """Try to upgrade a registry that may not be written, and return what came of it."""
    try:
        return migrate.upgrade(str(path))
    except ReadOnlyError as error:
        return "may only be read" if "may only be read" in error.message else error.message


def as_nobody(path: Path, do: Callable[[Path], str] = look_around) -> str:
    """Return what ``do`` does for a user without rights: root may write anywhere."""
    if os.geteuid() != 0:
        return do(path)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            said = do(path)
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = repr(error)
        os.write(theirs, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        return pipe.read()


class TestPermissions:
    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        # Not below pytest's folder, which is its user's alone.
        with tempfile.TemporaryDirectory(prefix="archreg-ro-") as folder:
            path = Path(folder)
            path.chmod(0o755)
            yield path
            path.chmod(0o755)

    @pytest.mark.parametrize("live", [False, True], ids=["at rest", "while its owner has it open"])
    @pytest.mark.parametrize("folder_mode", [0o555, 0o777])
    def test_a_read_only_file_is_read(self, shared: Path, folder_mode: int, *, live: bool) -> None:
        path = shared / "a.db"
        with Store.open(str(path), mode="create") as store:
            store.add(new_model("a"))
        with Store.open(str(path), mode="write") as store:
            if live:
                store.add(new_model("later", 1))  # in the log alone, so far
            path.chmod(0o444)
            shared.chmod(folder_mode)
            names = ["a", "later"] if live else ["a"]
            before = sorted(shared.iterdir())
            assert as_nobody(path) == f"{names} ({len(names)}, 3) 2"
            assert sorted(shared.iterdir()) == before
        assert migrate.check(str(path)) == ()

    def test_whoever_may_not_write_leaves_nothing_that_locks_the_owner_out(self, shared: Path) -> None:
        for name in ("v0001.sqlite", f"{HEAD}.sqlite"):
            shutil.copy(ROOT / "tests" / "assets" / name, shared)
            (shared / name).chmod(0o444)
        shared.chmod(0o777)  # a log of theirs would have the file's mode, and be theirs
        said = [as_nobody(shared / "v0001.sqlite", upgrade_it), as_nobody(shared / f"{HEAD}.sqlite")]
        assert said == ["may only be read", "['first', 'second', 'third'] (2, 3) 2"]
        assert sorted(path.name for path in shared.iterdir()) == ["v0001.sqlite", f"{HEAD}.sqlite"]

    def test_a_read_only_role_reads_and_cannot_write(self, postgres: Postgres) -> None:
        name = postgres.new_database()
        with Store.open(postgres.url(name), mode="create") as store:
            store.add(new_model("a"))
        with postgres.connect(name) as connection:
            connection.execute(
                "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            )
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        url = postgres.url(name, user="reader")
        with Store.open(url, mode="read") as store:
            assert store.read(find_model, "a").name == "a"
            assert store.read(read_fingerprints, SPEC.hash)[1].shape == (1, 3)
            assert store.read(read_stats).models == 1
        assert migrate.check(url) == ()
        with Store.open(url, mode="write") as store:
            for attempt in (
                lambda: store.add(new_model("b", 2)),
                lambda: store.write(remove, "a"),
                lambda: store.write(put_fingerprints, store.read(find_model, "a").id, [vector_of(1, SPEC)]),
            ):
                with pytest.raises(ReadOnlyError, match="permission denied"):
                    attempt()
        postgres.drop(name)

    def test_a_role_that_may_not_create_is_told_so(self, postgres: Postgres) -> None:
        name = postgres.new_database()
        with postgres.connect(name) as connection:
            connection.execute("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        with pytest.raises(ReadOnlyError, match="permission denied for schema public"):
            Store.open(postgres.url(name, user="guest"), mode="create")
        postgres.drop(name)


class TestPostgres:
    def test_a_wrong_password_is_never_printed(self, postgres: Postgres) -> None:
        rules = postgres.folder / "pg_hba.conf"
        old = rules.read_text()
        with postgres.connect() as connection:
            connection.execute("CREATE ROLE secretive LOGIN PASSWORD 'right'")
            rules.write_text("local all secretive scram-sha-256\n" + old)
            connection.execute("SELECT pg_reload_conf()")
            url = postgres.url(user="secretive", password="wr0ng%40pass")  # noqa: S106
            with pytest.raises(StorageError, match="password authentication failed") as caught:
                Store.open(url, mode="read")
            for text in (str(caught.value), repr(caught.value), *_chain(caught.value)):
                assert "wr0ng" not in text
            assert "***" in caught.value.message
            assert "\n" not in str(caught.value)
            right = postgres.url(user="secretive", password="right")  # noqa: S106
            with pytest.raises(DatabaseMissingError) as missing:  # a negative control: the right one gets in
                Store.open(right, mode="read")
            assert "right" not in str(missing.value)
            rules.write_text(old)
            connection.execute("SELECT pg_reload_conf()")

    @pytest.mark.parametrize(
        "url",
        ["postgresql://anna:s3cret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?user=anna&password=s3cret"],
    )
    def test_an_unreachable_server_is_one_line(self, url: str) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(StorageError, match="refused") as caught:
            Store.open(url, mode="write")
        assert "s3cret" not in "".join((str(caught.value), *_chain(caught.value)))
        assert "\n" not in str(caught.value)
        assert caught.value.remedy

    def test_a_missing_database_is_named(self, postgres: Postgres) -> None:
        with pytest.raises(StorageError, match='database "nowhere" does not exist') as caught:
            Store.open(postgres.url("nowhere"), mode="create")
        assert caught.value.remedy == "create the database first: createdb NAME"

    def test_whoever_is_not_let_in_is_told_why(self, postgres: Postgres, migrated_database: str) -> None:
        with postgres.connect() as connection:
            connection.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
            connection.execute("CREATE ROLE no_user NOLOGIN")
        try:
            for user, message, remedy in (
                ("crowded", "too many connections", "wait for other clients to finish"),
                ("no_user", "not permitted to log in", "check the user"),
                ("nobody_at_all", "does not exist", "check the user"),
            ):
                with pytest.raises(StorageError, match=message) as caught:
                    Store.open(postgres.url(migrated_database, user=user), mode="read")
                assert (caught.value.remedy or "").startswith(remedy)
        finally:
            with postgres.connect() as connection:
                connection.execute("DROP ROLE crowded; DROP ROLE no_user")

    @pytest.mark.parametrize(
        ("setting", "remedy"),
        [("idle_in_transaction_session_timeout=50ms", "idle_in_transaction"), ("statement_timeout=50ms", "statement")],
    )
    def test_what_a_timeout_ended_says_which(
        self, postgres: Postgres, migrated_database: str, setting: str, remedy: str
    ) -> None:
        url = postgres.url(migrated_database, options=f"-c{setting}")
        with Store.open(url, mode="read") as store:
            with pytest.raises(StorageError, match="timeout") as caught, store.snapshot():  # noqa: PT012 - in it
                if remedy == "statement":
                    store.read(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(1)"))
                time.sleep(0.5)
                store.read(count_models)
            assert (caught.value.remedy or "").startswith(f"raise {remedy}")
            assert store.read(count_models) == 0

    def test_tenants_by_search_path_do_not_see_each_other(self, postgres: Postgres) -> None:
        name = postgres.new_database()
        with postgres.connect(name) as connection:
            connection.execute("CREATE SCHEMA one")
            connection.execute("CREATE SCHEMA two")
            connection.execute("CREATE TABLE public.strangers (id int)")
        Store.open(postgres.url(name), mode="create").close()
        urls = [postgres.url(name, options=f"-csearch_path={schema},public") for schema in ("one", "two")]
        for url in urls:
            with pytest.raises(DatabaseMissingError):  # though public, behind it in the path, has one
                Store.open(url, mode="read")
            with Store.open(url, mode="create") as store:
                store.add(new_model(f"of {url[-10:-7]}"))
            assert migrate.check(url) == ()
        with Store.open(urls[0], mode="read") as store:
            assert [model.name for model in store.read(read_summaries)] == ["of one"]
        with Store.open(postgres.url(name), mode="read") as store:
            assert store.read(count_models) == 0
        with postgres.connect(name) as connection:
            found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname IN ('one', 'two')").fetchone()
            assert found == (2 * (len(metadata.tables) + 1),)
        modes: tuple[Mode, ...] = ("read", "create")
        for mode in modes:
            with pytest.raises(StorageError, match="no schema has been selected") as caught:
                Store.open(postgres.url(name, options="-csearch_path=three"), mode=mode)
            assert "create the schema" in (caught.value.remedy or "")
        postgres.drop(name)

    def test_a_schema_that_may_not_be_used_is_not_called_empty(self, postgres: Postgres) -> None:
        name = postgres.new_database()
        with postgres.connect(name) as connection:
            connection.execute(f'CREATE SCHEMA "Own"; CREATE ROLE {name} LOGIN'.encode())
        Store.open(postgres.url(name, options='-csearch_path="Own"'), mode="create").close()
        for path in ('"Own"', 'nowhere,"Own",public'):
            url = postgres.url(name, user=name, options=f"-csearch_path={path}")
            modes: tuple[Mode, ...] = ("read", "create")
            for mode in modes:
                with pytest.raises(StorageError, match='"Own" has a registry, and this role may not') as caught:
                    Store.open(url, mode=mode)
                assert not isinstance(caught.value, DatabaseMissingError)
                assert caught.value.remedy == f'ask its owner for: GRANT USAGE ON SCHEMA "Own" TO {name}'
        elsewhere = postgres.url(name, user=name, options="-csearch_path=public")
        with pytest.raises(DatabaseMissingError):
            Store.open(elsewhere, mode="read")
        with postgres.connect(name) as connection:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
        postgres.drop(name)

    @pytest.mark.parametrize("kind", ["view", "foreign table"])
    def test_a_schema_that_shows_another_registry_is_not_filled(self, postgres: Postgres, kind: str) -> None:
        name = postgres.new_database()
        Store.open(postgres.url(name), mode="create").close()
        with postgres.connect(name) as connection:
            connection.execute("CREATE SCHEMA shown; CREATE SCHEMA own")
            connection.execute("CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away")
            for table in ("archreg_version", "models"):
                view = f"CREATE VIEW shown.{table} AS TABLE public.{table}"
                foreign = f"CREATE FOREIGN TABLE shown.{table} (version_num text) SERVER away"
                connection.execute((view if kind == "view" else foreign).encode())
            connection.execute("CREATE FOREIGN TABLE own.my_models (id int) SERVER away")  # of no matter
        url = postgres.url(name, options="-csearch_path=shown")
        for attempt in (
            lambda: Store.open(url, mode="read"),
            lambda: Store.open(url, mode="create"),
            lambda: migrate.upgrade(url),
        ):
            with pytest.raises(StorageError, match=f"is a {kind}") as caught:
                attempt()
            assert not isinstance(caught.value, DatabaseMissingError)
            assert caught.value.remedy
        own = postgres.url(name, options="-csearch_path=own,shown")
        with Store.open(own, mode="create") as store:
            assert store.read(count_models) == 0
        assert migrate.check(own) == ()
        postgres.drop(name)

    def test_a_table_of_somebody_elses_is_not_overwritten(self, postgres: Postgres) -> None:
        name = postgres.new_database()
        with postgres.connect(name) as connection:
            connection.execute("CREATE TABLE models (id int)")
        with pytest.raises(StorageError, match='"models" already exists') as caught:
            Store.open(postgres.url(name), mode="create")
        assert "search_path" in (caught.value.remedy or "")
        with postgres.connect(name) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == [("models",)]
        postgres.drop(name)


def _chain(error: BaseException) -> Iterator[str]:
    cause = error.__cause__
    while cause is not None:
        yield f"{cause} {cause!r}"
        cause = cause.__cause__


def test_a_look_up_imports_neither_alembic_nor_torch_nor_scipy(empty_file: Path) -> None:
    script = (
        "import sys\nfrom registry.storage import Store\n"
        "from registry.storage.models.model_queries import candidate_ids\n"
        "from registry.storage.models.vectors import read_training_classes, read_fingerprints\n"
        "with Store.open(sys.argv[1], mode='read') as store:\n"
        "    store.read(candidate_ids); store.read(read_fingerprints, '0' * 16); store.read(read_training_classes)\n"
        "print(*sorted({'alembic', 'torch', 'scipy', 'sqlalchemy.orm', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(empty_file)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["sqlalchemy"]
