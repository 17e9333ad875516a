"""Models in one line each, as every answer tells them, and the one that a question is about."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Integer, any_, bindparam, func, literal_column, select

from registry.storage.filters import among, filtered
from registry.storage.packing import to_metric, unpacked
from registry.storage.queries import short_hash
from registry.storage.records import Subject
from registry.storage.schema import architectures, conjugacy, fingerprints, layers, metrics, models, names, specs
from registry.types.models import ModelSummary
from registry.types.weights import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, ColumnElement, Connection, RowMapping, ScalarSelect, Select

    from registry.types.filters import Filter

__all__ = ["subject", "summaries"]

_COUNTED = select(layers.c.model_id, func.count().label("approximate")).where(layers.c.method != "")
_APPROXIMATE = _COUNTED.group_by(layers.c.model_id).subquery()
_BULK = (
    select(
        models,
        architectures.c.family,
        architectures.c.name.label("architecture"),
        conjugacy.c.tail_class,
        conjugacy.c.training_class,
        _APPROXIMATE.c.approximate,
    )
    .select_from(models)
    .outerjoin(conjugacy, conjugacy.c.model_id == models.c.id)
    .outerjoin(_APPROXIMATE, _APPROXIMATE.c.model_id == models.c.id)
)
_NAMES = select(names.c.model_id, names.c.name).order_by(names.c.id)
_METRICS = select(metrics).order_by(metrics.c.model_id, metrics.c.name, metrics.c.dataset, metrics.c.split)
# All of a few models by id, for Postgres: SQLite writes numbers into JSON with fewer digits than they have. Without
# joins it is planned in half the time, and made once, since that takes SQLAlchemy as long as the database to answer.
_PARTS = {
    "family": "(SELECT family FROM architectures WHERE id = models.architecture_id)",
    "architecture": "(SELECT name FROM architectures WHERE id = models.architecture_id)",
    "tail_class": "(SELECT tail_class FROM conjugacy WHERE model_id = models.id)",
    "training_class": "(SELECT training_class FROM conjugacy WHERE model_id = models.id)",
    "approximate": "(SELECT count(*) FROM layers WHERE model_id = models.id AND method <> '')",
    "names": "ARRAY(SELECT name FROM names WHERE model_id = models.id ORDER BY id)",
    "metrics": (
        "ARRAY(SELECT json_build_array(name, value, dataset, split, higher_is_better, source) FROM metrics"
        " WHERE model_id = models.id ORDER BY name, dataset, split)"
    ),
}
_WHOLE = select(models, *(literal_column(part).label(name) for name, part in _PARTS.items())).where(
    models.c.id == any_(bindparam("ids", type_=ARRAY(Integer)))
)
FEW = 1_000  # models: what an answer tells at most, nearly always; beyond, reading in bulk costs less


def summaries(
    connection: Connection, wanted: Filter | None = None, ids: Sequence[int] | None = None
) -> list[ModelSummary]:
    """Return the models that a filter lets through, of ``ids`` if given, by name.

    Three queries, however many; one for a few by id on Postgres, where each is a round trip.
    """
    if connection.dialect.name == "postgresql" and wanted is None and ids is not None and len(ids) <= FEW:
        found = [
            _summary(row, tuple(row["names"]), tuple(Metric(*each) for each in row["metrics"]))
            for row in connection.execute(_WHOLE, {"ids": list(ids)}).mappings()
        ]
    else:
        found = _in_bulk(connection, wanted, ids)
    return sorted(found, key=lambda summary: summary.name)


def _in_bulk(connection: Connection, wanted: Filter | None, ids: Sequence[int] | None) -> list[ModelSummary]:
    statement = filtered(_BULK, wanted)
    if ids is not None:
        statement = statement.where(among(models.c.id, ids, connection))
    rows = connection.execute(statement).mappings().all()
    found = [row["id"] for row in rows] if ids is not None or wanted is not None else None
    named, measured = _grouped(connection, _NAMES, found), _grouped(connection, _METRICS, found)
    return [
        _summary(
            row,
            tuple(name["name"] for name in named[row["id"]]),
            tuple(to_metric(metric) for metric in measured[row["id"]]),
        )
        for row in rows
    ]


def _grouped(connection: Connection, rows: Select[Any], ids: Sequence[int] | None) -> dict[int, list[RowMapping]]:
    if ids is not None:
        rows = rows.where(among(rows.selected_columns.model_id, ids, connection))
    grouped: dict[int, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(rows).mappings():
        grouped[row["model_id"]].append(row)
    return grouped


def _summary(row: RowMapping, known: tuple[str, ...], measured: tuple[Metric, ...]) -> ModelSummary:
    same = ("id", "content_hash", "topology", "parameters", "bytes", "layers", "matrix_rule", "family", "architecture")
    card = ("task", "dataset", "licence", "source", "gflops")
    return ModelSummary(
        name=known[0] if known else short_hash(row["content_hash"]),
        names=known,
        created=row["created"].isoformat(timespec="seconds"),
        tail_class=row["tail_class"] or "",
        training_class=row["training_class"] or "",
        approximate=row["approximate"] or 0,
        metrics=measured,
        **{key: row[key] for key in (*same, *card)},
    )


def _of_named(column: Column[Any], *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    table = column.table
    return select(column).where(table.c.model_id == names.c.model_id, *conditions).scalar_subquery()


_SPEC = select(specs.c.id).where(specs.c.hash == bindparam("spec")).scalar_subquery()
_SUBJECT = select(
    names.c.model_id,
    _of_named(conjugacy.c.tail_class).label("tail_class"),
    _of_named(conjugacy.c.training_class).label("training_class"),
    _of_named(fingerprints.c.vector, fingerprints.c.spec_id == _SPEC).label("vector"),
).where(names.c.name == bindparam("name"))


def subject(connection: Connection, name: str, spec_hash: str) -> Subject | None:
    """Return the model of exactly that name as a question by a spec is about it, None where there is none."""
    row = connection.execute(_SUBJECT, {"name": name, "spec": spec_hash}).first()
    if row is None:
        return None
    kind = (row.tail_class or "", row.training_class or "")
    return Subject(row.model_id, kind, None if row.vector is None else unpacked(row.vector))
