from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from registry.storage import Store
from registry.storage.engine.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Postgres


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry, to be copied: most tests are not about making one."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    Store.open(str(path), mode="create").close()
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres: Postgres) -> str:
    """A registry in the Postgres server, to be emptied after every test: making a database takes half a second."""
    name = postgres.new_database()
    Store.open(postgres.url(name), mode="create").close()
    return name


@pytest.fixture(params=["sqlite", "postgres"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty registry in either kind of database."""
    if request.param == "sqlite":
        path = tmp_path / "registry.db"
        shutil.copy(request.getfixturevalue("empty_file"), path)
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("migrated_database")
    yield server.url(name)
    with server.connect(name) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)}".encode())


@pytest.fixture
def store(registry_url: str) -> Iterator[Store]:
    """An empty registry, open to be written."""
    with Store.open(registry_url, mode="write") as opened:
        yield opened
