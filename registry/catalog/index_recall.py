"""An index held against the exact search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.arguments import whole
from registry.equivalence import search
from registry.storage.index.index_building import report_index
from registry.storage.index.pgvector_index import find_near
from registry.types import IndexCheck

if TYPE_CHECKING:
    from registry.equivalence import Distance
    from registry.storage import Store
    from registry.types import FingerprintSpec

__all__ = ["check_index"]


def check_index(
    store: Store, spec: FingerprintSpec, distance: Distance, *, k: int, queries: int, seed: int
) -> IndexCheck | None:
    """Rows that are missing or too many, and the recall over stored models drawn at random; O(n d) a query."""
    whole(k, "k", 1)
    whole(queries, "queries", 1)
    with store.snapshot():
        report = store.read(report_index, spec, distance.name)
        if report is None:
            return None
        recall, asked = None, 0
        if not report.problem:
            recall, asked = _recall(store, spec, distance, k, queries, seed)
    return IndexCheck(
        spec=spec,
        distance=distance.name,
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


def _recall(
    store: Store, spec: FingerprintSpec, distance: Distance, k: int, queries: int, seed: int
) -> tuple[float | None, int]:
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
        # By distance, not by name: of models equally near, any is as good as another.
        found = np.sort(distance.to_all(query, vectors))[: len(exact)]
        hits += max(int((found <= apart[-1]).sum()) - 1, 0)  # all but the query itself, which is its own nearest
        wanted += len(exact) - 1
    return hits / wanted, len(rows)
