"""The index of a large registry in Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.api.base import Part, spec_of

if TYPE_CHECKING:
    from registry.types import IndexCheck

__all__ = ["Indexing"]


class Indexing(Part):
    """Indexes by which Postgres, with pgvector 0.8 or later, finds the nearest without reading every vector."""

    def index_build(self, *, fingerprint: str = "layered", distance: str | None = None) -> int | None:
        """Make the index for a fingerprint and a distance, ``l1`` or ``l2``; returns how many vectors it holds.

        From then on what is stored is in it at once. Whoever reads goes on meanwhile; who stores fingerprints waits.
        None in a SQLite file, where every search is exact and from memory, and nothing is to be built.

        Raises ``StorageError`` saying what is missing where pgvector is not there, too old or not to be created,
        ``SpecMismatchError`` where nothing has such a fingerprint, or ``UsageError`` for another distance.
        """
        from registry.equivalence import distance_named

        return self._database.writable().build_index(spec_of(fingerprint), distance_named(distance).name)

    def index_check(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        k: int = 10,
        queries: int = 100,
        seed: int = 0,
    ) -> IndexCheck | None:
        """Hold the index against exact searches from ``queries`` stored models drawn by ``seed``; None without one."""
        from registry.catalog.index_recall import check_index
        from registry.equivalence import distance_named

        store = self._database.readable()
        return check_index(store, spec_of(fingerprint), distance_named(distance), k=k, queries=queries, seed=seed)

    def index_drop(self, *, fingerprint: str | None = None) -> int:
        """Drop the indexes of a fingerprint, or all; returns of how many fingerprints there were some."""
        from registry.storage.index.index_building import drop_index

        return self._database.writable().write(drop_index, None if fingerprint is None else spec_of(fingerprint).hash)
