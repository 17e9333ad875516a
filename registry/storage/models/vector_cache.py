"""Cache of the vectors of one spec: read once, then updated with later changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import select

from registry.storage.engine import schema
from registry.storage.models.vectors import count_vectors, vector_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from registry.storage.models.records import SpecState

__all__ = ["VectorCache"]

fingerprints, conjugacy = schema.fingerprints, schema.conjugacy

UNKNOWN = ""
ROOM = 1_024  # rows kept free at least, beside a quarter: pages that nothing was written to cost no memory


class VectorCache:
    """Ids, vectors and training classes of all models of a spec; arrays are views, valid until a refresh.

    ``ids`` (n,) int64, ascending unless vectors came out of turn; ``vectors`` (n, d) float32.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._state: SpecState | None = None
        self._count = 0
        self._ids = np.empty(0, np.int64)
        self._vectors = np.empty((0, 0), np.float32)
        self._squares: NDArray[np.float64] | None = None
        self._codes: NDArray[np.int16] | None = None
        self._classes: dict[str, int] = {}
        self._sorter: NDArray[np.intp] | None = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """Model ids: int64 array of shape (n,)."""
        return self._ids[: self._count]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Vectors: float32 array of shape (n, d), read-only."""
        found = self._vectors[: self._count]
        found.flags.writeable = False
        return found

    @property
    def squares(self) -> NDArray[np.float64]:
        """Squared norms: float64 array of shape (n,); computed at first use."""
        if self._squares is None:
            self._squares = np.empty(len(self._vectors), np.float64)
            self._squares[: self._count] = _squares(self.vectors)
        return self._squares[: self._count]

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Rows of the cached models among ``ids``, in order of ``ids``; O(m log n)."""
        rows, found = self._look_up(ids)
        return rows[found]

    def of_training(self, connection: Connection, training: str) -> NDArray[np.bool_]:
        """Mask (n,) of the rows with that training class; reads all of them at first use."""
        if self._codes is None:
            self._codes = np.zeros(len(self._ids), np.int16)
            self._classes = {UNKNOWN: 0}
            self._read_classes(connection, self._state)
        return np.asarray(self._codes[: self._count] == self._classes.get(training, -1))

    def refresh(self, connection: Connection, state: SpecState | None) -> None:
        """Update to the database at ``state``: O(changes); O(n) at first, or if a vector was removed."""
        known = self._state
        if state is not None and known is not None and state == known:
            return
        self._state = None  # whatever interrupts this, the next one starts anew
        if state is None:
            self._forget()
            return
        if known is None or (known.id, known.created) != (state.id, state.created) or known.stamp > state.stamp:
            self._forget()
            self._reserve(count_vectors(connection, state.id), state.length)
            self._append_new(connection, state, since=None)
        elif known.stamp < state.stamp:
            if state.removed > known.stamp:
                self._drop_gone(connection, state)
            self._append_new(connection, state, since=known.stamp)
            if self._codes is not None:
                self._read_classes(connection, state, since=known.stamp)
        self._state = state

    def _append_new(self, connection: Connection, state: SpecState, *, since: int | None) -> None:
        """Read the rows changed since a stamp: known ids in place, new ones at the end."""
        wanted = [fingerprints.c.spec_id == state.id]
        if since is not None:
            wanted.append(fingerprints.c.stamp > since)
        for ids, vectors in vector_blocks(connection, wanted, state.length):
            rows: slice | NDArray[np.intp] = slice(self._count, self._count + len(ids))
            end = self._count + len(ids)
            if since is not None:
                rows, known = self._look_up(ids)
                end -= int(np.count_nonzero(known))
                rows[~known] = np.arange(self._count, end)
            if end > len(self._ids):
                self._reserve(end, state.length)
            self._ids[rows], self._vectors[rows] = ids, vectors
            if self._squares is not None:
                self._squares[rows] = _squares(vectors)
            if end > self._count:
                self._count, self._sorter = end, None

    def _drop_gone(self, connection: Connection, state: SpecState) -> None:
        """Remove the rows of removed models in blocks, without a second array of vectors."""
        stored = select(fingerprints.c.model_id).where(fingerprints.c.spec_id == state.id)
        held = np.fromiter(connection.scalars(stored), np.int64)
        kept = np.flatnonzero(np.isin(self.ids, held))
        for start in range(0, len(kept), ROOM):
            rows = kept[start : start + ROOM]
            if rows[-1] == start + len(rows) - 1:
                continue  # nothing is missing yet
            block = slice(start, start + len(rows))
            for array in (self._ids, self._vectors, self._squares, self._codes):
                if array is not None:
                    array[block] = array[rows]
        self._count, self._sorter = len(kept), None

    def _reserve(self, count: int, length: int) -> None:
        room = count + max(count // 4, ROOM)
        self._ids = _grown(self._ids, self._count, (room,))
        self._vectors = _grown(self._vectors, self._count, (room, length))
        if self._squares is not None:
            self._squares = _grown(self._squares, self._count, (room,))
        if self._codes is not None:
            self._codes = _grown(self._codes, self._count, (room,))

    def _look_up(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Rows of ``ids``, and a mask of the known ones; other rows are undefined."""
        if not self._count:
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        if self._sorter is None:
            self._sorter = np.argsort(self.ids, kind="stable")
        at = np.searchsorted(self.ids, ids, sorter=self._sorter)
        rows = self._sorter[np.minimum(at, self._count - 1)]
        return rows, self.ids[rows] == ids

    def _read_classes(self, connection: Connection, state: SpecState | None, *, since: int | None = None) -> None:
        """Encode the training classes of the rows changed since a stamp."""
        codes = self._codes
        if state is None or codes is None:
            return
        statement = (
            select(fingerprints.c.model_id, conjugacy.c.training_class)
            .select_from(fingerprints)
            .outerjoin(conjugacy, conjugacy.c.model_id == fingerprints.c.model_id)
            .where(fingerprints.c.spec_id == state.id)
        )
        if since is not None:
            statement = statement.where(fingerprints.c.stamp > since)
        rows = connection.execute(statement).all()
        if not rows:
            return
        ids, trainings = zip(*rows, strict=True)
        found = [self._classes.setdefault(training or UNKNOWN, len(self._classes)) for training in trainings]
        at, known = self._look_up(np.array(ids, np.int64))
        codes[at[known]] = np.array(found, np.int16)[known]


def _grown(array: NDArray, count: int, shape: tuple[int, ...]) -> NDArray:  # type: ignore[type-arg]
    grown = np.empty(shape, array.dtype)
    if count:
        grown[:count] = array[:count]
    return grown


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    found = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), ROOM):
        block = vectors[start : start + ROOM].astype(np.float64)
        found[start : start + ROOM] = np.einsum("ij,ij->i", block, block)
    return found
