"""Queries that find models and read what is stored of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, select, union_all

from registry.errors import AmbiguousError, EmptyRegistryError, UnknownModelError, UsageError
from registry.spelling import brief, near_spellings
from registry.storage.engine import schema
from registry.storage.engine.compiled_statements import Compiled
from registry.storage.engine.connections import address_of
from registry.storage.engine.schema import architectures, conjugacy, models, names
from registry.storage.engine.schema_version import HEAD
from registry.storage.models.filter_sql import conditions, unknown
from registry.storage.models.model_validation import HASH_PREFIX
from registry.storage.models.packing import layer_of, notes_of, to_conjugacy
from registry.storage.models.records import DetailsRows
from registry.types.models import Stats
from registry.types.weights import HEADER_PREFIX, SkippedTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping, Select

    from registry.types.filters import Filter

__all__ = [
    "candidate_ids",
    "count_models",
    "count_older",
    "has_name",
    "header_hash_of",
    "is_older",
    "older_models",
    "read_details",
    "near_known",
    "require_models",
    "resolve",
    "short_hash",
    "read_stats",
    "unknown_count",
    "unread_models",
]

SHORT = 12
NEAR = 2_000  # texts compared at most when one is not found: difflib takes some 50 microseconds a pair


def short_hash(content_hash: str) -> str:
    """Return the name of a model without a name: ``sha256:``, or ``header:`` of a header alone, and 12 digits."""
    prefix = "" if content_hash.startswith(HEADER_PREFIX) else HASH_PREFIX
    return (prefix + content_hash)[: len(HASH_PREFIX) + SHORT]


def resolve(connection: Connection, reference: str) -> int:
    """Return the id of the model with that name, or with the hash ``sha256:PREFIX`` or ``header:PREFIX``.

    Raises
    ------
    UnknownModelError
        None does; the remedy offers the nearest names.
    AmbiguousError
        The hash's beginning is that of several models.
    EmptyRegistryError
        Nothing is stored at all.
    """
    if not isinstance(reference, str):
        raise UsageError(f"a model name must be a text, not {brief(reference)}")
    found = connection.scalar(select(names.c.model_id).where(names.c.name == reference))
    if found is not None:
        return int(found)
    prefix = reference.removeprefix(HASH_PREFIX).lower()
    if reference.startswith((HASH_PREFIX, HEADER_PREFIX)) and prefix not in ("", HEADER_PREFIX):
        starts = models.c.content_hash.startswith(prefix, autoescape=True)
        ids = connection.scalars(select(models.c.id).where(starts).limit(2)).all()
        if len(ids) > 1:
            raise AmbiguousError(f"several content hashes begin with {prefix}", "give more of its digits")
        if ids:
            return int(ids[0])
    require_models(connection)
    near = near_known(connection, select(names.c.name), reference)
    remedy = f"did you mean {', '.join(near)}?" if near else f"see {address_of(connection).command('list')}"
    raise UnknownModelError(f"no model is named {reference!r}", remedy)


_NUMBERED = re.compile(r"(.*?)(\d+)")


def is_older(rule: str, present: str) -> bool:
    """Return whether a matrix rule is an older one of the same name: ``matrix-1`` before ``matrix-2``."""
    held, now = _NUMBERED.fullmatch(rule), _NUMBERED.fullmatch(present)
    return held is not None and now is not None and held[1] == now[1] and int(held[2][:9]) < int(now[2][:9])


# Two ranges of the index, which are empty in most registries: asked with every search.
_OTHER_RULES = Compiled(
    union_all(
        *(
            select(models.c.matrix_rule, models.c.id).where(side)
            for side in (models.c.matrix_rule < bindparam("rule"), models.c.matrix_rule > bindparam("rule"))
        )
    )
)


def older_models(connection: Connection, present: str) -> dict[str, list[int]]:
    """Return the ids of the models of older matrix rules, ascending, by rule."""
    found: dict[str, list[int]] = {}
    for rule, id_ in sorted(_OTHER_RULES.rows(connection, {"rule": present})):
        if rule in found or is_older(rule, present):
            found.setdefault(rule, []).append(id_)
    return found


def count_older(connection: Connection, present: str, ids: Sequence[int] | None = None) -> int:
    """Return how many models, of all or among ``ids``, are of an older matrix rule."""
    if _OTHER_RULES.first(connection, {"rule": present}) is None:
        return 0
    older = [id_ for of_rule in older_models(connection, present).values() for id_ in of_rule]
    return len(older) if ids is None else len(set(older).intersection(ids))


def require_models(connection: Connection) -> None:
    """Raise `EmptyRegistryError` with the ingest command if no model is stored."""
    if connection.scalar(select(models.c.id).limit(1)) is None:
        address = address_of(connection)
        remedy = f"fill it: {address.command('ingest FILE_OR_FOLDER')}, or torchvision:resnet18 instead of a file"
        raise EmptyRegistryError(f"{address.label} holds no models", remedy)


def count_models(connection: Connection) -> int:
    """Return the number of stored models."""
    return connection.scalar(select(func.count()).select_from(models)) or 0


def unread_models(connection: Connection) -> set[int]:
    """Return the ids of the models of which the header alone was read."""
    return set(connection.scalars(select(models.c.id).where(models.c.content_hash.startswith(HEADER_PREFIX))))


def has_name(connection: Connection, name: str) -> bool:
    """Return whether a model has exactly that name."""
    return connection.scalar(select(names.c.id).where(names.c.name == name)) is not None


def header_hash_of(connection: Connection, model_id: int) -> str:
    """Return the hash of the header that a model was read with; empty where it is not known."""
    return connection.scalar(select(models.c.header_hash).where(models.c.id == model_id)) or ""


def near_known(connection: Connection, known: Select[Any], asked: str) -> list[str]:
    """Return texts of a one-column statement that are similar to a given text."""
    [column] = known.selected_columns
    known = known.distinct().order_by(column)
    texts = connection.scalars(known.limit(NEAR + 1)).all()
    if len(texts) > NEAR:
        likely, folded = asked.strip().lower(), func.lower(column)
        found = folded.startswith(likely[:2], autoescape=True) | folded.contains(likely[:3], autoescape=True)
        texts = connection.scalars(known.where(found).limit(NEAR)).all() or texts[:NEAR]
    return near_spellings(asked, texts)


def candidate_ids(connection: Connection, wanted: Filter | None = None) -> list[int]:
    """Return the ids of the models that match a filter, ascending."""
    statement = select(models.c.id).select_from(models).join(architectures).order_by(models.c.id)
    return list(connection.scalars(statement if wanted is None else statement.where(*conditions(wanted, connection))))


def unknown_count(connection: Connection, wanted: Filter, besides: int = 0) -> int:
    """Return how many models other than one fail the filter only because of unknown values."""
    left_out = unknown(wanted, connection)
    if left_out is None:
        return 0
    counted = select(func.count()).select_from(models.join(architectures)).where(left_out, models.c.id != besides)
    return connection.scalar(counted) or 0


def read_details(connection: Connection, model_id: int) -> DetailsRows:
    """Return the details of a model beyond its summary.

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
        notes=notes_of(model["notes"]),
        **{key: model[key] for key in provenance},
    )


def read_stats(connection: Connection) -> Stats:
    """Return the statistics of the registry; counts are sorted, largest first."""
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
        select(specs.c.name, specs.c.version, specs.c.matrix_rule, func.count())
        .join(fingerprints, fingerprints.c.spec_id == specs.c.id)
        .group_by(specs.c.id, specs.c.name, specs.c.version, specs.c.matrix_rule)
        .order_by(specs.c.name, specs.c.version, specs.c.id)
    ).all()
    rules = {rule for _, _, rule, _ in by_spec}
    return Stats(
        models=total(models),
        names=total(names),
        layers=total(schema.layers),
        families=counted(architectures.c.family, models.join(architectures)),
        fingerprints=tuple(
            (f"{name} v{number}" + (f" of {rule}" if len(rules) > 1 else ""), count)
            for name, number, rule, count in by_spec
        ),
        training_classes=counted(conjugacy.c.training_class, conjugacy),
        tail_classes=counted(conjugacy.c.tail_class, conjugacy),
        schema_version=HEAD,
        bytes=_bytes(connection),
    )


def _bytes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
    sizes = (func.pg_total_relation_size(func.to_regclass(table)) for table in schema.metadata.tables)
    return sum(connection.execute(select(*sizes)).one())
