"""Cache for questions about relations: which model is of which topology, and signs of sketches last asked about.

The signs of the numbers of two sketches agree the more often the higher their correlation is (Charikar, "Similarity
estimation techniques from rounding algorithms", 2002). They take a sixteenth of the numbers' memory, and are what the
models to be compared exactly are chosen by.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sqlalchemy import and_, select

from registry.storage.engine import schema
from registry.storage.engine.dialects import among
from registry.storage.models.shape_index import ShapeIndex
from registry.storage.models.sketch_reads import read_layer_shapes, read_sketch_blocks, read_tail_figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from registry.storage.models.records import SpecState

__all__ = ["SignBlock", "SketchCache", "Topology"]

fingerprints, models, sketches = schema.fingerprints, schema.models, schema.sketches


class SignBlock(NamedTuple):
    """Signs of the sketches of the models of one topology, at so many buckets a layer.

    ``ids`` (n,) int64, ascending; ``bits`` (n, layers * buckets / 8) uint8, a bit set where a number is positive;
    ``figures`` (n,) float64: a figure that follows from the spectra alone, NaN where unknown.
    """

    ids: NDArray[np.int64]
    bits: NDArray[np.uint8]
    figures: NDArray[np.float64]

    @property
    def bytes(self) -> int:
        """Memory of the block."""
        return self.ids.nbytes + self.bits.nbytes + self.figures.nbytes


class Topology(NamedTuple):
    """Layers of the models of one topology: int64 (n, 3) of outputs, inputs and kernel positions, and their buckets."""

    shapes: NDArray[np.int64]
    buckets: int


class SketchCache:
    """Topologies of all models, shapes of each topology, and signs of the sketches of the topologies last asked about.

    ``ids`` (n,) int64 ascending; ``codes`` (n,) int32, the topology of each model, and ``coded``, the code of each
    topology; ``drawn`` (n,) bool, whether a model has sketches of the version. Memory O(n), and at most ``limit`` bytes
    of signs: the least recently used go first, but for those of the topology last asked about.
    """

    def __init__(self, version: int, limit: int = 64_000_000) -> None:
        self.version = version
        self.limit = limit
        self._forget()

    def _forget(self) -> None:
        self._states: dict[int, SpecState] = {}
        self.ids = np.empty(0, np.int64)
        self.codes = np.empty(0, np.int32)
        self.drawn = np.empty(0, np.bool_)
        self.coded: dict[str, int] = {}
        self._topologies: dict[int, Topology | None] = {}
        self._signs: OrderedDict[tuple[int, int], SignBlock] = OrderedDict()
        self._index: ShapeIndex | None = None
        self._indexed: frozenset[int] = frozenset()  # topologies in the index
        self._current: dict[int, Topology] | None = None
        self._order: NDArray[np.intp] | None = None

    @property
    def held(self) -> int:
        """Bytes of signs that are held."""
        return sum(block.bytes for block in self._signs.values())

    def refresh(self, connection: Connection, states: Sequence[SpecState]) -> None:
        """Update to the database at the ``states`` of all specs: every model has a vector of one of them.

        O(n) at first, or if a vector was removed; else O(changes).
        """
        known, new = self._states, {state.id: state for state in states}
        if new == known and known:
            return
        self._states = {}  # whatever interrupts this, the next one starts anew
        followed = bool(known) and all(
            (now := new.get(id_)) is not None and now.created == before.created and now.stamp >= before.stamp
            for id_, before in known.items()
        )
        if followed:
            self._follow(connection, known, new)
        else:
            self._forget()
            self._take(*self._read(connection, None))
        self._states = new

    def _read(self, connection: Connection, ids: Sequence[int] | None) -> tuple[list[int], list[str], list[bool]]:
        """Ids, topologies and whether there are sketches, of all models or of ``ids``."""
        mine = and_(sketches.c.model_id == models.c.id, sketches.c.version == self.version)
        statement = select(models.c.id, models.c.topology, sketches.c.model_id.is_not(None))
        statement = statement.select_from(models.outerjoin(sketches, mine)).order_by(models.c.id)
        if ids is not None:
            statement = statement.where(among(models.c.id, ids, connection))
        rows = connection.execute(statement).all()
        return [row[0] for row in rows], [row[1] for row in rows], [bool(row[2]) for row in rows]

    def _take(self, ids: Sequence[int], topologies: Iterable[str], drawn: Sequence[bool]) -> None:
        """Add models that are not held."""
        self._current = self._order = None
        codes = [self.coded.setdefault(topology, len(self.coded)) for topology in topologies]
        every = np.concatenate((self.ids, np.array(ids, np.int64)))
        order = np.argsort(every, kind="stable")
        self.ids = every[order]
        self.codes = np.concatenate((self.codes, np.array(codes, np.int32)))[order]
        self.drawn = np.concatenate((self.drawn, np.array(drawn, np.bool_)))[order]

    def _follow(self, connection: Connection, known: Mapping[int, SpecState], states: Mapping[int, SpecState]) -> None:
        """Read again what has changed between two states."""
        changed: set[int] = set()
        removed = False
        for id_, state in states.items():
            since = known[id_].stamp if id_ in known else -1
            removed |= state.removed > since >= 0
            if state.stamp > since:
                of_spec = fingerprints.c.spec_id == id_, fingerprints.c.stamp > since
                changed.update(connection.scalars(select(fingerprints.c.model_id).where(*of_spec)))
        new = np.array(sorted(changed), np.int64)
        kept = ~np.isin(self.ids, new)
        if removed:
            kept &= np.isin(self.ids, np.fromiter(connection.scalars(select(models.c.id)), np.int64))
        self.ids, self.codes, self.drawn = self.ids[kept], self.codes[kept], self.drawn[kept]
        ids, topologies, drawn = self._read(connection, new.tolist())
        self._take(ids, topologies, drawn)
        fresh = self.codes[np.searchsorted(self.ids, np.array(ids, np.int64))]
        for code in set(fresh.tolist()):
            if self._topologies.get(code, ()) is None:
                del self._topologies[code]  # now there is a model to read them from
        for (code, buckets), block in list(self._signs.items()):
            still = np.isin(block.ids, self.ids) & ~np.isin(block.ids, new)
            of_code = [model for model, its in zip(ids, fresh.tolist(), strict=True) if its == code]
            if still.all() and not of_code:
                continue
            read = self._read_signs(connection, code, buckets, of_code)
            every = np.concatenate((block.ids[still], read.ids))
            order = np.argsort(every)
            self._signs[code, buckets] = SignBlock(
                every[order],
                np.concatenate((block.bits[still], read.bits))[order],
                np.concatenate((block.figures[still], read.figures))[order],
            )
        self._shrink()

    @property
    def order(self) -> NDArray[np.intp]:
        """Places (m,) of the models with sketches, by topology and then by id; sorted once."""
        if self._order is None:
            drawn = np.flatnonzero(self.drawn)
            self._order = drawn[np.argsort(self.codes[drawn], kind="stable")]
        return self._order

    def topologies(self, connection: Connection) -> Mapping[int, Topology]:
        """Each topology of which a model has sketches, by code, as one of its models has it; read once."""
        if self._current is not None:
            return self._current
        present = dict(zip(self.codes[self.drawn].tolist(), self.ids[self.drawn].tolist(), strict=True))
        missing = {code: model for code, model in present.items() if code not in self._topologies}
        if missing:
            layers = read_layer_shapes(connection, list(missing.values()))
            widths = select(sketches.c.model_id, sketches.c.buckets)
            mine = among(sketches.c.model_id, list(missing.values()), connection)
            buckets = {row.model_id: row.buckets for row in connection.execute(widths.where(mine))}
            for code, model in missing.items():
                its = layers.get(model)
                self._topologies[code] = None if its is None else Topology(its.shapes, buckets[model])
        self._current = {code: found for code in present if (found := self._topologies[code]) is not None}
        if missing or self._current.keys() != self._indexed:
            self._index = None
        return self._current

    def index(self, connection: Connection, smallest: int) -> ShapeIndex:
        """The index of the `topologies` by the shapes of layers of at least so many elements; made once."""
        found = self.topologies(connection)
        if self._index is None:
            self._index = ShapeIndex({code: each.shapes for code, each in found.items()}, smallest)
            self._indexed = frozenset(found)
        return self._index

    def signs(self, connection: Connection, code: int, buckets: int) -> SignBlock:
        """Signs of the sketches of all models of a topology, folded onto so many buckets; reads them if not held."""
        key = code, buckets
        if key not in self._signs:
            wanted = self.ids[(self.codes == code) & self.drawn]
            self._signs[key] = self._read_signs(connection, code, buckets, wanted.tolist())
        self._signs.move_to_end(key)
        found = self._signs[key]
        self._shrink()
        return found

    def _shrink(self) -> None:
        held = self.held
        while held > self.limit and len(self._signs) > 1:
            held -= self._signs.popitem(last=False)[1].bytes

    def _read_signs(self, connection: Connection, code: int, buckets: int, ids: Sequence[int]) -> SignBlock:
        topology = self._topologies.get(code)
        layers, own = (0, buckets) if topology is None else (len(topology.shapes), topology.buckets)
        found, rows = [np.empty(0, np.int64)], [np.empty((0, layers * buckets // 8), np.uint8)]
        for block in read_sketch_blocks(connection, ids, self.version, layers, own):
            values = block.values.astype(np.float32)
            if own > buckets:
                values = values.reshape(len(values), layers, own // buckets, buckets).sum(axis=2)
            found.append(block.ids)
            rows.append(np.packbits(values.reshape(len(values), -1) > 0, axis=1))
        every = np.concatenate(found)
        order = np.argsort(every)
        return SignBlock(every[order], np.concatenate(rows)[order], read_tail_figures(connection, every[order]))
