"""A database whose recorded revision is unknown: what is said of it, and how it is set again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.errors import DatabaseMissingError, ReadOnlyError, SchemaVersionError, StorageError, UsageError
from registry.storage import Store
from registry.storage.engine import migrate
from registry.storage.engine.schema_version import HEAD, version_at
from registry.storage.models.summaries import read_summaries
from registry.storage.portable.portable_file import PortableFile
from tests.storage.factory import new_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Postgres

ASSETS = Path(__file__).resolve().parents[1] / "assets"
LONG = "v0002" + "x" * 2**20


def execute(url: str, *statements: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as other:
        for statement in statements:
            other.execute(statement.encode())


def contents(url: str) -> object:
    """All that must stay as it is where a database is refused: the file's bytes, or the version and the tables."""
    if url.startswith("sqlite"):
        return Path(url.removeprefix("sqlite:///")).read_bytes()
    import psycopg

    with psycopg.connect(url) as other:
        tables = other.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
        return tables, other.execute("SELECT * FROM archreg_version").fetchall()


def recorded(url: str, *values: str, kind: str = "text") -> None:
    """Record values, SQL each, in a version table that takes anything."""
    column = "version_num" if url.startswith("sqlite") else f"version_num {kind}"
    execute(
        url,
        "DROP TABLE archreg_version",
        f"CREATE TABLE archreg_version ({column})",
        *(f"INSERT INTO archreg_version VALUES ({value})" for value in values),  # noqa: S608
    )


@pytest.fixture(scope="module")
def file_of_one(tmp_path_factory: pytest.TempPathFactory, empty_file: Path) -> Path:
    """A SQLite file of one model, to be copied."""
    path = Path(shutil.copy(empty_file, tmp_path_factory.mktemp("one") / "one.db"))
    with Store.open(str(path), mode="write") as store:
        store.add(new_model("a"))
    return path


