"""Finding models and telling what is stored of them."""

from __future__ import annotations

import json
from collections import defaultdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from registry.errors import AmbiguousError, EmptyRegistryError, UnknownModelError
from registry.storage import schema
from registry.storage.checking import HASH_PREFIX
from registry.storage.filters import among, conditions, unknown
from registry.storage.packing import layer_of, to_conjugacy, to_metric
from registry.storage.records import CONJUGACY_RULE, DetailsRows, Holding
from registry.storage.schema import architectures, conjugacy, models, names
from registry.types.models import ModelSummary, Stats
from registry.types.weights import SkippedTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping, Select

    from registry.storage.url import Address
    from registry.types.filters import Filter
    from registry.types.weights import Metric

__all__ = ["candidate_ids", "details_rows", "resolve", "short_hash", "stats", "summaries", "unknown_count"]

SHORT = 12
NEAR = 2_000  # names compared at most when one is not found: difflib takes some 50 microseconds a pair


def short_hash(content_hash: str) -> str:
    """Return what a model without a name is shown as and found by: ``sha256:`` and 12 digits."""
    return HASH_PREFIX + content_hash[:SHORT]


def resolve(connection: Connection, reference: str, address: Address) -> int:
    """Return the id of the model that has the name, or whose content hash starts so: ``sha256:PREFIX``.

    Raises
    ------
    UnknownModelError
        None does; the remedy offers the nearest names.
    AmbiguousError
        The hash's beginning is that of several models.
    EmptyRegistryError
        Nothing is stored at all.
    """
    found = connection.scalar(select(names.c.model_id).where(names.c.name == reference))
    if found is not None:
        return int(found)
    prefix = reference.removeprefix(HASH_PREFIX).lower()
    if reference.startswith(HASH_PREFIX) and prefix:
        starts = models.c.content_hash.startswith(prefix, autoescape=True)
        ids = connection.scalars(select(models.c.id).where(starts).limit(2)).all()
        if len(ids) > 1:
            raise AmbiguousError(f"several models' hashes start with {prefix}", "give more of its digits")
        if ids:
            return int(ids[0])
    if connection.scalar(select(models.c.id).limit(1)) is None:
        raise EmptyRegistryError(f"{address.label} holds no models yet", address.command("ingest REF"))
    near = _near(connection, reference)
    remedy = f"did you mean {', '.join(near)}?" if near else f"see {address.command('list')}"
    raise UnknownModelError(f"no model is named {reference!r}", remedy)


def _near(connection: Connection, reference: str) -> list[str]:
    folded = func.lower(names.c.name)
    likely = folded.startswith(reference[:2].lower(), autoescape=True) | folded.contains(
        reference.lower(), autoescape=True
    )
    known = connection.scalars(select(names.c.name).where(likely).order_by(names.c.name).limit(NEAR)).all()
    if not known:
        known = connection.scalars(select(names.c.name).order_by(names.c.name).limit(NEAR)).all()
    # Without regard to case, but offered as stored; part of a longer name is nearer than difflib has it.
    by_key = {name.lower(): name for name in known}
    close = get_close_matches(reference.lower(), by_key, n=3, cutoff=0.6)
    longer = [key for key in by_key if reference.lower() in key][: 3 - len(close)]
    return [by_key[key] for key in dict.fromkeys([*close, *longer])]


def whole_hashes(connection: Connection, rule: str, specs: Sequence[str], *, spectra: bool, exact: bool) -> list[str]:
    """Return the content hashes of the models of a matrix rule with vectors under all those specs and today's figures.

    ``spectra``: and with their spectra; ``exact``: and without approximate ones.
    """
    judged = select(conjugacy.c.model_id).where(conjugacy.c.rule == CONJUGACY_RULE)
    statement = select(models.c.content_hash).where(models.c.matrix_rule == rule, models.c.id.in_(judged))
    for spec in specs:
        under = select(schema.fingerprints.c.model_id).join(schema.specs).where(schema.specs.c.hash == spec)
        statement = statement.where(models.c.id.in_(under))
    if spectra:
        statement = statement.where(models.c.id.in_(select(schema.spectra.c.model_id)))
    if exact:
        approximate = select(schema.layers.c.model_id).where(schema.layers.c.method != "")
        statement = statement.where(models.c.id.not_in(approximate))
    return list(connection.scalars(statement))


def _filtered(columns: Select[Any], wanted: Filter | None) -> Select[Any]:
    statement = columns.join(architectures, architectures.c.id == models.c.architecture_id)
    return statement.where(*conditions(wanted)) if wanted is not None else statement


def candidate_ids(connection: Connection, wanted: Filter | None) -> list[int]:
    """Return the ids of the models that a filter lets through, ascending."""
    statement = _filtered(select(models.c.id).select_from(models), wanted).order_by(models.c.id)
    return list(connection.scalars(statement))


def unknown_count(connection: Connection, wanted: Filter, besides: int) -> int:
    """Return how many models but one a filter leaves out for nothing but values that are not known of them."""
    left_out = unknown(wanted)
    if left_out is None:
        return 0
    counted = select(func.count()).select_from(models.join(architectures)).where(left_out, models.c.id != besides)
    return connection.scalar(counted) or 0


