"""The catalogue: a SQLite file of architectures and of the weights published for them, read a few rows at a time.

It is written once, with a release, and only read afterwards: it is opened as immutable, so that any number of processes
may read it wherever it is installed.

The table ``layouts`` holds state dicts: names and shapes as compressed text, some with another layout as the
dictionary, and which of the ``vectors``, all in one row, is their fingerprint ``shapes``. The table ``shapes`` is the
inverted index: of each shape, the layouts that have it and how often. ``architectures``, ``costs``, ``weights`` and
``metrics`` are what libraries and published tables state; ``sources`` are these tables.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

import numpy as np

from registry.architectures.layout_text import packed, shape_text, tensors_of, text_of, unpacked
from registry.errors import StorageError
from registry.types import Architecture, Layout, PublishedWeights, WeightsMetric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from registry.types import ArchitectureTensor

__all__ = ["FORMAT", "Catalogue", "Cost", "Posting", "write_catalogue"]

FORMAT = 3
"""Version of the tables. A change of them, or of what they mean, takes a new number."""

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE);
CREATE TABLE layouts (
    id INTEGER PRIMARY KEY, tensors INTEGER NOT NULL, similar INTEGER, data BLOB NOT NULL, vector INTEGER
);
CREATE TABLE vectors (count INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE shapes (shape TEXT PRIMARY KEY, postings BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE architectures (
    id INTEGER PRIMARY KEY, library TEXT NOT NULL, name TEXT NOT NULL, layout INTEGER NOT NULL, code TEXT NOT NULL,
    imports TEXT NOT NULL, family TEXT NOT NULL, task TEXT NOT NULL, classes INTEGER, channels INTEGER,
    parameters INTEGER NOT NULL, image_size INTEGER, gmacs REAL, UNIQUE (name, library)
);
CREATE INDEX architectures_layout ON architectures (layout);
CREATE TABLE costs (
    architecture INTEGER NOT NULL, image_size INTEGER NOT NULL, gmacs REAL NOT NULL, source INTEGER NOT NULL,
    PRIMARY KEY (architecture, image_size)
) WITHOUT ROWID;
CREATE TABLE weights (
    id INTEGER PRIMARY KEY, architecture INTEGER NOT NULL, tag TEXT NOT NULL, reference TEXT NOT NULL,
    dataset TEXT NOT NULL, licence TEXT NOT NULL, licence_source INTEGER NOT NULL, classes INTEGER, bytes INTEGER,
    sha256 TEXT NOT NULL, url TEXT NOT NULL
);
CREATE INDEX weights_architecture ON weights (architecture);
CREATE INDEX weights_sha256 ON weights (sha256) WHERE sha256 <> '';
CREATE TABLE metrics (
    weights INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, dataset TEXT NOT NULL,
    split TEXT NOT NULL, image_size INTEGER, value REAL NOT NULL, source INTEGER NOT NULL,
    PRIMARY KEY (weights, position)
) WITHOUT ROWID;
CREATE VIEW stated_costs AS
    SELECT architecture, image_size, gmacs, sources.source FROM costs JOIN sources ON sources.id = costs.source;
CREATE VIEW stated_weights AS
    SELECT weights.id, architecture, tag, reference, dataset, licence, sources.source, classes, bytes, sha256, url
    FROM weights JOIN sources ON sources.id = licence_source;
CREATE VIEW stated_metrics AS
    SELECT weights, position, name, dataset, split, image_size, value, sources.source
    FROM metrics JOIN sources ON sources.id = metrics.source;
"""

_KEPT_LAYOUTS = 256  # of some 300 tensors each
_FEWEST_DIGITS = 8  # of a hash that the name of a published file holds


class Cost(NamedTuple):
    """Multiply-adds of one forward pass of an architecture at an image size, in units of 1e9, and who states them."""

    architecture: int
    image_size: int
    gmacs: float
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Posting:
    """The layouts that have a shape: ids, int64 of shape (n,), and how many tensors of each have it, int64 (n,)."""

    layouts: NDArray[np.int64]
    counts: NDArray[np.int64]


