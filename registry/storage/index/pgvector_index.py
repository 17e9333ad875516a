"""The pgvector index of a spec in Postgres: a table with a copy of the vectors, and its searches.

The table ``archreg_vectors_ID`` repeats what ``fingerprints`` holds under the spec of that id, and an HNSW index of it
for each distance finds the nearest without reading all. It is no part of the schema: nothing else needs it, and whoever
may not use it, or finds it behind, does without. ``specs.indexed`` is the last stamp that it took part in: writers
insert in their own transaction, deletions cascade, and where a writer could not follow, the two stamps differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import select, text

from registry.extensions import INDEX_OPERATORS
from registry.storage.engine.connections import driver
from registry.storage.engine.schema import specs
from registry.storage.models.packing import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from registry.storage.models.records import SpecState

__all__ = [
    "BEHIND",
    "OTHERS",
    "Opened",
    "discard",
    "find_near",
    "follow",
    "index_name",
    "is_current_version",
    "is_mine",
    "index_lacks",
    "literal",
    "may",
    "opened",
    "table_name",
    "usage_of",
]

BEHIND = -1
"""``specs.indexed`` of an index that missed a change: never a stamp."""


EF_SEARCH = 80  # candidates held during a search, at least
OLDEST = (0, 8)  # pgvector: iterative scans


class IndexFacts(NamedTuple):
    """Facts on the index of a spec: validity for the distance, right to read, schema of pgvector.

    None where there is no such index, no pgvector; of that, the schema, quoted, the version, and whether this role may
    use the schema, ``true`` or ``false``.
    """

    usable: bool | None
    extension: list[str] | None


class Opened(NamedTuple):
    """Whether a connection can use an index: the quoted schema of pgvector, or the reason why not.

    ``remedy``: what mends the problem; where there is none, what makes the index anew.
    """

    schema: str
    problem: str = ""
    remedy: str = ""


class OpenIndex(NamedTuple):
    """An index for a search; ``held``: number of vectors, if it can be used."""

    opened: Opened
    state: SpecState
    distance: str
    held: int


def table_name(spec_id: int) -> str:
    """Return the name of a spec's table."""
    return f"archreg_vectors_{spec_id:d}"


def index_name(spec_id: int, distance: str) -> str:
    """Return the name of the table's index for a distance."""
    return f"{table_name(spec_id)}_{distance}"


def literal(vector: NDArray[np.float32]) -> str:
    """Return a vector as text for pgvector; nine digits distinguish all float32 values."""
    return "[" + ",".join([f"{number:.9g}" for number in vector.tolist()]) + "]"


def usage_of(schema: str) -> str:
    """Return the remedy for a role that may not use the schema of pgvector."""
    return f"ask its owner for: GRANT USAGE ON SCHEMA {schema}"


def is_current_version(version: str) -> bool:
    """Whether a version of pgvector is new enough."""
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    return tuple(numbers) >= OLDEST


# The planner knows no cost of distances: with a filter it would rather compute all of them and sort.
_WASTEFUL = ("enable_seqscan", "enable_sort", "enable_bitmapscan")

_HERE = "quote_ident(current_schema()) || '.archreg_vectors_' || specs.id"
# The cheapest ways to ask: a join of catalogs takes longer to plan than all else that a question reads.
INDEX_FACTS: Final = (
    text(
        "(SELECT found.indisvalid AND has_table_privilege(found.indrelid, 'SELECT') FROM pg_catalog.pg_index AS found"  # noqa: S608 - constants
        f" WHERE found.indexrelid = to_regclass({_HERE} || '_' || :distance) AND found.indrelid = to_regclass({_HERE}))"
    ),
    text(
        "(SELECT ARRAY[e.extnamespace::regnamespace::text, e.extversion,"
        " has_schema_privilege(e.extnamespace, 'USAGE')::text]"
        " FROM pg_catalog.pg_extension AS e WHERE e.extname = 'vector')"
    ),
)
"""Columns of `IndexFacts` beside those of ``specs``; ``distance`` is the distance."""
OTHERS = select(specs.c.name, specs.c.version).where(specs.c.indexed.is_not(None)).order_by(specs.c.id)


def opened(connection: Connection, spec: SpecState, facts: IndexFacts, distance: str, label: str) -> Opened | None:
    """Return whether the index of a spec and distance can be used; None without an index."""
    again = f"run: archreg index build --fingerprint {label.split(' ', 1)[0]} --distance {distance}"
    if spec.indexed is None:
        others = [f"{name} v{version}" for name, version in connection.execute(OTHERS)]
        return Opened("", f"the index is of {', '.join(others)}, not of {label}", again) if others else None
    readable = facts.usable or may(connection, table_name(spec.id), "SELECT")
    if readable is None or facts.extension is None:
        return Opened("", "the index is gone", again)
    schema, version, mine = facts.extension
    if mine != "true":
        return Opened("", f"this role may not use the schema of pgvector, {schema}", usage_of(schema))
    if not readable:
        remedy = f"ask its owner for: GRANT SELECT ON {table_name(spec.id)}"
        return Opened("", "this role may not read the index", remedy)
    if not facts.usable:
        return Opened("", f"the index is of another distance than {distance}", again)
    if not is_current_version(version):
        return Opened("", f"pgvector {version} is older than 0.8", "ALTER EXTENSION vector UPDATE")
    if spec.indexed != spec.stamp:
        return Opened("", "the index is behind the vectors", again)
    return Opened(schema, remedy=again)


