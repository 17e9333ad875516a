"""Connections to Postgres: lost ones are made anew, poolers are noticed, and readers change nothing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry.errors import StorageError
from registry.storage import Store
from registry.storage.engine.connections import reading
from registry.storage.models.changes import set_card
from registry.storage.models.model_queries import count_models
from registry.storage.models.summaries import find_subject
from tests.storage.factory import SPEC, new_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Postgres

PREPARED = "SELECT count(*) FROM pg_prepared_statements"
MADE_UP = (0x3B9ACA07).to_bytes(4, "big")  # beyond the numbers that Linux gives to processes


@pytest.fixture
def url(postgres: Postgres, migrated_database: str) -> str:
    """A registry to be read, with nothing in it."""
    return postgres.url(migrated_database)


@contextmanager
def pooler(postgres: Postgres) -> Iterator[str]:
    """Yield the folder of a socket behind which is the server, but the number of its process is made up."""
    # A message of the server's: a letter, the length of the rest, the number of the process, a secret.
    key = b"K" + (12).to_bytes(4, "big")

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                before, found, after = data.partition(key)
                target.sendall(before + found + MADE_UP + after[4:] if found and target in clients else data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{postgres.socket}/.s.PGSQL.5432")
                clients.append(client)
                opened.extend((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    clients: list[socket.socket] = []
    opened: list[socket.socket] = []
    with tempfile.TemporaryDirectory(prefix="archreg-pool-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(Path(folder) / ".s.PGSQL.5432"))
        listening.listen()
        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        try:
            yield folder
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for each in opened:
                each.close()


def prepared_after_questions(url: str) -> int:
    with Store.open(url, mode="read") as store:
        for _ in range(10):
            assert store.read(count_models) == 0
            assert store.read(find_subject, "nobody", SPEC.hash) is None
            assert store.index(SPEC, "l1") is None
        with store._engine.connect() as connection:
            return int(connection.exec_driver_sql(PREPARED).scalar_one())


def test_what_every_question_asks_is_prepared_and_nothing_else(url: str) -> None:
    assert prepared_after_questions(url) == 3  # of a spec and what belongs to it, a calibration alone, of a name


def test_nothing_is_prepared_behind_a_pooler(url: str, postgres: Postgres) -> None:
    with pooler(postgres) as folder:
        assert prepared_after_questions(url.replace(postgres.socket, folder)) == 0


def end_all(postgres: Postgres, url: str) -> None:
    """End all connections to a database, as a server does that is started anew."""
    ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
    with postgres.connect() as connection:
        assert connection.execute(ended, (url.partition("@/")[2].partition("?")[0],)).fetchall()


def test_a_connection_lost_between_questions_is_made_anew(postgres: Postgres, postgres_url: str) -> None:
    with Store.open(postgres_url, mode="create") as store:
        store.add(new_model("first", 1))
        end_all(postgres, postgres_url)
        assert store.read(count_models) == 1
        assert store.read(find_subject, "first", SPEC.hash) is not None
        end_all(postgres, postgres_url)
        assert store.read(find_subject, "first", SPEC.hash) is not None
        end_all(postgres, postgres_url)
        store.write(set_card, "first", {"task": "none"})
        # What has begun sees one state or none.
        with pytest.raises(StorageError, match="connection"), store.snapshot():  # noqa: PT012 - in it
            store.read(count_models)
            end_all(postgres, postgres_url)
            store.read(count_models)
        assert store.read(count_models) == 1


def test_where_the_server_is_gone_no_more_is_tried(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    tried: list[object] = []

    def refused(*given: object, **_: object) -> None:
        tried.append(given)
        raise psycopg.OperationalError("connection refused")

    with Store.open(url, mode="read") as store:
        store.read(count_models)
        end_all(postgres, url)
        monkeypatch.setattr(psycopg, "connect", refused)
        with pytest.raises(StorageError, match="connection refused"):
            store.read(count_models)
    assert len(tried) == 1


def test_readers_see_one_state_and_change_nothing(url: str) -> None:
    with Store.open(url, mode="write") as store, reading(store._engine) as connection:
        for name, value in (("transaction_isolation", "repeatable read"), ("transaction_read_only", "on")):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar() == value
    with Store.open(url, mode="write") as store:
        assert store.write(lambda c: c.exec_driver_sql("SHOW transaction_read_only").scalar()) == "off"
        assert store.write(lambda c: c.exec_driver_sql("SHOW transaction_isolation").scalar()) == "read committed"


def test_a_peer_that_is_gone_without_a_word_is_noticed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parameters(more: str = "") -> dict[str, str]:
        with Store.open(url + more, mode="read") as store, reading(store._engine) as connection:
            below: Any = connection.connection.driver_connection
            found: dict[str, str] = below.info.get_parameters()
            return found

    given = parameters()
    assert (given["keepalives_idle"], given["keepalives_interval"], given["keepalives_count"]) == ("60", "10", "6")
    assert (given["tcp_user_timeout"], given["connect_timeout"]) == ("120000", "10")
    own = parameters("&keepalives_idle=5&tcp_user_timeout=0&connect_timeout=3")
    assert (own["keepalives_idle"], own["keepalives_interval"]) == ("5", "10")
    assert (own["tcp_user_timeout"], own["connect_timeout"]) == ("0", "3")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert parameters()["connect_timeout"] == "4"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("unsupported startup parameter: options", "ALTER ROLE NAME SET search_path"),
        ('definition of service "zip" not found', "PGSERVICEFILE"),
        ("failed to resolve host 'nowhere'", "host and port are right"),
        ("FATAL:  the database system is starting up", "wait until the server has started"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
    ],
)
def test_what_is_said_before_anybody_is_let_in(
    url: str, monkeypatch: pytest.MonkeyPatch, said: str, remedy: str
) -> None:
    import psycopg

    def refused(*_given: object, **_more: object) -> None:
        raise psycopg.OperationalError(said)

    monkeypatch.setattr(psycopg, "connect", refused)
    with pytest.raises(StorageError, match=re.escape(said)) as caught:
        Store.open(url, mode="read")
    assert remedy in (caught.value.remedy or "")


LOGGED = """
import logging, sys
import registry.storage.engine.connections
if sys.argv[1] == "heard":
    logging.basicConfig()
logging.getLogger(sys.argv[2]).error("it failed")
"""


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("logger", ["psycopg", "sqlalchemy.pool.impl.QueuePool"])
def test_what_is_logged_beside_an_error_is_for_those_who_listen(logger: str, heard: bool) -> None:
    # When they say so hangs on the moment of a refusal or an interrupt, which is raised in any case.
    command = [sys.executable, "-c", LOGGED, "heard" if heard else "", logger]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == (f"ERROR:{logger}:it failed\n" if heard else "")
