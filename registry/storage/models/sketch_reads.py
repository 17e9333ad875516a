"""Bulk reads of sketches and of the shapes of layers, for questions about many models."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import ARRAY, Integer, Text, any_, bindparam, func, select

from registry.storage.engine import schema
from registry.storage.engine.compiled_statements import Compiled
from registry.storage.models.packing import FLOAT16, sketches_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Select

    from registry.types.weight_relations import Sketches

__all__ = [
    "LayerShapes",
    "SketchBlock",
    "read_drawn",
    "read_layer_shapes",
    "read_packed",
    "read_sketch_blocks",
    "read_sketches_of",
    "read_tail_figures",
    "unpacked_block",
]

sketches, layers, conjugacy = schema.sketches, schema.layers, schema.conjugacy
BLOCK = 1_000  # models: some megabytes


class LayerShapes(NamedTuple):
    """Names (n,) and shapes, int64 (n, 3) of outputs, inputs and kernel positions, of a model's layers by depth."""

    names: tuple[str, ...]
    shapes: NDArray[np.int64]


class SketchBlock(NamedTuple):
    """Sketches of models whose layers have the same shapes: ids (n,) and float16 values (n, layers, buckets)."""

    ids: NDArray[np.int64]
    values: NDArray[np.float16]


class _ById:
    """A statement for a list of ids, which is one parameter, so that it is compiled once."""

    def __init__(self, statement: Select[Any]) -> None:
        column = statement.selected_columns[0]
        each = func.json_each(bindparam("ids", type_=Text)).table_valued("value")
        self._array = Compiled(statement.where(column == any_(bindparam("ids", type_=ARRAY(Integer)))))
        self._json = Compiled(statement.where(column.in_(select(each.c.value))))

    def rows(self, connection: Connection, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """The rows of the models with those ids, in any order."""
        if connection.dialect.name == "postgresql":
            return self._array.rows(connection, {"ids": list(ids)})
        return self._json.rows(connection, {"ids": json.dumps([int(model) for model in ids])})


_SHAPES = _ById(select(layers.c.model_id, layers.c.position, layers.c.name, layers.c.p, layers.c.q, layers.c.kernel))
_SKETCHES = _ById(select(sketches.c.model_id, sketches.c.version, sketches.c.buckets, sketches.c.data))
_FIGURES = _ById(select(conjugacy.c.model_id, conjugacy.c.z))


@lru_cache(maxsize=4096)
def _positions(kernel: str) -> int:
    return math.prod(json.loads(kernel))


def read_layer_shapes(connection: Connection, ids: Sequence[int]) -> dict[int, LayerShapes]:
    """Return names and shapes of the layers of ``ids``, by id; models without layers are missing."""
    found: dict[int, list[tuple[int, str, int, int, int]]] = {}
    for model, at, name, p, q, kernel in _SHAPES.rows(connection, ids):
        k = _positions(kernel)
        found.setdefault(model, []).append((at, name, p, q // k, k))
    told = {}
    for model, rows in found.items():
        rows.sort()
        told[model] = LayerShapes(
            tuple(row[1] for row in rows), np.array([row[2:] for row in rows], np.int64).reshape(-1, 3)
        )
    return told


def read_sketch_blocks(
    connection: Connection, ids: Sequence[int], version: int, layers: int, buckets: int
) -> Iterator[SketchBlock]:
    """Yield the sketches of those of ``ids`` that have some of that version, of so many layers and buckets."""
    for start in range(0, len(ids), BLOCK):
        rows = [
            (model, data)
            for model, of_version, width, data in _SKETCHES.rows(connection, ids[start : start + BLOCK])
            if (of_version, width) == (version, buckets) and len(data) == layers * buckets * FLOAT16.itemsize
        ]
        if rows:
            models, blobs = zip(*rows, strict=True)
            values = np.frombuffer(b"".join(blobs), FLOAT16).reshape(len(rows), layers, buckets)
            yield SketchBlock(np.array(models, np.int64), values)


def read_packed(connection: Connection, ids: Sequence[int], version: int) -> dict[int, tuple[int, bytes]]:
    """Return buckets and stored float16 numbers of the sketches of that version, by id."""
    rows = _SKETCHES.rows(connection, ids) if ids else []
    return {model: (buckets, data) for model, of_version, buckets, data in rows if of_version == version}


def unpacked_block(
    packed: Mapping[int, tuple[int, bytes]], ids: Sequence[int], layers: int, buckets: int
) -> SketchBlock:
    """The sketches of those of ``ids`` that have some of so many layers and buckets."""
    size = layers * buckets * FLOAT16.itemsize
    fitting = [
        model for model in ids if model in packed and packed[model][0] == buckets and len(packed[model][1]) == size
    ]
    values = np.frombuffer(b"".join(packed[model][1] for model in fitting), FLOAT16)
    return SketchBlock(np.array(fitting, np.int64), values.reshape(len(fitting), layers, buckets))


def read_sketches_of(
    connection: Connection, ids: Sequence[int], version: int, layers: int, buckets: int
) -> SketchBlock:
    """As `read_sketch_blocks`, all in one, ascending."""
    blocks = list(read_sketch_blocks(connection, ids, version, layers, buckets))
    if not blocks:
        return SketchBlock(np.empty(0, np.int64), np.empty((0, layers, buckets), np.float16))
    every = np.concatenate([block.ids for block in blocks])
    order = np.argsort(every)
    return SketchBlock(every[order], np.concatenate([block.values for block in blocks])[order])


def read_drawn(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[LayerShapes, Sketches]]:
    """Return layers and sketches of those of ``ids`` that have both, by id.

    Raises
    ------
    SpectrumError
        The sketches are not those of the layers, or have a number that is not finite.
    """
    shapes = read_layer_shapes(connection, ids)
    return {
        model: (shapes[model], sketches_of(version, buckets, data, len(shapes[model].names)))
        for model, version, buckets, data in _SKETCHES.rows(connection, ids)
        if model in shapes
    }


def read_tail_figures(connection: Connection, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the conjugacy figure z (n,) of each of ``ids`` (n,), NaN where it is not stored.

    It follows from the spectra alone, so that networks with units in another order have the same.
    """
    found = dict(_FIGURES.rows(connection, ids.tolist()))
    return np.array([found.get(model, np.nan) for model in ids.tolist()], np.float64)
