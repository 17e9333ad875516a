"""Untrusted registry in a SQLite file, opened read-only."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from registry.errors import NotFoundError, SchemaVersionError, StorageError, UnsafeError
from registry.shipped import is_word
from registry.storage.engine import schema
from registry.storage.engine.address import Address
from registry.storage.engine.connections import guarded, is_frozen, sqlite_uri
from registry.storage.engine.schema_version import HEAD, VERSION_TABLE, recorded_in, require_head, require_revision
from registry.storage.portable.calibration_merge import calibrations_of
from registry.storage.portable.model_assembly import MAX_BLOB, blobs_of, read_portables, read_specs
from registry.types.outcomes import Ingested

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Table

    from registry.storage.portable.model_assembly import Portable

__all__ = ["PortableFile", "seal"]

MAX_ROW = 2**17  # bytes of any row but those of spectra
BLOCK = 500  # rows: with their limit, what a forged file can have read at once
WAL = 2  # the file format's number for a database with a write-ahead log


class PortableFile:
    """A registry in a SQLite file, open for reading; a context manager.

    Nothing in the file is trusted: no trigger, view or function of it runs, every cell's kind is checked, and sizes are
    bounded before anything is read. ``path``: of the file.
    """

    def __init__(self, path: Path) -> None:
        """Open and check the file, or the one that ships under a word such as ``published:``.

        Raises
        ------
        NotFoundError
            There is no such file, or it is no regular one.
        SchemaVersionError
            Its schema is older, and the remedy upgrades a copy of it; or newer.
        StorageError
            It is no registry, or its tables are not those of one.
        """
        self._address = Address.parse(str(path) if is_word(str(path)) else str(path.absolute()))
        self._label = str(path)
        self.path = path = self._address.path or path
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}", "name a file that archreg export wrote")
        database, query = sqlite_uri(path, frozen=is_frozen(path), shipped=self._address.shipped)
        if not self._address.shipped and _has_no_log(path):
            query = {"mode": "ro"}
        uri = f"{database}?" + "&".join(f"{key}={value}" for key, value in query.items() if key != "uri")
        with guarded(self._address):
            # No implicit transactions: one is begun here, and all of it is read from one state of the file.
            self._connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)
        try:
            with self._damage():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)
        connection.execute("BEGIN")
        self._check_version()
        for table in schema.metadata.tables.values():
            self._check_table(table.name, table.columns.keys())
        self.ids = [id_ for (id_,) in connection.execute("SELECT id FROM models ORDER BY id")]
        if any(type(id_) is not int for id_ in self.ids) or len(set(self.ids)) != len(self.ids):
            raise StorageError(f"{self._label} has models without an id of their own", "export it again")
        self._specs = read_specs(self._all(schema.specs))

    def _check_version(self) -> None:
        if not self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [VERSION_TABLE]).fetchall():
            raise StorageError(f"{self._label} is not a registry", "name a file that archreg export wrote")
        self._check_table(VERSION_TABLE, ["version_num"])
        version = recorded_in(self._connection)
        start = f"cp {shlex.quote(self._label)} copy.db && archreg db upgrade"
        require_revision(self._address, version, f"{start} --from {HEAD} --db copy.db")
        if version < HEAD:
            raise SchemaVersionError(
                f"{self._label} has schema {version}, this program needs {HEAD}",
                f"upgrade a copy of it: {start} --db copy.db",
            )
        require_head(self._address, version)

    def _check_table(self, table: str, expected: Iterable[str]) -> None:
        found = self._connection.execute("SELECT type FROM sqlite_master WHERE name = ?", [table]).fetchall()
        columns = self._connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", [table]).fetchall()
        # Anything but plain columns of a plain table could compute what it shows, for as long as it likes.
        if found != [("table",)] or {name for name, _ in columns} != set(expected):
            raise StorageError(f"{self._label} has no table {table} as a registry has", "export it again")
        if any(hidden for _, hidden in columns):
            raise UnsafeError(f"{self._label} computes columns of {table}", "export it again")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                raise StorageError(f"{self._label} is not a SQLite database", "name another file") from error
            raise StorageError(f"{self._label} is damaged: {error}", "export it again") from error

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def models(self, *, spectra: bool = True) -> Iterator[list[Portable | Ingested]]:
        """Yield the models in portions, in the order they were stored; damaged ones as failed items."""
        return read_portables(self, self._specs, self.ids, spectra=spectra)

    def calibrations(self) -> tuple[list[dict[str, Any]], list[Ingested]]:
        """Return the calibrations as rows without ids, and failures for damaged ones."""
        try:
            with self._damage():
                return calibrations_of(self._all(schema.calibrations))
        except StorageError as error:
            return [], [Ingested("calibrations", "calibrations", "failed", 0.0, error.message, error.remedy or "")]

    def _all(self, table: Table) -> Iterator[tuple[Any, ...]]:
        yield from self._connection.execute(f"SELECT {_columns(table)} FROM {table.name} ORDER BY id")  # noqa: S608

    def rows(self, table: Table, ids: Sequence[int], key: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows from the first of the ids to the last; see `Rows`."""
        if not ids:
            return
        large = bool(blobs_of(table)) and table is not schema.fingerprints
        order = ", ".join(f'"{column.name}"' for column in table.primary_key.columns)
        statement = (
            f'SELECT {_columns(table)} FROM "{table.name}"'  # noqa: S608 - names of the schema
            f' WHERE "{key}" BETWEEN ? AND ? ORDER BY {order}'
        )
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BLOB + MAX_ROW if large else MAX_ROW)
        try:
            with self._damage():
                found = self._connection.execute(statement, [ids[0], ids[-1]])
                while block := found.fetchmany(BLOCK):
                    yield block
        finally:
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)

    def counts(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Rows of a table by model; see `Rows`."""
        return self._by_model(f'SELECT model_id, count(*) FROM "{table.name}"', ids)  # noqa: S608

    def sizes(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Bytes of blobs by model; see `Rows`."""
        [blob] = blobs_of(table)
        return self._by_model(f'SELECT model_id, sum(length("{blob.name}")) FROM "{table.name}"', ids)  # noqa: S608

    def _by_model(self, statement: str, ids: Sequence[int]) -> dict[int, int]:
        bounded = f"{statement} WHERE model_id BETWEEN ? AND ? GROUP BY model_id"
        with self._damage():
            found = self._connection.execute(bounded, [ids[0], ids[-1]]).fetchall()
        return {id_: int(count or 0) for id_, count in found if type(id_) is int}


def seal(path: Path) -> None:
    """Convert a closed SQLite file to one without a log, which is readable on read-only media.

    What is in the log still is written then; raises ``StorageError`` where there is no room for it.
    """
    with guarded(Address.parse(str(path)), writing=True):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            connection.close()


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _has_no_log(path: Path) -> bool:
    """Whether the database has no write-ahead log, so that reading creates no files."""
    with path.open("rb") as file:
        return WAL not in file.read(20)[18:]