class Catalogue:
    """An opened catalogue. Each method reads the rows that it needs; none reads the file as a whole.

    Raises
    ------
    StorageError
        The file is missing, is no catalogue, is damaged, or is of another format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._guarded():
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
        try:
            with self._guarded():
                self._connection.execute("PRAGMA trusted_schema=OFF")
                self.facts: Mapping[str, Any] = {
                    name: json.loads(value) for name, value in self._connection.execute("SELECT * FROM facts")
                }
        except StorageError:
            self._connection.close()
            raise
        if self.facts.get("format") != FORMAT:
            self.close()
            raise StorageError(
                f"{path} is a catalogue of format {self.facts.get('format')}, and this version reads {FORMAT}",
                "install the package again",
            )
        self._layout = cache(self._read_layout)
        self._tensors = lru_cache(_KEPT_LAYOUTS)(self._read_tensors)
        self._plain_sizes: NDArray[np.int64] | None = None

    def close(self) -> None:
        """Close the file. Closing twice has no effect."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StorageError(
                f"the catalogue at {self._path} is missing or damaged: {error}", "install the package again"
            ) from error

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._guarded():
            return self._connection.execute(statement, values).fetchall()

    def architectures(self) -> tuple[Architecture, ...]:
        """All architectures, by id: some thousands of rows, a few milliseconds."""
        return tuple(Architecture(*row) for row in self._rows("SELECT * FROM architectures ORDER BY id"))

    def of_layouts(self, layouts: Iterable[int]) -> tuple[Architecture, ...]:
        """The architectures with any of these layouts, by id."""
        asked = json.dumps([int(layout) for layout in layouts])
        statement = "SELECT * FROM architectures WHERE layout IN (SELECT value FROM json_each(?)) ORDER BY id"
        rows = self._rows(statement, [asked])
        return tuple(Architecture(*row) for row in rows)

    def named(self, name: str) -> tuple[Architecture, ...]:
        """The architectures of that name, or of that label (``timm/resnet50``)."""
        library, slash, rest = name.partition("/")
        found = self._rows("SELECT * FROM architectures WHERE name = ? ORDER BY id", [name])
        if slash:
            found += self._rows("SELECT * FROM architectures WHERE name = ? AND library = ?", [rest, library])
        return tuple(Architecture(*row) for row in found)

    def layout(self, layout: int) -> Layout:
        """A layout; the ones that were read are kept. Raises ``StorageError`` where there is none of that id."""
        return Layout(layout, self._tensors(layout))

    def _read_tensors(self, layout: int) -> tuple[ArchitectureTensor, ...]:
        with self._guarded():
            return tensors_of(self._layout(layout))

    def _read_layout(self, layout: int) -> str:
        rows = self._rows("SELECT similar, data FROM layouts WHERE id = ?", [layout])
        if not rows:
            raise StorageError(f"the catalogue at {self._path} has no layout {layout}", "install the package again")
        [(similar, data)] = rows
        like = "" if similar is None else self._layout(similar)
        with self._guarded():
            return unpacked(data, like)

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of all layouts and their numbers of distinct floating-point tensors: int64 arrays of shape (n,)."""
        found = np.array(self._rows("SELECT id, tensors FROM layouts ORDER BY id"), np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def plain_sizes(self) -> NDArray[np.int64]:
        """Of all layouts, as `sizes` has them: how many of the distinct floating-point tensors have no symbol.

        The whole index is read for it, some hundred kilobytes, and the array is kept.
        """
        if self._plain_sizes is None:
            ids, _ = self.sizes()
            postings = b"".join(data for (data,) in self._rows("SELECT postings FROM shapes"))
            with self._guarded():
                pairs = np.frombuffer(postings, "<u2").astype(np.int64).reshape(-1, 2)
            counts = np.bincount(pairs[:, 0], weights=pairs[:, 1], minlength=2**16)
            self._plain_sizes = counts[ids].astype(np.int64)
        return self._plain_sizes

    def postings(self, shapes: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], Posting]:
        """Of each of the shapes that any layout has: the layouts and counts, over distinct floating-point tensors.

        A symbolic shape is not among them. One lookup a shape.
        """
        found = {}
        for shape in set(shapes):
            for (data,) in self._rows("SELECT postings FROM shapes WHERE shape = ?", [shape_text(shape)]):
                with self._guarded():
                    pairs = np.frombuffer(data, "<u2").astype(np.int64).reshape(-1, 2)
                found[shape] = Posting(pairs[:, 0], pairs[:, 1])
        return found

    def vectors(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids of the layouts that have a fingerprint ``shapes``, (n,), and the vectors, float32 of shape (n, length).

        They are stored in half precision: a distance between two of them is right within 0.1 %.
        """
        rows = self._rows("SELECT id, vector FROM layouts WHERE vector IS NOT NULL ORDER BY id")
        [(count, data)] = self._rows("SELECT count, data FROM vectors")
        with self._guarded():
            vectors = np.frombuffer(data, "<f2").astype(np.float32).reshape(count, -1 if count else 0)
            ids, at = np.array(rows, np.int64).reshape(-1, 2).T
            return ids, vectors[at]

    def costs(self) -> tuple[Cost, ...]:
        """Multiply-adds by architecture and image size."""
        statement = "SELECT * FROM stated_costs ORDER BY architecture, image_size"
        return tuple(Cost(*row) for row in self._rows(statement))

    def weights(self, architectures: Iterable[int] | None = None) -> tuple[PublishedWeights, ...]:
        """The weights published for these architectures, for all if None, by id, with their metrics."""
        if architectures is None:
            return self._with_metrics(self._rows("SELECT * FROM stated_weights ORDER BY id"))
        statement = "SELECT * FROM stated_weights WHERE architecture IN (SELECT value FROM json_each(?)) ORDER BY id"
        return self._with_metrics(self._rows(statement, [json.dumps([int(one) for one in architectures])]))

    def weights_of_file(self, sha256: str) -> tuple[PublishedWeights, ...]:
        """The weights whose published file has that hash, given whole, as far as its digits are known."""
        starts = json.dumps([sha256[:length] for length in range(_FEWEST_DIGITS, len(sha256) + 1)])
        statement = (
            "SELECT * FROM stated_weights WHERE sha256 <> '' AND sha256 IN (SELECT value FROM json_each(?)) ORDER BY id"
        )
        return self._with_metrics(self._rows(statement, [starts]))

    def _with_metrics(self, rows: Sequence[tuple[Any, ...]]) -> tuple[PublishedWeights, ...]:
        asked = json.dumps([row[0] for row in rows])
        held: dict[int, list[WeightsMetric]] = {}
        for weights, *cells in self._rows(
            "SELECT weights, name, dataset, split, image_size, value, source FROM stated_metrics "
            "WHERE weights IN (SELECT value FROM json_each(?)) ORDER BY weights, position",
            [asked],
        ):
            held.setdefault(weights, []).append(WeightsMetric(*cells))
        return tuple(replace(PublishedWeights(*row), metrics=tuple(held.get(row[0], ()))) for row in rows)


