"""Database addresses: URLs, paths and what ships; and how they are shown without a password."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from registry.defaults import default_database
from registry.errors import StorageError, UsageError
from registry.shipped import CATALOGUE, SHIPPED, shipped_file, shipped_word

__all__ = ["Address"]

SUPPORTED = f"a path, sqlite:///PATH, postgresql://USER@HOST/DATABASE, {', '.join(f'{word}:' for word in SHIPPED)}"
SECRETS = ("password", "sslpassword", "oauth_client_secret")  # of a URL's options
# What would be taken for a path and made a file of, its password in its name.
_SLIP = re.compile(r"postgres(ql)?(\+\w+)?:", re.IGNORECASE)
_PAIR = re.compile(r"(host|hostaddr|port|dbname|user|password|service|sslmode|options)\s*=")


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a registry: ``path`` of a SQLite file, else ``url`` for Postgres with psycopg.

    ``label`` is what people see: as it was given, the password as ``***``; ``implied``: where a command goes without
    being told; ``shipped``: a file of this package, which is never written and so opened as one that cannot change.
    """

    label: str
    url: URL
    path: Path | None = None
    implied: bool = False
    shipped: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``zoo.db``, ``sqlite:///zoo.db``, ``postgresql://...``, ``postgres://...`` or ``published:``.

        Raises
        ------
        UsageError
            No database that is supported; the message names those that are. Or ``catalogue:``, which is no registry.
        StorageError
            Postgres is asked for and psycopg is not installed; or a registry that ships is missing or damaged.
        """
        return replace(cls._parsed(text), implied=text == default_database())

    @classmethod
    def _parsed(cls, text: str) -> Address:
        if not text.strip():
            raise UsageError("the database is the empty string", f"give {SUPPORTED}")
        if text == ":memory:":
            raise _in_memory()
        if "://" not in text:
            if (word := shipped_word(text)) is not None:
                if word == CATALOGUE:
                    raise UsageError(
                        f"{text} holds architectures and no models, so it cannot answer this and is never written",
                        "ask it by list, show, stats, nearest, compress or select; or name a database: --db FILE",
                    )
                path = shipped_file(word)
                return cls(text, URL.create("sqlite", database=str(path)), path, shipped=True)
            if _SLIP.match(text) or (_PAIR.match(text.lstrip()) and (" " in text.strip() or "/" not in text)):
                raise _unreadable()
            return cls(text, URL.create("sqlite", database=text), Path(text))
        scheme = text.partition("://")[0].lower()
        if scheme in ("sqlite", "sqlite+pysqlite"):
            return cls._sqlite(text)
        if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            return cls._postgres(text)
        raise UsageError(f"databases of the kind {scheme!r} are not supported", f"give {SUPPORTED}")

    @classmethod
    def _sqlite(cls, text: str) -> Address:
        url = _made(text)
        if not url.database or url.database == ":memory:":
            raise _in_memory()
        if url.query or url.host or url.database.startswith("file:"):
            raise UsageError(f"{text} is more than a path", "a SQLite database takes no options: sqlite:///zoo.db")
        return cls(text, url, Path(url.database))

    @classmethod
    def _postgres(cls, text: str) -> Address:
        url = _made(text).set(drivername="postgresql+psycopg")
        if find_spec("psycopg") is None:
            raise StorageError(
                "Postgres needs the driver psycopg, which is not installed",
                "pip install 'architecture-registry[postgres]'",
            )
        if "@" in (url.host or ""):  # the rest of a password
            raise UsageError("the database URL has more than one @", "write those within the password as %40")
        hidden = {name: "***" for name in SECRETS if name in url.query}
        if url.password is None and not hidden:
            return cls(text, url)
        shown = url.set(drivername="postgresql").update_query_dict(hidden)
        return cls(shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***"), url)

    def command(self, verb: str) -> str:
        """Return the ``archreg`` command that does ``verb`` here, ready for a shell, ``--db`` where it is needed."""
        return f"archreg {verb}" if self.implied else f"archreg {verb} --db {shlex.quote(self.label)}"

    def redacted(self, text: str) -> str:
        """Return ``text`` with the password of this address replaced."""
        secrets = [self.url.password, *(self.url.query.get(name) for name in SECRETS)]
        for secret in secrets:
            if isinstance(secret, str) and secret:
                text = text.replace(secret, "***")
        return text


def _in_memory() -> UsageError:
    return UsageError("a database in memory would be gone with this process", "name a file: sqlite:///zoo.db")


def _made(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        raise _unreadable() from None


def _unreadable() -> UsageError:
    # The text, and what a parser says of it, may hold a password: neither is repeated.
    return UsageError("the database URL cannot be read", f"give {SUPPORTED}")