@pytest.fixture(scope="module")
def database_of_one(postgres: Postgres, migrated_database: str) -> Iterator[str]:
    """A Postgres database of one model, to be copied."""
    name = postgres.new_database(like=migrated_database)
    with Store.open(postgres.url(name), mode="write") as store:
        store.add(new_model("a"))
    yield name
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a registry of one model, which a test may spoil."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("file_of_one"), tmp_path / "registry.db")
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.new_database(like=request.getfixturevalue("database_of_one"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def older(database_url: str) -> str:
    """URL of a database of the first schema."""
    if database_url.startswith("sqlite"):
        shutil.copy(ASSETS / "v0001.sqlite", database_url.removeprefix("sqlite:///"))
    else:
        execute(database_url, (ASSETS / "v0001.sql").read_text(encoding="utf-8"))
    return database_url


def questions(url: str) -> list[Callable[[], object]]:
    """Everything that opens a database."""
    return [
        lambda: Store.open(url, mode="read"),
        lambda: Store.open(url, mode="write"),
        lambda: Store.open(url, mode="create"),
        lambda: version_at(url),
        lambda: migrate.check(url),
        lambda: migrate.upgrade(url),
    ]


UNKNOWN = [
    (("'abc'",), "has schema 'abc', which is not a revision of this program"),
    (("'3f2a9c81d0e4'",), "has schema '3f2a9c81d0e4', which is not a revision"),
    (("'v0000'",), "has schema 'v0000', which is not a revision"),
    (("'v0001x'",), "has schema 'v0001x', which is not a revision"),
    (("'v01'",), "has schema 'v01', which is not a revision"),
    (("'V0002'",), "has schema 'V0002', which is not a revision"),
    (("'v0002 '",), "has schema 'v0002 ', which is not a revision"),
    (("'v٠٠٠٢'",), "has schema 'v٠٠٠٢', which is not a revision"),
    ((f"'{LONG}'",), f"has schema '{LONG[:40]}', which is not a revision"),
    (("'a' || CHAR(10) || 'b'",), r"has schema 'a\\nb', which is not a revision"),
    (("NULL",), "has schema 'NULL', which is not a revision"),
    ((), "does not say which schema it has: archreg_version is empty"),
    (("'v0001'", "'v0002'"), "has schema 'v0001, v0002', which is not a revision"),
    (("'v0002'", "'v0002'", "'v0002'"), "has schema 'v0002, v0002', which is not a revision"),
]


class TestUnknown:
    @pytest.mark.parametrize(("values", "said"), UNKNOWN, ids=range(len(UNKNOWN)))
    def test_it_is_refused_in_one_line_and_the_remedy_works(self, values: tuple[str, ...], said: str, url: str) -> None:
        if url.startswith("postgres"):
            values = tuple(value.replace("CHAR(", "chr(") for value in values)
        recorded(url, *values)
        before = contents(url)
        for question in questions(url):
            with pytest.raises(SchemaVersionError) as caught:
                question()
            assert said.replace("\\\\", "\\") in caught.value.message
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 500
            quoted = f"'{url}'" if "?" in url else url
            assert f"archreg db upgrade --from {HEAD} --db {quoted} (" in (caught.value.remedy or "")
        assert contents(url) == before
        assert migrate.upgrade(url, from_revision=HEAD) == HEAD
        assert version_at(url) == HEAD
        assert migrate.check(url) == ()
        with Store.open(url, mode="write") as store:
            assert store.add(new_model("a")).status == "known"

    @pytest.mark.parametrize(
        ("kind", "value", "said"),
        [("integer", "2", "'2'"), ("bytea", r"'\x7630303032'", r"x7630303032"), ("real", "0.5", "'0.5'")],
    )
    def test_other_kinds_of_values(self, kind: str, value: str, said: str, url: str) -> None:
        recorded(url, "x'7630303032'" if url.startswith("sqlite") and kind == "bytea" else value, kind=kind)
        for question in questions(url):
            with pytest.raises(SchemaVersionError, match="which is not a revision of this program") as caught:
                question()
            assert said in caught.value.message.replace("X'", "x")

    def test_text_that_is_not_utf_8(self, tmp_path: Path, empty_file: Path) -> None:
        url = f"sqlite:///{shutil.copy(empty_file, tmp_path / 'a.db')}"
        recorded(url, "CAST(x'ff7630' AS TEXT)")
        with pytest.raises(SchemaVersionError, match="has schema '\ufffdv0'"):
            Store.open(url, mode="read")
        recorded(url, "CAST(x'763030303200' AS TEXT)")  # its end is not where C would see it
        with pytest.raises(SchemaVersionError, match="is not a revision"):
            Store.open(url, mode="read")

    def test_a_version_table_of_something_else(self, url: str) -> None:
        execute(url, "DROP TABLE archreg_version", "CREATE TABLE archreg_version (id integer)")
        before = contents(url)
        for question in (*questions(url), lambda: migrate.upgrade(url, from_revision=HEAD)):
            with pytest.raises(StorageError, match="something else") as caught:
                question()
            assert caught.value.remedy
        assert contents(url) == before

    def test_a_newer_revision_asks_for_a_newer_program(self, url: str) -> None:
        recorded(url, "'v0107'")
        for question in (*questions(url)[:3], *questions(url)[4:], lambda: migrate.upgrade(url, from_revision=HEAD)):
            with pytest.raises(SchemaVersionError, match="newer than this program's") as caught:
                question()
            assert caught.value.remedy == "pip install --upgrade architecture-registry"
        assert version_at(url) == "v0107"


class TestSetting:
    def test_an_older_schema_is_named_and_upgraded(self, older: str) -> None:
        recorded(older, "'abc'")
        before = contents(older)
        with pytest.raises(SchemaVersionError, match=f"are those of v0001, not of {HEAD}") as caught:
            migrate.upgrade(older, from_revision=HEAD)
        assert "db upgrade --from v0001 --db" in (caught.value.remedy or "")
        assert contents(older) == before
        assert migrate.upgrade(older, from_revision="v0001") == HEAD
        assert migrate.check(older) == ()
        with Store.open(older, mode="read") as store:
            assert [model.name for model in store.read(read_summaries)] == ["first", "second", "third"]

    @pytest.mark.parametrize("change", ["DROP TABLE tags", "ALTER TABLE tags ADD COLUMN extra TEXT"])
    def test_tables_of_no_schema_are_not_touched(self, change: str, url: str) -> None:
        recorded(url, "'3f2a9c81d0e4'")
        execute(url, change)
        before = contents(url)
        for revision in ("v0001", HEAD):
            with pytest.raises(SchemaVersionError, match="of no schema that this program knows") as caught:
                migrate.upgrade(url, from_revision=revision)
            assert "this one is not touched" in (caught.value.remedy or "")
        assert contents(url) == before

    def test_something_elses_with_a_version_table_is_not_touched(self, database_url: str) -> None:
        if database_url.startswith("sqlite"):
            Path(database_url.removeprefix("sqlite:///")).touch()
        execute(database_url, "CREATE TABLE archreg_version (version_num TEXT)", "CREATE TABLE songs (id INTEGER)")
        before = contents(database_url)
        with pytest.raises(SchemaVersionError, match="of no schema that this program knows"):
            migrate.upgrade(database_url, from_revision=HEAD)
        assert contents(database_url) == before

    def test_what_only_the_upgraded_tables_show_undoes_it(self, url: str) -> None:
        recorded(url, "'abc'")
        execute(url, "DROP INDEX ix_models_parameters")
        with pytest.raises(SchemaVersionError, match=f"not quite those of {HEAD}.*ix_models_parameters") as caught:
            migrate.upgrade(url, from_revision=HEAD)
        assert "nothing was changed" in (caught.value.remedy or "")
        with pytest.raises(SchemaVersionError, match="'abc'"):
            version_at(url)

    def test_a_recorded_revision_stands(self, older: str) -> None:
        with pytest.raises(SchemaVersionError, match=f"has schema v0001, not {HEAD}") as caught:
            migrate.upgrade(older, from_revision=HEAD)
        assert (caught.value.remedy or "").startswith("archreg db upgrade --db ")
        assert version_at(older) == "v0001"
        assert migrate.upgrade(older, from_revision="v0001") == HEAD
        assert migrate.upgrade(older, from_revision=HEAD) == HEAD

    @pytest.mark.parametrize("revision", ["v0000", "v9999", "abc", "", "v0001\n"])
    def test_only_a_revision_can_be_set(self, revision: str, url: str) -> None:
        with pytest.raises(UsageError, match="is not a revision of this program"):
            migrate.upgrade(url, from_revision=revision)

    def test_where_nothing_is_nothing_is_made(self, database_url: str) -> None:
        with pytest.raises(DatabaseMissingError):
            migrate.upgrade(database_url, from_revision=HEAD)
        assert version_at(database_url) is None

    def test_only_the_owner_sets_it(self, postgres: Postgres, postgres_url: str) -> None:
        with Store.open(postgres_url, mode="create") as store:
            store.add(new_model("a"))
        execute(postgres_url, "UPDATE archreg_version SET version_num = 'abc'")
        name = postgres_url.partition("@/")[2].partition("?")[0]
        execute(
            postgres_url,
            f"CREATE ROLE {name} LOGIN",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        )
        try:
            with pytest.raises(ReadOnlyError, match="who alone may upgrade them"):
                migrate.upgrade(postgres.url(name, user=name), from_revision=HEAD)
        finally:
            execute(postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
        assert migrate.upgrade(postgres_url, from_revision=HEAD) == HEAD


class TestFiles:
    @pytest.fixture
    def given(self, tmp_path: Path, empty_file: Path) -> Path:
        """An export of somebody's."""
        return Path(shutil.copy(empty_file, tmp_path / "given.db"))

    @pytest.mark.parametrize(("values", "said"), UNKNOWN, ids=range(len(UNKNOWN)))
    def test_an_import_says_it_and_works_on_a_copy(self, values: tuple[str, ...], said: str, given: Path) -> None:
        recorded(f"sqlite:///{given}", *values)
        with pytest.raises(StorageError) as caught:
            PortableFile(given)
        if values != (f"'{LONG}'",):  # longer than any row that is read
            assert isinstance(caught.value, SchemaVersionError)
            assert said.replace("\\\\", "\\") in caught.value.message
            assert f"cp {given} copy.db && archreg db upgrade --from {HEAD} --db copy.db" in (caught.value.remedy or "")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        copy = str(shutil.copy(given, given.with_name("copy.db")))
        assert migrate.upgrade(copy, from_revision=HEAD) == HEAD
        with PortableFile(Path(copy)) as file:
            assert file.ids == []
