"""Stored partitions of models into equivalence classes: store, find, replace, delete."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select

from registry.errors import AmbiguousError, UnknownClassError
from registry.storage.engine.dialects import among
from registry.storage.engine.schema import classes, members, models, partitions, specs
from registry.storage.models.records import PartitionKey, PartitionRow, StoredClass, StoredPartition
from registry.storage.models.stored_cards import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Select

__all__ = ["all_partitions", "classes_with", "drop_partition", "find_class", "find_partition", "put_partition"]


_ROWS = select(
    partitions,
    specs.c.hash,
    select(func.count()).where(classes.c.partition_id == partitions.c.id).scalar_subquery().label("classes"),
).join(specs)


def find_partition(connection: Connection, key: PartitionKey) -> StoredPartition | None:
    """Return the partition with those settings, or None."""
    found = connection.execute(_of(key, partitions.c.id, partitions.c.mark, partitions.c.created)).first()
    return None if found is None else StoredPartition(found.mark, found.created, _classes(connection, found.id))


def _of(key: PartitionKey, *columns: Any) -> Select[Any]:
    statement = select(*columns).join(specs, specs.c.id == partitions.c.spec_id)
    return statement.where(
        specs.c.hash == key.spec_hash,
        partitions.c.distance == key.distance,
        partitions.c.rule == key.rule,
        partitions.c.tolerance == key.tolerance,
        partitions.c.scope == key.scope,
    )


def _classes(connection: Connection, partition_id: int, identity: str | None = None) -> tuple[StoredClass, ...]:
    """The equivalence classes of a partition in order, or the one with that identity; empty ones are left out."""
    statement = (
        select(classes, members.c.model_id)
        .join(members, members.c.class_id == classes.c.id)
        .where(classes.c.partition_id == partition_id)
        .order_by(classes.c.number, members.c.model_id)
    )
    if identity is not None:
        statement = statement.where(classes.c.identity == identity)
    found = []
    for _, rows in groupby(connection.execute(statement), lambda row: row.id):
        first, *others = rows
        found.append(
            StoredClass(
                first.identity,
                first.medoid_id,
                first.diameter,
                first.bounded,
                first.tail_class,
                first.training_class,
                (first.model_id, *(row.model_id for row in others)),
            )
        )
    return tuple(found)


def put_partition(
    connection: Connection,
    key: PartitionKey,
    mark: str,
    given: Sequence[StoredClass],
    identities: Callable[[Mapping[str, Sequence[int]]], Sequence[str]],
) -> StoredPartition | None:
    """Store a partition; it replaces the one with the same settings. Return it as stored.

    Parameters
    ----------
    connection : Connection
        A transaction that writes.
    key, mark
        The terms, and the hash over all that the classes follow from.
    given : sequence of StoredClass
        The classes in their order, whatever their identities.
    identities : callable
        From the members of the classes there were, by identity in their order, the identities of the new ones.

    Returns
    -------
    StoredPartition or None
        With the classes' identities; None where models or the spec are gone meanwhile: then nothing has changed.
    """
    # One after the other, where several keep theirs at once: Postgres would find the key taken. SQLite has one writer.
    spec_row = select(specs.c.id).where(specs.c.hash == key.spec_hash)
    spec_id = connection.scalar(spec_row.with_for_update(key_share=True))
    every = [model for each in given for model in each.members]
    there = connection.scalar(select(func.count()).select_from(models).where(among(models.c.id, every, connection)))
    if spec_id is None or there != len(every):
        return None
    old = connection.scalar(_of(key, partitions.c.id))
    before = {} if old is None else {each.identity: each.members for each in _classes(connection, old)}
    named = tuple(replace(each, identity=own) for each, own in zip(given, identities(before), strict=True))
    connection.execute(delete(partitions).where(partitions.c.id == old))
    created = utc_now()
    terms = {name: getattr(key, name) for name in ("distance", "rule", "tolerance", "scope")}
    values = {"spec_id": spec_id, "mark": mark, "models": len(every), "created": created, **terms}
    made = connection.execute(insert(partitions).values(values)).inserted_primary_key
    _insert_classes(connection, int(made[0]) if made is not None else 0, named)
    return StoredPartition(mark, created, named)


def _insert_classes(connection: Connection, partition_id: int, given: Sequence[StoredClass]) -> None:
    rows = [
        {
            "partition_id": partition_id,
            "number": number,
            "identity": each.identity,
            "medoid_id": each.medoid,
            "diameter": each.diameter,
            "bounded": each.bounded,
            "tail_class": each.tail_class,
            "training_class": each.training_class,
        }
        for number, each in enumerate(given, 1)
    ]
    connection.execute(insert(classes), rows)
    mine = select(classes.c.id).where(classes.c.partition_id == partition_id).order_by(classes.c.number)
    belonging = [
        {"class_id": class_id, "model_id": model}
        for class_id, each in zip(connection.scalars(mine), given, strict=True)
        for model in each.members
    ]
    connection.execute(insert(members), belonging)


def all_partitions(connection: Connection) -> list[PartitionRow]:
    """Return the kept partitions, the newest first."""
    rows = connection.execute(_ROWS.order_by(partitions.c.created.desc(), partitions.c.id.desc()))
    return [_row(row) for row in rows]


def drop_partition(connection: Connection, partition_id: int) -> PartitionRow:
    """Delete a partition and its equivalence classes; return it.

    Raises
    ------
    UnknownClassError
        None of that id is kept.
    """
    found = connection.execute(_ROWS.where(partitions.c.id == partition_id)).first()
    if found is None:
        raise UnknownClassError(f"no partition is kept under the number {partition_id}", "see archreg classes --kept")
    connection.execute(delete(partitions).where(partitions.c.id == partition_id))
    return _row(found)


def _row(row: Any) -> PartitionRow:
    return PartitionRow(row.id, _key(row), row.models, row.classes, row.created)


def _key(row: Any) -> PartitionKey:
    return PartitionKey(row.hash, row.distance, row.rule, row.tolerance, row.scope)


def find_class(connection: Connection, identity: str) -> tuple[PartitionRow, int, StoredClass]:
    """Return the partition, number and equivalence class of an identity or unique prefix of one.

    Raises
    ------
    UnknownClassError
        None is kept, or all its members are gone.
    AmbiguousError
        Several identities start so.
    """
    statement = (
        select(partitions, specs.c.hash, classes.c.identity, classes.c.number)
        .join(specs, specs.c.id == partitions.c.spec_id)
        .join(classes, classes.c.partition_id == partitions.c.id)
    )
    found = connection.execute(statement.where(classes.c.identity == identity).limit(2)).all()
    if not found and identity:
        starts = classes.c.identity.startswith(identity, autoescape=True)
        found = connection.execute(statement.where(starts).limit(2)).all()
    if len(found) > 1:
        raise AmbiguousError(
            f"several identities of equivalence classes begin with {identity}", "give more of its digits"
        )
    for row in found:
        count = connection.scalar(select(func.count()).where(classes.c.partition_id == row.id)) or 0
        for each in _classes(connection, row.id, row.identity):
            return PartitionRow(row.id, _key(row), row.models, count, row.created), row.number, each
    raise UnknownClassError(
        f"no equivalence class {identity!r} is kept", "see archreg classes, and archreg classes --kept"
    )


def classes_with(connection: Connection, model_id: int) -> list[tuple[PartitionKey, str, int]]:
    """Return settings, identity and size of the kept equivalence classes of a model, the newest first."""
    others = members.alias()
    count = select(func.count()).where(others.c.class_id == classes.c.id).scalar_subquery()
    statement = (
        select(partitions, specs.c.hash, classes.c.identity, count.label("members"))
        .join(specs, specs.c.id == partitions.c.spec_id)
        .join(classes, classes.c.partition_id == partitions.c.id)
        .join(members, members.c.class_id == classes.c.id)
        .where(members.c.model_id == model_id)
        .order_by(partitions.c.created.desc(), partitions.c.id.desc())
    )
    return [(_key(row), row.identity, row.members) for row in connection.execute(statement)]
