"""Export: the selected models of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from registry.storage.engine import schema
from registry.storage.engine.dialects import among
from registry.storage.models.model_queries import candidate_ids, resolve
from registry.storage.portable.calibration_merge import calibrations_of
from registry.storage.portable.model_assembly import blobs_of, read_portables, read_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Table

    from registry.storage.portable.model_assembly import Portable
    from registry.types.filters import Filter
    from registry.types.outcomes import Ingested

__all__ = ["Selection"]


class Selection:
    """Models of a registry with one of the names, if given, that match the filter, in one transaction.

    Raises
    ------
    UnknownModelError, AmbiguousError, EmptyRegistryError
        As `resolve`, where nothing has a name.
    """

    def __init__(self, connection: Connection, wanted: Filter | None, names: Sequence[str]) -> None:
        self._connection = connection
        self.ids = candidate_ids(connection, wanted)
        if names:
            chosen = {resolve(connection, name) for name in names}
            self.ids = [id_ for id_ in self.ids if id_ in chosen]

    def models(self, *, spectra: bool = True) -> Iterator[list[Portable | Ingested]]:
        """Yield the models in portions, in the order they were stored; damaged ones as failed items."""
        specs = read_specs(self._all(schema.specs))
        return read_portables(self, specs, self.ids, spectra=spectra)

    def calibrations(self) -> tuple[list[dict[str, Any]], list[Ingested]]:
        """Return all calibrations as rows without ids, and failures for damaged ones."""
        return calibrations_of(self._all(schema.calibrations))

    def _all(self, table: Table) -> Iterable[Sequence[Any]]:
        return self._connection.execute(select(table).order_by(table.c.id)).all()

    def rows(self, table: Table, ids: Sequence[int], key: str) -> Iterable[Sequence[Sequence[Any]]]:
        """Rows of the ids; see `Rows`."""
        mine = select(table).where(among(table.c[key], ids, self._connection))
        yield self._connection.execute(mine.order_by(*table.primary_key.columns)).all()

    def counts(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Rows of a table by model; see `Rows`."""
        return self._by_model(table, func.count(), ids)

    def sizes(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Bytes of blobs by model; see `Rows`."""
        [blob] = blobs_of(table)
        return self._by_model(table, func.sum(func.length(blob)), ids)

    def _by_model(self, table: Table, figure: Any, ids: Sequence[int]) -> dict[int, int]:
        key = table.c.model_id
        found = self._connection.execute(select(key, figure).where(among(key, ids, self._connection)).group_by(key))
        return {int(id_): int(number) for id_, number in found}