def write_catalogue(
    path: Path,
    layouts: Sequence[Layout],
    architectures: Sequence[Architecture],
    weights: Sequence[PublishedWeights],
    costs: Sequence[Cost],
    *,
    vectors: Mapping[int, NDArray[np.floating]],
    similar: Mapping[int, int],
    facts: Mapping[str, Any],
) -> None:
    """Write a catalogue to ``path``, where nothing may be. The same values give the same bytes.

    Parameters
    ----------
    layouts, architectures, weights, costs
        Their ids are positive and refer to each other.
    vectors
        The fingerprint ``shapes`` of layouts, by id; none for those without layer matrices.
    similar
        For some layouts, another one whose text compresses theirs; that one may have no similar one itself.
    facts
        What the catalogue was made of, as JSON values.

    Raises
    ------
    ValueError
        An id is larger than the index can hold, or a similar layout has one itself.
    """
    texts = {layout.id: text_of(layout.tensors) for layout in layouts}
    if max(texts, default=0) >= 2**16 or any(other in similar for other in similar.values()):
        raise ValueError("a layout's id is above 65,535, or a similar layout has a similar one")
    held: dict[str, dict[int, int]] = {}
    rows = []
    distinct_vectors: dict[bytes, int] = {}
    stated_by = _numbered(
        [one.licence_source for one in weights],
        [m.source for one in weights for m in one.metrics],
        [cost.source for cost in costs],
    )
    for layout in layouts:
        distinct = [tensor for tensor in layout.tensors if tensor.floating and not tensor.tied]
        for tensor in distinct:
            if not tensor.symbols:
                counts = held.setdefault(shape_text(tensor.shape), {})
                counts[layout.id] = counts.get(layout.id, 0) + 1
        other = similar.get(layout.id)
        data = packed(texts[layout.id], texts[other] if other is not None else "")
        found = vectors.get(layout.id)
        stored = None if found is None else np.asarray(found, "<f2").tobytes()
        vector = None if stored is None else distinct_vectors.setdefault(stored, len(distinct_vectors))
        rows.append((layout.id, len(distinct), other, data, vector))
    postings = [
        (shape, np.array(sorted(counts.items()), np.int64).clip(0, 2**16 - 1).astype("<u2").tobytes())
        for shape, counts in sorted(held.items())
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SCHEMA)
        put = connection.executemany
        stated = {**facts, "format": FORMAT}
        put("INSERT INTO facts VALUES (?, ?)", sorted((name, json.dumps(value)) for name, value in stated.items()))
        put("INSERT INTO sources VALUES (?, ?)", [(id_, source) for source, id_ in stated_by.items()])
        put("INSERT INTO layouts VALUES (?, ?, ?, ?, ?)", rows)
        put("INSERT INTO vectors VALUES (?, ?)", [(len(distinct_vectors), b"".join(distinct_vectors))])
        put("INSERT INTO shapes VALUES (?, ?)", postings)
        put("INSERT INTO architectures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_cells, architectures))
        put("INSERT INTO costs VALUES (?, ?, ?, ?)", [(*cost[:-1], stated_by[cost.source]) for cost in costs])
        put(
            "INSERT INTO weights VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_cells(replace(one, licence_source=stated_by[one.licence_source])) for one in weights],  # type: ignore[arg-type]
        )
        put(
            "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (one.id, position, m.name, m.dataset, m.split, m.image_size, m.value, stated_by[m.source])
                for one in weights
                for position, m in enumerate(one.metrics)
            ],
        )
        connection.commit()
        connection.execute("VACUUM")


def _numbered(*columns: Iterable[str]) -> dict[str, int]:
    """Each of the texts once, numbered from one in the order of the alphabet."""
    return {text: number for number, text in enumerate(sorted(set().union(*columns)), 1)}


def _cells(value: Architecture | PublishedWeights) -> tuple[Any, ...]:
    """The fields in their order, which is that of the columns; metrics have a table of their own."""
    return tuple(getattr(value, field.name) for field in fields(value) if field.name != "metrics")
