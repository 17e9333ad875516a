"""The derived index of a spec's vectors in Postgres: a table for pgvector beside the stored vectors, and its searches.

The table ``archreg_vectors_ID`` repeats what ``fingerprints`` holds under the spec of that id, and an HNSW index of it
for each distance finds the nearest without reading all. It is no part of the schema: nothing else needs it, and whoever
may not use it, or finds it behind, does without. ``specs.indexed`` is the last stamp that it took part in: writers
insert in their own transaction, deletions cascade, and where a writer could not follow, the two stamps differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import select

from registry.storage.packing import FLOAT32, unpacked
from registry.storage.schema import specs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from registry.storage.remembered import SpecState

__all__ = [
    "BEHIND",
    "MAX_K",
    "OPERATORS",
    "OTHERS",
    "Opened",
    "discard",
    "find",
    "follow",
    "index_name",
    "is_current_version",
    "literal",
    "opened",
    "table_name",
]

BEHIND = -1
"""``specs.indexed`` of an index that missed a change: never a stamp."""

MAX_K = 200  # neighbours that an index is asked for at most: its list of candidates ends at 1,000
OPERATORS = {"l1": "<+>", "l2": "<->"}
"""Distances that an index can be for, by pgvector's operator; the operator class is ``vector_NAME_ops``."""

OLDEST = (0, 8)  # pgvector: iterative scans


class Opened(NamedTuple):
    """What a connection may make of an index: the schema of pgvector, or why it cannot be used."""

    schema: str
    problem: str = ""
    remedy: str = ""


def table_name(spec_id: int) -> str:
    """Return the name of a spec's table."""
    return f"archreg_vectors_{spec_id:d}"


def index_name(spec_id: int, metric: str) -> str:
    """Return the name of the table's index for a distance."""
    return f"{table_name(spec_id)}_{metric}"


def literal(vector: NDArray[np.float32]) -> str:
    """Return a vector as pgvector reads it; nine digits tell any two float32 apart."""
    return "[" + ",".join([f"{number:.9g}" for number in vector.tolist()]) + "]"


def is_current_version(version: str) -> bool:
    """Whether a version of pgvector has what this needs."""
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    return tuple(numbers) >= OLDEST


# The planner knows no cost of distances: with a filter it would rather compute all of them and sort.
_WASTEFUL = ("enable_seqscan", "enable_sort", "enable_bitmapscan")

_OPENED = """
SELECT extension.nspname, extension.extversion, has_table_privilege(kept.oid, 'SELECT'),
    coalesce(found.indisvalid, false)
FROM pg_catalog.pg_class AS kept
JOIN pg_catalog.pg_namespace AS home ON home.oid = kept.relnamespace AND home.nspname = current_schema()
LEFT JOIN pg_catalog.pg_class AS named ON named.relnamespace = home.oid AND named.relname = %(index)s
LEFT JOIN pg_catalog.pg_index AS found ON found.indexrelid = named.oid AND found.indrelid = kept.oid
LEFT JOIN (
    SELECT n.nspname, e.extversion FROM pg_catalog.pg_extension AS e
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
) AS extension ON true
WHERE kept.relname = %(table)s AND kept.relkind = 'r'
"""
OTHERS = select(specs.c.name, specs.c.version).where(specs.c.indexed.is_not(None)).order_by(specs.c.id)


def opened(connection: Connection, spec: SpecState, metric: str, label: str) -> Opened | None:
    """Return what can be made of the index for a spec and distance; None where no index is there at all."""
    again = f"run: archreg index build --fingerprint {label.split(' ', 1)[0]} --distance {metric}"
    if spec.indexed is None:
        others = [f"{name} v{version}" for name, version in connection.execute(OTHERS)]
        return Opened("", f"the index is of {', '.join(others)}, not of {label}", again) if others else None
    names = {"table": table_name(spec.id), "index": index_name(spec.id, metric)}
    row = connection.exec_driver_sql(_OPENED, names).first()
    if row is None or row[0] is None:
        return Opened("", "the index is gone", again)
    schema, version, readable, valid = row
    if not readable:
        return Opened("", "this role may not read the index", f"ask its owner for: GRANT SELECT ON {names['table']}")
    if not valid:
        return Opened("", f"the index is of another distance than {metric}", again)
    if not is_current_version(version):
        return Opened("", f"pgvector {version} is older than 0.8", "ALTER EXTENSION vector UPDATE")
    if spec.indexed != spec.stamp:
        return Opened("", "the index is behind the vectors", again)
    return Opened(schema)


