"""The store behind a registry, opened when first needed and no more widely than needed."""

from __future__ import annotations

import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Literal

from registry.catalog.arguments import place
from registry.defaults import anchored, default_database, no_file
from registry.errors import DatabaseMissingError, RegistryError

if TYPE_CHECKING:
    from registry.storage import Store

__all__ = ["Database"]

INHERITED: list[Store] = []
"""Stores that this process was forked with. Their connections are the parent's: closing them would speak on them."""


class Database:
    """A database by URL or path; None: the environment's ``ARCHREG_DB``, else ``archreg.db`` in the working folder.

    ``lock``: held for a whole question. Threads share a connection, its snapshot and the vectors that are remembered.
    """

    def __init__(self, url: str | Path | None) -> None:
        given = (place(url, "url") if url is not None else "") or default_database()
        self._place = str(Path(given).expanduser()) if given.startswith("~") else given
        self._folder = _working_folder()
        self.lock = RLock()
        self._store: Store | None = None
        self._mode = ""
        self._process = 0

    @property
    def url(self) -> str:
        """As it was given, or from the folder that was the working one then, where it is no longer."""
        return self._place if _working_folder() == self._folder else anchored(self._place, self._folder)

    @property
    def label(self) -> str:
        """The same, without a password."""
        if "://" not in self._place:
            return self.url
        from registry.storage.engine.address import Address

        try:
            return Address.parse(self.url).label
        except RegistryError:  # what cannot be read may hold a password, too
            return "..."

    def readable(self) -> Store:
        """The store, to be asked. Raises ``DatabaseMissingError`` where there is none."""
        held = self._held()
        return self._open("read") if held is None else held

    def writable(self) -> Store:
        """The store, to be changed. Raises ``DatabaseMissingError`` where there is none."""
        held = self._held(writing=True)
        return self._open("write") if held is None else held

    def created(self) -> Store:
        """The store, to be filled; made where there is none yet."""
        held = self._held(writing=True)
        return self._open("create") if held is None else held

    def existing(self) -> Store | None:
        """The store if there is one already, else None; it is not made yet, so that a failure leaves nothing behind."""
        if self._store is None and no_file(self.url):
            return None  # SQLAlchemy, a fifth of a second, is not loaded to find that out
        try:
            return self.writable()
        except DatabaseMissingError:
            return None

    def load(self) -> None:
        """Load what opening a database takes, and open none: while worker processes load what they need."""
        import registry.storage.store  # noqa: F401

    def close(self) -> None:
        """Close the connection, if any was made."""
        if self._store is None:
            return
        if self._process == os.getpid():
            self._store.close()
        else:
            INHERITED.append(self._store)
        self._store = None

    def _held(self, *, writing: bool = False) -> Store | None:
        """The store that this process has open."""
        return self._store if self._process == os.getpid() and not (writing and self._mode == "read") else None

    def _open(self, mode: Literal["read", "write", "create"]) -> Store:
        from registry.storage import Store

        before = self._store
        self.close()
        store = Store.open(self.url, mode=mode, after=before)
        self._store, self._mode, self._process = store, mode, os.getpid()
        return store


def _working_folder() -> str:
    """The working folder, empty where it has been removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