def may(connection: Connection, table: str, privilege: str) -> bool | None:
    """Whether this role has a privilege on the table; None if the table does not exist."""
    may = "SELECT has_table_privilege(to_regclass(quote_ident(current_schema()) || '.' || %(table)s), %(privilege)s)"
    found: bool | None = connection.exec_driver_sql(may, {"table": table, "privilege": privilege}).scalar()
    return found


def find_near(
    connection: Connection,
    index: OpenIndex,
    query: NDArray[np.float32] | int,
    k: int,
    *,
    ids: Sequence[int] | None = None,
    trainings: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids (m,) and vectors (m, d) of slightly more than ``k`` near models, unordered.

    ``query``: a vector, or the id of a model that has one in the index; ``ids``: only among these; ``trainings``:
    only of these training classes. Under either the index is scanned on until enough pass, or some 20,000 did not;
    there can be fewer than ``k`` then.
    """
    wanted = 2 * k + 12  # those whose order float32 cannot tell, and the model itself
    settings = {
        "hnsw.ef_search": str(min(1000, max(EF_SEARCH, 2 * wanted))),
        "hnsw.iterative_scan": "relaxed_order",  # they are ranked anew
    }
    quoted, table = index.opened.schema, table_name(index.state.id)
    conditions, joined = [], ""
    values: dict[str, Any] = {"wanted": wanted}
    if isinstance(query, int):
        near, values["query"] = f"(SELECT vector FROM {table} WHERE model_id = %(query)s)", query  # noqa: S608
    else:
        near, values["query"] = f"%(query)s::{quoted}.vector", literal(query)
    if ids is not None:
        conditions.append(f"{table}.model_id = ANY(%(ids)s)")
        values["ids"] = list(ids)
    if trainings is not None:
        joined = f"JOIN conjugacy ON conjugacy.model_id = {table}.model_id"
        conditions.append("conjugacy.training_class = ANY(%(trainings)s)")
        values["trainings"] = list(trainings)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    statement = f"""
        SELECT {table}.model_id, {table}.vector FROM {table} {joined} {where}
        ORDER BY {table}.vector OPERATOR({quoted}.{INDEX_OPERATORS[index.distance]}) {near} LIMIT %(wanted)s
    """  # noqa: S608 - names made of numbers, the operator from a table, all values bound
    rows = _under(connection, settings, _WASTEFUL if conditions else (), statement, values)
    layout = np.dtype([("dimensions", ">i2"), ("unused", ">i2"), ("vector", ">f4", (index.state.length,))])
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), layout)["vector"].astype(np.float32)
    return np.array([model_id for model_id, _ in rows], np.int64), vectors


def index_lacks(connection: Connection, index: OpenIndex, model_id: int | None = None) -> bool:
    """Whether the index lacks the vector of that model; for None, of any model, O(n)."""
    table = table_name(index.state.id)
    if model_id is None:
        return bool(connection.exec_driver_sql(f"SELECT count(*) < {index.held:d} FROM {table}").scalar())  # noqa: S608 - numbers
    mine = f"SELECT NOT EXISTS (SELECT FROM {table} WHERE model_id = {model_id:d})"  # noqa: S608 - numbers
    return bool(connection.exec_driver_sql(mine).scalar())


def _under(
    connection: Connection, settings: Mapping[str, str], off: Sequence[str], statement: str, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Run a statement with server settings; return its rows unconverted.

    ``off``: what is switched off for this statement alone. The same transaction goes on with others, and the planner is
    to take what suits them; the settings of the index are of no use to those.
    """
    given = [*settings.items(), *((name, "off") for name in off)]
    local = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in given)
    with driver(connection) as below, below.cursor(binary=True) as cursor:
        cursor.execute(f"SELECT {local}")
        rows = cursor.execute(statement, values).fetchall()
        if off:
            below.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in off))
        return list(rows)


def follow(connection: Connection, spec_id: int, vectors: Mapping[int, bytes]) -> bool:
    """Insert stored vectors into the index; False if this role may not, or the index is gone."""
    table = table_name(spec_id)
    if not may(connection, table, "INSERT"):
        return False
    rows = [(spec_id, model_id, literal(unpacked(vector))) for model_id, vector in vectors.items()]
    connection.exec_driver_sql(f"INSERT INTO {table} (spec_id, model_id, vector) VALUES (%s, %s, %s)", rows)  # noqa: S608 - a number
    return True


def is_mine(connection: Connection, spec_id: int) -> bool:
    """Whether the table of a spec exists and this role owns it."""
    mine = (
        "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class AS c"
        " WHERE c.oid = to_regclass(quote_ident(current_schema()) || '.' || %(table)s)"
    )
    return bool(connection.exec_driver_sql(mine, {"table": table_name(spec_id)}).scalar())


def discard(connection: Connection, spec_id: int) -> bool:
    """Drop the table of a spec if this role owns it; an empty table that stays is harmless."""
    if connection.dialect.name != "postgresql" or not is_mine(connection, spec_id):
        return False
    connection.exec_driver_sql(f"DROP TABLE {table_name(spec_id)}")
    return True
