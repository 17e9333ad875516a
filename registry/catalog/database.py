"""Access of a registry to its store: opened at first use, for reading or writing as needed."""

from __future__ import annotations

import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Literal

from registry.catalog.arguments import place
from registry.defaults import anchored, default_database, no_file
from registry.errors import DatabaseMissingError, RegistryError
from registry.shipped import CATALOGUE, shipped_file

if TYPE_CHECKING:
    from registry.architectures.catalogue_file import Catalogue
    from registry.storage import Store

__all__ = ["Database"]

INHERITED: list[Store] = []
"""Stores inherited by a fork. Their connections belong to the parent process, so they are never closed here."""


class Database:
    """A database by URL or path. None: the environment variable ``ARCHREG_DB``, else ``archreg.db``.

    ``lock``: held during each method of ``Registry``. Threads share a connection, its snapshot and the cached vectors.
    """

    def __init__(self, url: str | Path | None) -> None:
        given = (place(url, "url") if url is not None else "") or default_database()
        self._default = url is None and not os.environ.get("ARCHREG_DB")
        self._place = str(Path(given).expanduser()) if given.startswith("~") else given
        self._folder = _working_folder()
        self.lock = RLock()
        self._store: Store | None = None
        self._catalogue: Catalogue | None = None
        self._mode = ""
        self._process = 0

    @property
    def url(self) -> str:
        """The URL as given. A relative path refers to the working folder at construction, also after a change of it."""
        return self._place if _working_folder() == self._folder else anchored(self._place, self._folder)

    @property
    def named(self) -> bool:
        """Whether it was named, by an argument or by ``ARCHREG_DB``."""
        return not self._default

    @property
    def label(self) -> str:
        """The URL without its password."""
        if "://" not in self._place:
            return self.url
        from registry.storage.engine.address import Address

        try:
            return Address.parse(self.url).label
        except RegistryError:  # a URL that cannot be parsed may contain a password
            return "..."

    def catalogue(self) -> Catalogue | None:
        """Return the opened catalogue where the address is ``catalogue:``; None for a database of models.

        Raises ``StorageError`` if the file is missing or damaged.
        """
        if self._place != f"{CATALOGUE}:":
            return None
        if self._catalogue is None or self._process != os.getpid():
            from registry.architectures.catalogue_file import Catalogue

            self._catalogue, self._process = Catalogue(shipped_file(CATALOGUE)), os.getpid()
        return self._catalogue

    def readable(self) -> Store:
        """Return the store, for reading. Raises ``DatabaseMissingError`` if there is none."""
        held = self._held()
        return self._open("read") if held is None else held

    def readable_if_any(self) -> Store | None:
        """Return the store, for reading; None where none was named and the default one does not exist."""
        return None if self._store is None and self._default and no_file(self.url) else self.readable()

    def writable(self) -> Store:
        """Return the store, for writing. Raises ``DatabaseMissingError`` if there is none."""
        held = self._held(writing=True)
        return self._open("write") if held is None else held

    def created(self) -> Store:
        """Return the store, for writing; create it if there is none."""
        held = self._held(writing=True)
        return self._open("create") if held is None else held

    def existing(self) -> Store | None:
        """Return the store, or None if there is none. It is not created, so that a failure leaves nothing behind."""
        if self._store is None and no_file(self.url):
            return None  # without loading SQLAlchemy, which takes a fifth of a second
        try:
            return self.writable()
        except DatabaseMissingError:
            return None

    def load(self) -> None:
        """Import the modules that opening a database needs, while worker processes import theirs."""
        import registry.storage.store  # noqa: F401

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._catalogue is not None and self._process == os.getpid():
            self._catalogue.close()
        self._catalogue = None
        if self._store is None:
            return
        if self._process == os.getpid():
            self._store.close()
        else:
            INHERITED.append(self._store)
        self._store = None

    def _held(self, *, writing: bool = False) -> Store | None:
        """The store that this process has open in the needed mode, else None."""
        return self._store if self._process == os.getpid() and not (writing and self._mode == "read") else None

    def _open(self, mode: Literal["read", "write", "create"]) -> Store:
        from registry.storage import Store

        before = self._store
        self.close()
        store = Store.open(self.url, mode=mode, after=before)
        self._store, self._mode, self._process = store, mode, os.getpid()
        return store


def _working_folder() -> str:
    """The working folder; empty if it has been removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