def find(
    connection: Connection,
    spec: SpecState,
    metric: str,
    schema: str,
    query: NDArray[np.float32],
    k: int,
    *,
    ids: Sequence[int] | None = None,
    kind: tuple[str, str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids (m,) and stored vectors (m, d) of some more than ``k`` models that an index finds near, in no order.

    ``ids``: only among these; ``kind``: only of that tail class and training class. Under either the index is scanned
    on until enough pass, or some 20,000 did not; there can be fewer than ``k`` then.
    """
    wanted = 2 * k + 12  # those whose order float32 cannot tell, and the model itself
    settings = {
        "hnsw.ef_search": str(min(1000, max(200, 2 * wanted))),
        "hnsw.iterative_scan": "relaxed_order",  # they are ranked anew
        **dict.fromkeys(_WASTEFUL, "off"),
    }
    local = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    connection.exec_driver_sql(f"SELECT {local}")
    quoted = connection.dialect.identifier_preparer.quote(schema)
    table = table_name(spec.id)
    conditions, joined, values = [], "", {"query": literal(query), "wanted": wanted}
    if ids is not None:
        conditions.append(f"{table}.model_id = ANY(%(ids)s)")
        values["ids"] = list(ids)
    if kind is not None:
        joined = f"JOIN conjugacy ON conjugacy.model_id = {table}.model_id"
        conditions.append("conjugacy.tail_class = %(tail)s AND conjugacy.training_class = %(training)s")
        values |= {"tail": kind[0], "training": kind[1]}
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    statement = f"""
        WITH near AS MATERIALIZED (
            SELECT {table}.model_id FROM {table} {joined} {where}
            ORDER BY {table}.vector OPERATOR({quoted}.{OPERATORS[metric]}) %(query)s::{quoted}.vector LIMIT %(wanted)s
        )
        SELECT fingerprints.model_id, fingerprints.vector FROM near
        JOIN fingerprints ON fingerprints.spec_id = {spec.id:d} AND fingerprints.model_id = near.model_id
    """  # noqa: S608 - names made of numbers, the operator from a table, all values bound
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        rows = cursor.execute(statement, values, binary=True).fetchall()
        # For this statement alone: the same transaction goes on with others.
        cursor.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in _WASTEFUL))
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), FLOAT32).reshape(len(rows), spec.length)
    return np.array([model_id for model_id, _ in rows], np.int64), vectors


def follow(connection: Connection, spec_id: int, vectors: Mapping[int, bytes]) -> bool:
    """Insert stored vectors by model into the index; False where this role may not, or it is gone."""
    table = table_name(spec_id)
    may = "SELECT has_table_privilege(to_regclass(quote_ident(current_schema()) || '.' || %(table)s), 'INSERT')"
    if not connection.exec_driver_sql(may, {"table": table}).scalar():
        return False
    rows = [(spec_id, model_id, literal(unpacked(vector))) for model_id, vector in vectors.items()]
    connection.exec_driver_sql(f"INSERT INTO {table} (spec_id, model_id, vector) VALUES (%s, %s, %s)", rows)  # noqa: S608 - a number
    return True


def discard(connection: Connection, spec_id: int) -> bool:
    """Drop a spec's table where it is there and this role's to drop; an empty one that is left does no harm."""
    if connection.dialect.name != "postgresql":
        return False
    mine = (
        "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class AS c"
        " WHERE c.oid = to_regclass(quote_ident(current_schema()) || '.' || %(table)s)"
    )
    if not connection.exec_driver_sql(mine, {"table": table_name(spec_id)}).scalar():
        return False
    connection.exec_driver_sql(f"DROP TABLE {table_name(spec_id)}")
    return True
