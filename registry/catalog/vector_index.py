"""``Registry.index``: build, check and drop the vector index of a registry in Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never

from registry.catalog.arguments import refuse_unknown, whole
from registry.types import IndexCheck

if TYPE_CHECKING:
    from registry.catalog.database import Database
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import FingerprintSpec

__all__ = ["VectorIndex"]


class VectorIndex:
    """The index with which Postgres finds neighbours without reading all vectors; needs pgvector 0.8 or later."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def build(self, *, fingerprint: str = "layered", distance: str | None = None, **unknown: Never) -> int | None:
        """Build the index for a fingerprint and a distance, ``l1`` or ``l2``; return the number of vectors in it.

        Models stored later enter the index at once. During the build, readers continue and writers of fingerprints
        wait. Returns None for a SQLite file, where every search is exact and in memory.

        Raises ``StorageError`` if pgvector is missing, too old or cannot be created; ``SpecMismatchError`` if no model
        has such a fingerprint; ``UsageError`` for another distance.
        """
        from registry.equivalence import distance_named
        from registry.spectral.specs import spec_named

        refuse_unknown(unknown)
        with self._database.lock:
            return self._database.writable().build_index(spec_named(fingerprint), distance_named(distance).name)

    def check(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        k: int = 10,
        queries: int = 100,
        seed: int = 0,
        **unknown: Never,
    ) -> IndexCheck | None:
        """Compare the index with exact searches from ``queries`` stored models drawn by ``seed``; None without one.

        Returns missing and extra rows, and the recall: the fraction of the ``k`` nearest that the index finds. O(n d)
        per query.
        """
        from registry.equivalence import distance_named
        from registry.spectral.specs import spec_named
        from registry.storage.index.index_building import report_index

        refuse_unknown(unknown)
        whole(k, "k", 1)
        whole(queries, "queries", 1)
        spec, measure = spec_named(fingerprint), distance_named(distance)
        with self._database.lock, (store := self._database.readable()).snapshot():
            report = store.read(report_index, spec, measure.name)
            if report is None:
                return None
            recall, asked = None, 0
            if not report.problem:
                recall, asked = _recall(store, spec, measure, k, queries, seed)
        return IndexCheck(
            spec=spec,
            distance=measure.name,
            stored=report.stored,
            held=report.held,
            missing=report.missing,
            extra=report.extra,
            k=k,
            queries=asked,
            recall=recall,
            problem=report.problem,
            remedy=report.remedy,
        )

    def drop(self, *, fingerprint: str | None = None, **unknown: Never) -> int:
        """Drop the indexes of a fingerprint, or all; return the number of fingerprints that had one."""
        from registry.spectral.specs import spec_named
        from registry.storage.index.index_building import drop_index

        refuse_unknown(unknown)
        spec_hash = None if fingerprint is None else spec_named(fingerprint).hash
        with self._database.lock:
            return self._database.writable().write(drop_index, spec_hash)


def _recall(
    store: Store, spec: FingerprintSpec, distance: Distance, k: int, queries: int, seed: int
) -> tuple[float | None, int]:
    import numpy as np

    from registry.equivalence import search
    from registry.storage.index.pgvector_index import find_near

    memory, index = store.vectors(spec.hash), store.index(spec, distance.name)
    count = len(memory.ids)
    if index is None or count < 2:
        return None, 0
    rows = np.random.default_rng(seed).choice(count, min(queries, count), replace=False)
    hits = wanted = 0
    for row in rows.tolist():
        query = memory.vectors[row]
        exact, apart = search(
            query, memory.vectors, distance, ids=memory.ids, squares=lambda: memory.squares, k=min(k, count - 1) + 1
        )
        _, vectors = store.read(find_near, index, query, k + 1)
        # By distance, because models at equal distance are interchangeable.
        found = np.sort(distance.to_all(query, vectors))[: len(exact)]
        hits += max(int((found <= apart[-1]).sum()) - 1, 0)  # all but the query itself, which is its own nearest
        wanted += len(exact) - 1
    return hits / wanted, len(rows)
