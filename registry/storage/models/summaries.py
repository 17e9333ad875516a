"""Model summaries, and the stored query model of a search."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Integer, any_, bindparam, func, literal_column, select

from registry.errors import UnknownModelError
from registry.storage.engine.compiled_statements import Compiled
from registry.storage.engine.dialects import among
from registry.storage.engine.schema import architectures, conjugacy, fingerprints, layers, metrics, models, names, specs
from registry.storage.models.filter_sql import conditions
from registry.storage.models.model_queries import resolve, short_hash
from registry.storage.models.packing import to_metric, unpacked
from registry.storage.models.records import Subject
from registry.types.models import ModelSummary
from registry.types.weights import HEADER_PREFIX, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Column, ColumnElement, Connection, RowMapping, ScalarSelect, Select

    from registry.types.filters import Filter

__all__ = ["find_content", "find_model", "find_subject", "read_summaries", "read_summary"]

_SAME = (
    "id", "content_hash", "topology", "parameters", "bytes", "layers", "matrix_rule",
    "task", "dataset", "licence", "source", "gflops", "precision", "format", "location", "entry", "unread", "nonfinite",
)  # fmt: skip
"""Of a summary, what is a column of ``models`` of its own name."""
_COLUMNS = (*(models.c[name] for name in _SAME), models.c.created)

_COUNTED = select(layers.c.model_id, func.count().label("approximate")).where(layers.c.method != "")
_APPROXIMATE = _COUNTED.group_by(layers.c.model_id).subquery()
_BULK = (
    select(
        *_COLUMNS,
        architectures.c.family,
        architectures.c.name,
        conjugacy.c.tail_class,
        conjugacy.c.training_class,
        _APPROXIMATE.c.approximate,
    )
    .select_from(models)
    .join(architectures)
    .outerjoin(conjugacy, conjugacy.c.model_id == models.c.id)
    .outerjoin(_APPROXIMATE, _APPROXIMATE.c.model_id == models.c.id)
)
_NAMES = select(names.c.model_id, names.c.name).order_by(names.c.id)
_METRICS = select(metrics).order_by(metrics.c.model_id, metrics.c.name, metrics.c.dataset, metrics.c.split)
# All of a few models by id, for Postgres: SQLite writes numbers into JSON with fewer digits than they have. Without
# joins it is planned in half the time, and each part costs a twentieth of a millisecond: two texts come as one array.
_PARTS = (
    "(SELECT ARRAY[family, name] FROM architectures WHERE id = models.architecture_id)",
    "(SELECT ARRAY[tail_class, training_class] FROM conjugacy WHERE model_id = models.id)",
    "(SELECT count(*) FROM layers WHERE model_id = models.id AND method <> '')",
    "ARRAY(SELECT name FROM names WHERE model_id = models.id ORDER BY id)",
    "ARRAY(SELECT json_build_array(name, value, dataset, split, higher_is_better, source) FROM metrics"
    " WHERE model_id = models.id ORDER BY name, dataset, split)",
)
_WHOLE = Compiled(
    select(*_COLUMNS, *(literal_column(part) for part in _PARTS)).where(
        models.c.id == any_(bindparam("ids", type_=ARRAY(Integer)))
    )
)
FEW = 1_000  # models: what an answer tells at most, nearly always; beyond, reading in bulk costs less


def read_summaries(
    connection: Connection, wanted: Filter | None = None, ids: Sequence[int] | None = None
) -> list[ModelSummary]:
    """Return the models that match a filter, among ``ids`` if given, by name.

    Three queries, however many; one for a few by id on Postgres, where each is a round trip.
    """
    if connection.dialect.name == "postgresql" and wanted is None and ids is not None and len(ids) <= FEW:
        found = [
            _summary(
                of_model,
                texts,
                classes or (),
                approximate,
                known,
                (Metric(name, float(value), *of) for name, value, *of in measured),
            )
            for *of_model, texts, classes, approximate, known, measured in _WHOLE.rows(connection, {"ids": list(ids)})
        ]
    else:
        found = _in_bulk(connection, wanted, ids)
    return sorted(found, key=lambda summary: summary.name)


def read_summary(connection: Connection, model_id: int) -> ModelSummary:
    """Return the model with that id.

    Raises
    ------
    UnknownModelError
        It was removed meanwhile.
    """
    found = read_summaries(connection, ids=[model_id])
    if not found:
        raise UnknownModelError("the model was removed meanwhile")
    return found[0]


def find_model(connection: Connection, name: str) -> ModelSummary:
    """Return the model with that name or ``sha256:PREFIX``. Raises as `model_queries.resolve`."""
    return read_summary(connection, resolve(connection, name))


def find_content(connection: Connection, content_hash: str) -> ModelSummary | None:
    """Return the model with exactly these weights, or None."""
    ids = connection.scalars(select(models.c.id).where(models.c.content_hash == content_hash)).all()
    return read_summary(connection, ids[0]) if ids else None


def _in_bulk(connection: Connection, wanted: Filter | None, ids: Sequence[int] | None) -> list[ModelSummary]:
    statement = _BULK if wanted is None else _BULK.where(*conditions(wanted, connection))
    if ids is not None:
        statement = statement.where(among(models.c.id, ids, connection))
    rows = connection.execute(statement).all()
    found = [row.id for row in rows] if ids is not None or wanted is not None else None
    named, measured = _grouped(connection, _NAMES, found), _grouped(connection, _METRICS, found)
    return [
        _summary(
            of_model,
            (family, architecture),
            (tail, training),
            approximate,
            (name["name"] for name in named[of_model[0]]),
            (to_metric(metric) for metric in measured[of_model[0]]),
        )
        for *of_model, family, architecture, tail, training, approximate in rows
    ]


def _grouped(connection: Connection, rows: Select[Any], ids: Sequence[int] | None) -> dict[int, list[RowMapping]]:
    if ids is not None:
        rows = rows.where(among(rows.selected_columns.model_id, ids, connection))
    grouped: dict[int, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(rows).mappings():
        grouped[row["model_id"]].append(row)
    return grouped


def _summary(
    of_model: Sequence[Any],
    texts: Sequence[str],
    classes: Sequence[str | None],
    approximate: int | None,
    known: Iterable[str],
    measured: Iterable[Metric],
) -> ModelSummary:
    """``of_model``: of `_COLUMNS`; ``texts``: family and architecture; ``classes``: of tail and training."""
    *same, created = of_model
    known = tuple(known)
    tail, training = classes or ("", "")
    content_hash = of_model[1]
    return ModelSummary(
        name=known[0] if known else short_hash(content_hash),
        names=known,
        created=created.isoformat(timespec="seconds"),
        family=texts[0],
        architecture=texts[1],
        tail_class=tail or "",
        training_class=training or "",
        approximate=approximate or 0,
        metrics=tuple(measured),
        weights_read=not content_hash.startswith(HEADER_PREFIX),
        **dict(zip(_SAME, same, strict=True)),
    )


def _of_named(column: Column[Any], *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    table = column.table
    return select(column).where(table.c.model_id == names.c.model_id, *conditions).scalar_subquery()


_SPEC = select(specs.c.id).where(specs.c.hash == bindparam("spec")).scalar_subquery()
_SUBJECT = Compiled(
    select(
        names.c.model_id,
        _of_named(conjugacy.c.training_class),
        _of_named(fingerprints.c.vector, fingerprints.c.spec_id == _SPEC),
    ).where(names.c.name == bindparam("name"))
)


def find_subject(connection: Connection, name: str, spec_hash: str) -> Subject | None:
    """Return the query model with exactly that name and its vector of a spec, or None."""
    row = _SUBJECT.first(connection, {"name": name, "spec": spec_hash})
    if row is None:
        return None
    model_id, training, vector = row
    return Subject(model_id, training or "", None if vector is None else unpacked(vector))
