"""The derived index of a spec, asked and made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.api.base import Part
from registry.storage.index import index_building, pgvector_index
from registry.storage.models import vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.storage.models.records import IndexReport
    from registry.types import FingerprintSpec

__all__ = ["Indexing"]


class Indexing(Part):
    """Derived indexes."""

    def index(self, spec: FingerprintSpec, distance: str) -> pgvector_index.OpenIndex | None:
        """Return what can be made of a derived index for a spec and distance; None where none is there at all."""
        if self._engine.dialect.name != "postgresql":
            return None

        with self.snapshot():
            state, _, facts = self._standing(spec.hash, distance)
            if state is None or facts is None:
                return None
            found = self._read(lambda connection: pgvector_index.opened(connection, state, facts, distance, spec.label))
            if found is None or found.problem:
                return None if found is None else pgvector_index.OpenIndex(found, state, distance, 0)
            # Counting is O(n): once a change.
            if self._counted.get(spec.hash, (None, 0))[0] != state:
                count = self._read(lambda connection: vectors.count_vectors(connection, state.id))
                self._counted[spec.hash] = (state, count)
            return pgvector_index.OpenIndex(found, state, distance, self._counted[spec.hash][1])

    def near(
        self,
        index: pgvector_index.OpenIndex,
        query: NDArray[np.float32] | int,
        k: int,
        *,
        ids: Sequence[int] | None = None,
        kind: tuple[str, str] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and vectors of more than ``k`` models that the index finds near; see `pgvector_index.find`."""
        return self._read(lambda connection: pgvector_index.find(connection, index, query, k, ids=ids, kind=kind))

    def index_lacks(self, index: pgvector_index.OpenIndex, model_id: int | None = None) -> bool:
        """Whether the index is without the vector of that model, or for None of any, as somebody's SQL leaves it."""
        return self._read(lambda connection: pgvector_index.lacks(connection, index, model_id))

    def count_vectors(self, index: pgvector_index.OpenIndex, ids: Sequence[int]) -> int:
        """Return how many of those models have a vector in the index."""
        return self._read(lambda connection: vectors.count_vectors(connection, index.state.id, ids))

    def build_index(self, spec: FingerprintSpec, distance: str) -> int | None:
        """Make the derived index for a spec and distance; return how many vectors it holds, None on SQLite."""
        index_building.check_distance(distance)
        if self._engine.dialect.name != "postgresql":
            return None
        return self._write(lambda connection: index_building.build(connection, spec, distance))

    def drop_index(self, spec_hash: str | None = None) -> int:
        """Drop the derived indexes of a spec, or all; return of how many specs."""
        return self._write(lambda connection: index_building.drop(connection, spec_hash))

    def index_report(self, spec: FingerprintSpec, distance: str) -> IndexReport | None:
        """Return how a derived index stands to the vectors, None where there is none."""
        return self._read(lambda connection: index_building.report(connection, spec, distance))