def summaries(
    connection: Connection, wanted: Filter | None = None, ids: Sequence[int] | None = None
) -> list[ModelSummary]:
    """Return the models that a filter lets through, of ``ids`` if given, by name: three queries, however many."""
    layers = schema.layers.c
    counted = select(layers.model_id, func.count().label("n")).where(layers.method != "").group_by(layers.model_id)
    approximate = counted.subquery()
    statement = select(
        models,
        architectures.c.family,
        architectures.c.name.label("architecture"),
        conjugacy.c.tail_class,
        conjugacy.c.training_class,
        approximate.c.n.label("approximate"),
    ).select_from(models)
    statement = _filtered(statement, wanted).outerjoin(conjugacy, conjugacy.c.model_id == models.c.id)
    statement = statement.outerjoin(approximate, approximate.c.model_id == models.c.id)
    if ids is not None:
        statement = statement.where(among(models.c.id, ids, connection))
    rows = connection.execute(statement).mappings().all()
    found = [row["id"] for row in rows] if ids is not None or wanted is not None else None
    named = _grouped(connection, select(names.c.model_id, names.c.name).order_by(names.c.id), found)
    measured = _grouped(connection, _metrics(), found)
    return sorted(
        (
            _summary(
                row,
                tuple(name["name"] for name in named[row["id"]]),
                tuple(to_metric(metric) for metric in measured[row["id"]]),
            )
            for row in rows
        ),
        key=lambda summary: summary.name,
    )


def _metrics() -> Select[Any]:
    table = schema.metrics
    return select(table).order_by(table.c.model_id, table.c.name, table.c.dataset, table.c.split)


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


def details_rows(connection: Connection, model_id: int) -> DetailsRows:
    """Return everything else that is stored of a model.

    Raises
    ------
    UnknownModelError
        There is none of that id.
    """
    model = connection.execute(select(models).where(models.c.id == model_id)).mappings().first()
    if model is None:
        raise UnknownModelError(f"no model has the id {model_id}")

    def of(table: Any, *order: Any) -> Sequence[RowMapping]:
        statement = select(table).where(table.c.model_id == model_id).order_by(*order)
        return connection.execute(statement).mappings().all()

    figures = of(conjugacy)
    labels = (
        select(schema.specs.c.name, schema.specs.c.version)
        .join(schema.fingerprints, schema.fingerprints.c.spec_id == schema.specs.c.id)
        .where(schema.fingerprints.c.model_id == model_id)
        .order_by(schema.specs.c.name, schema.specs.c.version)
    )
    held = select(schema.spectra.c.model_id).where(schema.spectra.c.model_id == model_id)
    provenance = ("revision", "recipe", "training", "seed", "tool_version")
    return DetailsRows(
        layers=tuple(layer_of(row) for row in of(schema.layers, schema.layers.c.position)),
        skipped=tuple(
            SkippedTensor(row["name"], row["dtype"], tuple(json.loads(row["shape"])), row["reason"])
            for row in of(schema.skipped, schema.skipped.c.position)
        ),
        conjugacy=to_conjugacy(figures[0]) if figures else None,
        tags=tuple((row["key"], row["value"]) for row in of(schema.tags, schema.tags.c.key)),
        fingerprints=tuple(f"{name} v{version}" for name, version in connection.execute(labels)),
        has_spectra=connection.scalar(held) is not None,
        **{key: model[key] for key in provenance},
    )


def holding(connection: Connection, content_hash: str) -> Holding | None:
    """Return what is stored of the weights of that hash, None where they are not."""
    model = connection.execute(
        select(models.c.id, models.c.matrix_rule, schema.spectra.c.model_id.is_not(None).label("has_spectra"))
        .outerjoin(schema.spectra, schema.spectra.c.model_id == models.c.id)
        .where(models.c.content_hash == content_hash)
    ).first()
    if model is None:
        return None
    of_model = schema.fingerprints.c.model_id == model.id
    hashes = select(schema.specs.c.hash).join(schema.fingerprints).where(of_model)
    rule = connection.scalar(select(conjugacy.c.rule).where(conjugacy.c.model_id == model.id))
    return Holding(
        matrix_rule=model.matrix_rule,
        specs=frozenset(connection.scalars(hashes)),
        has_spectra=bool(model.has_spectra),
        judged=rule == CONJUGACY_RULE,
        exact=is_exact(connection, model.id),
    )


def is_exact(connection: Connection, model_id: int) -> bool:
    """Return whether none of a model's layers is approximate."""
    layers = schema.layers
    approximate = select(layers.c.position).where(layers.c.model_id == model_id, layers.c.method != "").limit(1)
    return connection.scalar(approximate) is None


def stats(connection: Connection, version: str) -> Stats:
    """Return what the registry holds; counts are by size, largest first."""
    fingerprints, specs = schema.fingerprints, schema.specs

    def total(table: Any) -> int:
        return connection.scalar(select(func.count()).select_from(table)) or 0

    def counted(label: Any, source: Any) -> tuple[tuple[str, int], ...]:
        count = func.count().label("n")
        rows = connection.execute(
            select(label, count).select_from(source).group_by(label).order_by(count.desc(), label)
        )
        return tuple((str(value), int(n)) for value, n in rows)

    by_spec = connection.execute(
        select(specs.c.name, specs.c.version, func.count(fingerprints.c.model_id))
        .outerjoin(fingerprints, fingerprints.c.spec_id == specs.c.id)
        .group_by(specs.c.id, specs.c.name, specs.c.version)
        .order_by(specs.c.name, specs.c.version, specs.c.id)
    )
    return Stats(
        models=total(models),
        names=total(names),
        layers=total(schema.layers),
        families=counted(architectures.c.family, models.join(architectures)),
        fingerprints=tuple((f"{name} v{number}", count) for name, number, count in by_spec),
        training_classes=counted(conjugacy.c.training_class, conjugacy),
        tail_classes=counted(conjugacy.c.tail_class, conjugacy),
        schema_version=version,
        bytes=_bytes(connection),
    )


def _bytes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
    sizes = (func.pg_total_relation_size(func.to_regclass(table)) for table in schema.metadata.tables)
    return sum(connection.execute(select(*sizes)).one())
