"""`Store`: an open registry. What its methods do is in the modules beside this one, what they are in ``api``."""

from __future__ import annotations

from registry.errors import UsageError
from registry.storage.api.changing import Changing
from registry.storage.api.filling import Filling
from registry.storage.api.finding import Finding
from registry.storage.api.indexing import Indexing
from registry.storage.api.judging import Judging
from registry.storage.api.measuring import Measuring
from registry.storage.api.running import Running
from registry.storage.engine.address import Address
from registry.storage.engine.connections import make_engine
from registry.storage.engine.schema_version import current_version, require_head, require_writable
from registry.storage.transactions import Mode

__all__ = ["Mode", "Store"]


class Store(Filling, Running, Finding, Measuring, Indexing, Judging, Changing):
    """A registry in a SQLite file or a Postgres schema, opened by `Store.open`; a context manager.

    Names given to its methods may also be ``sha256:PREFIX``, the beginning of a content hash. Every method raises
    `StorageError` where the database refuses; those that change something, `ReadOnlyError` where it may only be read;
    those that take a name, `UnknownModelError` and `EmptyRegistryError` where nothing has it.
    """

    @classmethod
    def open(cls, url: str, *, mode: Mode, after: Store | None = None) -> Store:
        """Open the registry at a path, ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.

        Parameters
        ----------
        url : str
            Where.
        mode : {"read", "write", "create"}
            ``read`` changes nothing and needs no right to; ``write`` needs a registry that is there; ``create`` makes
            an empty one if none is: the SQLite file, but no folder, or the tables in Postgres's schema in use.
        after : Store, optional
            One of the same place, opened before and closed: what it remembers of vectors is not read again.

        Raises
        ------
        UsageError
            The URL cannot be read, or its kind is not supported.
        DatabaseMissingError
            Nothing is there, and ``mode`` is not ``create``.
        SchemaVersionError
            Its schema is older, and the remedy is the command that upgrades it; or newer.
        ReadOnlyError
            It is to be written, and a file that this user may only read.
        StorageError
            It cannot be reached, or is something else, which is not touched.
        """
        if mode not in ("read", "write", "create"):
            raise UsageError(f"{mode!r} is no mode", "use read, write or create")
        address = Address.parse(url)
        engine = make_engine(address, "read" if mode == "read" else "write")
        try:
            version = current_version(address, engine)
            if version is None and mode == "create":
                from registry.storage.engine import migrate

                migrate.create(address)
                version = current_version(address, engine)
            require_head(address, version)
            if mode != "read":
                require_writable(address)
        except BaseException:
            engine.dispose()
            raise
        return cls(address, engine, mode, None if after is None else after.memory)
