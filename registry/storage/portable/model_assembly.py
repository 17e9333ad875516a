"""Assembly of models from rows of a registry or of an untrusted file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sqlalchemy import LargeBinary

from registry.errors import RegistryError, SpectrumError, StorageError, UnsafeError
from registry.spelling import counted
from registry.storage.engine import schema
from registry.storage.models.model_queries import short_hash
from registry.storage.models.model_validation import check_spec
from registry.storage.models.packing import (
    notes_of,
    sketches_of,
    spec_of,
    to_conjugacy,
    to_metric,
    unpacked,
    weight_figures_of,
)
from registry.storage.models.records import NewModel
from registry.storage.models.stored_cards import MODEL_FIELDS
from registry.storage.portable.row_validation import extents, rows_of, text_of
from registry.types.outcomes import Ingested
from registry.types.spectra import METHODS, Fingerprint, FingerprintSpec, Spectrum
from registry.types.weights import LayerMatrix, ModelCard, SkippedTensor, WeightsPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Column, Table

    from registry.types.weight_figures import WeightFigures
    from registry.types.weight_relations import Sketches

__all__ = ["MAX_BLOB", "Portable", "Rows", "blobs_of", "read_portables", "read_specs"]

BATCH = 256  # models at most: enough to make statements cheap
PORTION = 32 * 2**20  # bytes of spectra and rows at a time, roughly: what a batch may weigh in memory
ROW_WEIGHT = 300  # bytes of a layer or a skipped tensor
MAX_ROWS = 1_000_000  # of one table of one model; ingest takes no more tensors
MAX_BLOB = 256 * 2**20  # bytes of spectra of one model: 67 million eigenvalues
MAX_TEXT = 64 * 2**20  # characters of one table in a batch
MAX_SPECS = 10_000

Row = dict[str, Any]

CHILDREN = (
    schema.names,
    schema.tags,
    schema.metrics,
    schema.skipped,
    schema.layers,
    schema.fingerprints,
    schema.conjugacy,
)
_BLOBS = (schema.sketches, schema.weight_figures)
"""Tables of one blob a model, besides that of spectra."""


@dataclass(frozen=True, slots=True)
class Portable:
    """A model without its weights; ``names``: all names with their times, the oldest first.

    ``new.name`` is what it is shown as: its oldest name, or the beginning of its hash.
    """

    new: NewModel
    names: tuple[tuple[str, datetime], ...]


class Rows(Protocol):
    """Source of rows: unconverted cells in the order of the table's columns."""

    def rows(self, table: Table, ids: Sequence[int], key: str) -> Iterable[Sequence[Sequence[Any]]]:
        """Blocks of rows whose ``key`` is one of the ascending ``ids``, and perhaps others between; by primary key."""

    def counts(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Number of rows of the table by model, of those that have any."""

    def sizes(self, table: Table, ids: Sequence[int]) -> dict[int, int]:
        """Bytes of the blobs of a table by model, of those that have any, without reading them."""


def read_portables(
    source: Rows, specs: dict[int, FingerprintSpec | str], ids: Sequence[int], *, spectra: bool
) -> Iterator[list[Portable | Ingested]]:
    """Yield the models of ascending ids in portions; a damaged model is a failed item.

    Memory is that of a portion, however many there are; O(n) in time.
    """
    for start in range(0, len(ids), BATCH):
        for portion in _portions(source, ids[start : start + BATCH], spectra=spectra):
            try:
                yield list(_assembled(source, specs, portion, spectra=spectra))
            except RegistryError:
                # One of them is not sound: each alone, then.
                yield [_alone(source, specs, id_, spectra=spectra) for id_ in portion]


def _alone(source: Rows, specs: dict[int, FingerprintSpec | str], id_: int, *, spectra: bool) -> Portable | Ingested:
    try:
        [found] = _assembled(source, specs, [id_], spectra=spectra)
    except RegistryError as error:
        return Ingested(f"model {id_}", f"model {id_}", "failed", 0.0, error.message, error.remedy or "")
    return found


def _portions(source: Rows, ids: Sequence[int], *, spectra: bool) -> Iterator[list[int]]:
    """Split ids into parts of limited size; a very large model is a part of its own."""
    weights = dict.fromkeys(ids, 0)
    try:
        for table in CHILDREN:
            for id_, count in source.counts(table, ids).items():
                weights[id_] = weights.get(id_, 0) + ROW_WEIGHT * count
        for table in _blobs(spectra=spectra):
            for id_, size in source.sizes(table, ids).items():
                weights[id_] = weights.get(id_, 0) + size
    except StorageError:
        weights = dict.fromkeys(ids, PORTION)  # damaged there: each alone
    portion: list[int] = []
    total = 0
    for id_ in ids:
        if portion and total + weights[id_] > PORTION:
            yield portion
            portion, total = [], 0
        portion.append(id_)
        total += weights[id_]
    if portion:
        yield portion


def _assembled(
    source: Rows, specs: dict[int, FingerprintSpec | str], ids: Sequence[int], *, spectra: bool
) -> Iterator[Portable]:
    if len(ids) == 1:
        _check_size(source, ids, spectra=spectra)
    models = _read(source, schema.models, ids, "id")
    wanted = sorted({row["architecture_id"] for row in models})
    designs = {row["id"]: row for row in _read(source, schema.architectures, wanted, "id")}
    children = {table.name: _grouped(source, table, ids) for table in CHILDREN}
    children["spectra"] = {}
    children |= {table.name: _grouped(source, table, ids) for table in _blobs(spectra=spectra)}
    if [row["id"] for row in models] != list(ids):
        raise StorageError("its row cannot be read, or there are two of it")
    for row in models:
        if row["architecture_id"] not in designs:
            raise StorageError("its architecture is missing")
        of_model = {name: grouped.get(row["id"], []) for name, grouped in children.items()}
        yield _model(row, designs[row["architecture_id"]], of_model, specs)


def blobs_of(table: Table) -> list[Column[Any]]:
    """The columns of a table that hold blobs."""
    return [column for column in table.columns if isinstance(column.type, LargeBinary)]


def _blobs(*, spectra: bool) -> tuple[Table, ...]:
    return (schema.spectra, *_BLOBS) if spectra else _BLOBS


def _check_size(source: Rows, ids: Sequence[int], *, spectra: bool) -> None:
    for table in CHILDREN:
        if any(count > MAX_ROWS for count in source.counts(table, ids).values()):
            raise UnsafeError(f"it has more than {MAX_ROWS:,} rows of {table.name}")
    for table in _blobs(spectra=spectra):
        if any(size > MAX_BLOB for size in source.sizes(table, ids).values()):
            raise UnsafeError(f"its {table.name} are larger than {MAX_BLOB // 2**20} MiB")


def _read(source: Rows, table: Table, ids: Sequence[int], key: str) -> list[Row]:
    found: list[Row] = []
    text = 0
    for block in source.rows(table, ids, key):
        rows = rows_of(table, block)
        text += text_of(rows)
        if text > MAX_TEXT:
            raise UnsafeError(f"it has more than {MAX_TEXT // 2**20} MiB of text in {table.name}")
        found += rows
    return found


def _grouped(source: Rows, table: Table, ids: Sequence[int]) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    for row in _read(source, table, ids, "model_id"):
        grouped.setdefault(row["model_id"], []).append(row)
    return grouped


def _model(row: Row, design: Row, children: dict[str, list[Row]], specs: dict[int, FingerprintSpec | str]) -> Portable:
    layers = _layers(children["layers"], row["layers"])
    figures = children["conjugacy"]
    names = tuple((name["name"], name["created"]) for name in children["names"])
    spectra = _spectra(layers, children["layers"], children["spectra"])
    new = NewModel(
        name=names[0][0] if names else short_hash(row["content_hash"]),
        plan=WeightsPlan(
            rule=row["matrix_rule"],
            layers=layers,
            skipped=tuple(
                SkippedTensor(tensor["name"], tensor["dtype"], extents(tensor["shape"]), tensor["reason"])
                for tensor in children["skipped"]
            ),
            content_hash=row["content_hash"],
            topology=row["topology"],
            parameters=row["parameters"],
            bytes=row["bytes"],
            precision=row["precision"],
            unread=row["unread"],
            nonfinite=row["nonfinite"],
            notes=notes_of(row["notes"]),
            header=row["header_hash"],
        ),
        card=ModelCard(
            family=design["family"],
            architecture=design["name"],
            metrics=tuple(to_metric(metric) for metric in children["metrics"]),
            tags=tuple((tag["key"], tag["value"]) for tag in children["tags"]),
            **{field: row[field] for field in MODEL_FIELDS},
        ),
        spectra=spectra,
        means=() if spectra else tuple(layer["mean"] for layer in children["layers"]),
        methods=() if spectra else tuple(layer["method"] for layer in children["layers"]),
        conjugacy=to_conjugacy(figures[0]) if figures else None,
        conjugacy_rule=figures[0]["rule"] if figures else 0,
        fingerprints=tuple(_fingerprint(vector, specs) for vector in children["fingerprints"]),
        sketches=_sketches(children["sketches"], len(layers)),
        weight_figures=_weight_figures(children["weight_figures"], len(layers)),
        tool_version=row["tool_version"],
        created=row["created"],
        format=row["format"],
        location=row["location"],
        entry=row["entry"],
    )
    return Portable(new, names)


def _layers(rows: list[Row], count: int) -> tuple[LayerMatrix, ...]:
    if len(rows) != count or not rows:
        raise StorageError(f"it declares {counted(count, 'layer')} and has {len(rows)}")
    found, offset = [], 0
    for position, row in enumerate(rows):
        shape = extents(row["shape"])
        if row["position"] != position or len(shape) < 2 or min(shape) < 1:
            raise StorageError(f"layer {position} is missing, or has the shape {shape}")
        layer = LayerMatrix(
            position,
            row["name"],
            row["tensor"],
            shape,
            row["kind"],
            row["axis"],
            row["start"],
            row["stop"],
            row["period"],
        )
        said = (row["p"], row["q"], extents(row["kernel"]), row["offset"], row["count"])
        order = min(layer.p, layer.q)
        if said != (layer.p, layer.q, layer.kernel, offset, order) or row["method"] not in METHODS:
            raise StorageError(f"layer {position} of shape {shape} contradicts itself")
        found.append(layer)
        offset += order
    return tuple(found)


def _spectra(layers: tuple[LayerMatrix, ...], rows: list[Row], blobs: list[Row]) -> tuple[Spectrum, ...]:
    if not blobs:
        return ()
    data = blobs[0]["data"]
    if len(data) != 4 * (rows[-1]["offset"] + rows[-1]["count"]):
        raise SpectrumError("its spectra do not have the length that its layers declare")
    values = unpacked(data)
    return tuple(
        Spectrum(layer, row["mean"], values[row["offset"] : row["offset"] + row["count"]], row["method"])
        for layer, row in zip(layers, rows, strict=True)
    )


def _sketches(rows: list[Row], layers: int) -> Sketches | None:
    if not rows:
        return None
    [row] = rows
    return sketches_of(row["version"], row["buckets"], row["data"], layers)


def _weight_figures(rows: list[Row], layers: int) -> WeightFigures | None:
    if not rows:
        return None
    [row] = rows
    return weight_figures_of(row["version"], row["layers"], row["statistics"], layers)


def _fingerprint(row: Row, specs: dict[int, FingerprintSpec | str]) -> Fingerprint:
    spec = specs.get(row["spec_id"], "it is missing")
    if isinstance(spec, str):
        raise SpectrumError(f"the spec of one of its vectors cannot be used: {spec}")
    if len(row["vector"]) % 4:
        raise SpectrumError(f"its {spec.label} vector has {counted(len(row['vector']), 'byte')}")
    return Fingerprint(spec, np.asarray(unpacked(row["vector"])))


def read_specs(cells: Iterable[Sequence[Any]]) -> dict[int, FingerprintSpec | str]:
    """Return specs by id, or the reason why a row is not valid; hashes are computed again."""
    found: dict[int, FingerprintSpec | str] = {}
    for number, each in enumerate(cells):
        if number == MAX_SPECS:
            raise UnsafeError(f"there are more than {MAX_SPECS:,} fingerprint specs")
        try:
            [row] = rows_of(schema.specs, [each])
        except StorageError:
            continue  # whoever refers to it finds it missing
        try:
            found[row["id"]] = check_spec(spec_of(row["definition"]), row["hash"])
        except (RegistryError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            found[row["id"]] = error.message if isinstance(error, RegistryError) else "its definition cannot be read"
    return found
