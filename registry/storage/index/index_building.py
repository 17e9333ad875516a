"""Building, checking and dropping pgvector indexes; see `registry.storage.index.pgvector_index`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import func, select, update

from registry.errors import SpecMismatchError, StorageError, UsageError
from registry.extensions import INDEX_OPERATORS
from registry.storage.engine.connections import driver
from registry.storage.engine.ownership import share
from registry.storage.engine.schema import fingerprints, specs
from registry.storage.index import pgvector_index
from registry.storage.index.pgvector_index import index_name, table_name, usage_of
from registry.storage.models.records import IndexReport, SpecState
from registry.storage.models.spec_state import spec_facts, state_of
from registry.storage.models.vectors import vector_blocks

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from registry.types.spectra import FingerprintSpec

__all__ = ["build_index", "check_distance", "drop_index", "report_index"]

WORK_MEMORY_MB = 1_024  # maintenance_work_mem of a build at most: 100,000 vectors of 480 numbers take some 300 MB
EF_CONSTRUCTION = 128  # twice pgvector's: what it misses is whole neighbourhoods, which a longer search hardly finds
INSTALL = "install pgvector 0.8 or later on the server, then as its superuser: CREATE EXTENSION vector"


def check_distance(distance: str) -> None:
    """Raise ``UsageError`` for a distance without an index."""
    if distance not in INDEX_OPERATORS:
        known = ", ".join(INDEX_OPERATORS)
        raise UsageError(f"the distance {distance} has no index", f"distances with an index: {known}")


def build_index(connection: Connection, spec: FingerprintSpec, distance: str) -> int:
    """Build or rebuild the index of a spec for a distance; return the number of vectors in it.

    All in one transaction. Whoever reads is not held up; whoever writes vectors of this spec waits for its end.

    Raises
    ------
    StorageError
        pgvector is not there, too old, or this role may not create or use it; or the index there is another role's.
    SpecMismatchError
        No vector of the spec is stored.
    """
    check_distance(distance)
    schema = _extension(connection)
    # The lock that every writer of these vectors takes: none comes between the reading and the commit.
    locked = select(specs.c.id).where(specs.c.hash == spec.hash).with_for_update(key_share=True)
    connection.execute(locked)
    state = state_of(connection, spec.hash)
    if state is None:
        raise SpecMismatchError(
            f"no model has a {spec.label} fingerprint", f"run: archreg refingerprint --fingerprint {spec.name}"
        )
    if not pgvector_index.is_mine(connection, state.id) and _exists(connection, table_name(state.id)):
        raise _anothers(spec.name, state.id)
    distances = {distance}
    if state.indexed != state.stamp or not _is_whole(connection, state):
        distances |= {other for other in INDEX_OPERATORS if _exists(connection, index_name(state.id, other))}
        _fill(connection, state, schema)
    count = int(connection.exec_driver_sql(f"SELECT count(*) FROM {table_name(state.id)}").scalar_one())  # noqa: S608
    memory = min(WORK_MEMORY_MB, max(64, count * state.length * 8 // 2**20))
    connection.exec_driver_sql(f"SET LOCAL maintenance_work_mem = '{memory}MB'")
    for each in sorted(distances):
        name = index_name(state.id, each)
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
        connection.exec_driver_sql(
            f"CREATE INDEX {name} ON {table_name(state.id)}"
            f" USING hnsw (vector {schema}.vector_{each}_ops) WITH (m = 16, ef_construction = {EF_CONSTRUCTION})"
        )
    connection.exec_driver_sql(f"ANALYZE {table_name(state.id)}")
    connection.execute(update(specs).where(specs.c.id == state.id).values(indexed=state.stamp))
    return count


def _extension(connection: Connection) -> str:
    """Return the quoted schema of pgvector; create the extension if it is available and this role may."""
    found = (
        "SELECT quote_ident(n.nspname), e.extversion, has_schema_privilege(n.oid, 'USAGE')"
        " FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector'"
    )
    row = connection.exec_driver_sql(found).first()
    if row is None:
        available = "SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector'"
        version = connection.exec_driver_sql(available).scalar()
        if version is None:
            raise StorageError("the server has no extension pgvector", INSTALL)
        if not pgvector_index.is_current_version(version):
            raise StorageError(f"the server's pgvector {version} is older than 0.8", INSTALL)
        may = (
            "SELECT r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE'))"
            " FROM pg_catalog.pg_roles AS r, pg_catalog.pg_available_extension_versions AS v"
            " WHERE r.rolname = current_user AND v.name = 'vector' AND v.version = %(version)s"
        )
        if not connection.exec_driver_sql(may, {"version": version}).scalar():
            raise StorageError(
                "pgvector is not in this database, and this role may not create it",
                "ask its owner for: CREATE EXTENSION vector",
            )
        connection.exec_driver_sql("CREATE EXTENSION vector")
        row = connection.exec_driver_sql(found).one()
    schema, version, mine = row
    if not mine:
        raise StorageError(f"pgvector is in the schema {schema}, which this role may not use", usage_of(schema))
    if not pgvector_index.is_current_version(version):
        raise StorageError(f"pgvector {version} is older than 0.8", "ask its owner for: ALTER EXTENSION vector UPDATE")
    return str(schema)


def _exists(connection: Connection, name: str) -> bool:
    qualified = "SELECT to_regclass(quote_ident(current_schema()) || '.' || %(name)s) IS NOT NULL"
    return bool(connection.exec_driver_sql(qualified, {"name": name}).scalar())


def _is_whole(connection: Connection, state: SpecState) -> bool:
    """Whether the table exists and has a row for each vector; O(n)."""
    if not _exists(connection, table_name(state.id)):
        return False
    counted = (
        f"SELECT (SELECT count(*) FROM {table_name(state.id)})"  # noqa: S608 - numbers
        f" = (SELECT count(*) FROM fingerprints WHERE spec_id = {state.id:d})"
    )
    return bool(connection.exec_driver_sql(counted).scalar())


def _fill(connection: Connection, state: SpecState, schema: str) -> None:
    """Create the table, copy the vectors into it, and copy the grants of the vectors' table."""
    table = table_name(state.id)
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    connection.exec_driver_sql(
        f"CREATE TABLE {table} (spec_id integer NOT NULL, model_id integer PRIMARY KEY,"
        f" vector {schema}.vector({state.length}) NOT NULL)"
    )
    connection.exec_driver_sql(f"ALTER TABLE {table} ALTER vector SET STORAGE PLAIN")
    _copy(connection, state, table)
    connection.exec_driver_sql(
        f"ALTER TABLE {table} ADD FOREIGN KEY (spec_id, model_id)"
        " REFERENCES fingerprints (spec_id, model_id) ON DELETE CASCADE"
    )
    share(connection, table, like="fingerprints")


def _copy(connection: Connection, state: SpecState, table: str) -> None:
    """Fill the table by binary COPY: big-endian numbers, each after its length."""
    fields = [("fields", ">i2"), ("a", ">i4"), ("spec", ">i4"), ("b", ">i4"), ("model", ">i4"), ("c", ">i4")]
    layout = np.dtype([*fields, ("length", ">i2"), ("unused", ">i2"), ("vector", ">f4", (state.length,))])
    wanted = [fingerprints.c.spec_id == state.id]
    statement = f"COPY {table} (spec_id, model_id, vector) FROM STDIN (FORMAT binary)"
    # The driver does one thing at a time: the blocks come one by one, each copied on its own.
    for ids, vectors in vector_blocks(connection, wanted, state.length):
        rows = np.zeros(len(ids), layout)
        rows["fields"], rows["a"], rows["b"], rows["c"] = 3, 4, 4, 4 + 4 * state.length
        rows["spec"], rows["model"], rows["length"], rows["vector"] = state.id, ids, state.length, vectors
        with driver(connection) as below, below.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff")


def drop_index(connection: Connection, spec_hash: str | None = None) -> int:
    """Drop the indexes of a spec, or all; return the number of specs.

    Raises
    ------
    StorageError
        They are another role's.
    """
    wanted = select(specs.c.id, specs.c.name).where(specs.c.indexed.is_not(None))
    if spec_hash is not None:
        wanted = wanted.where(specs.c.hash == spec_hash)
    found = connection.execute(wanted.order_by(specs.c.id).with_for_update(key_share=True)).all()
    for spec_id, name in found:
        if not pgvector_index.discard(connection, spec_id) and _exists(connection, table_name(spec_id)):
            raise _anothers(name, spec_id)
        connection.execute(update(specs).where(specs.c.id == spec_id).values(indexed=None))
    return len(found)


def _anothers(name: str, spec_id: int) -> StorageError:
    return StorageError(
        f"the index of {name} belongs to another role", f"as its owner: DROP TABLE {table_name(spec_id)}"
    )


def report_index(connection: Connection, spec: FingerprintSpec, distance: str) -> IndexReport | None:
    """Compare the index of a spec and distance with the stored vectors; None without an index. O(n)."""
    check_distance(distance)
    state, _, facts = spec_facts(connection, spec.hash, distance)
    if state is None or state.indexed is None or facts is None:
        return None
    found = pgvector_index.opened(connection, state, facts, distance, spec.label)
    stored = connection.scalar(select(func.count()).select_from(fingerprints).where(fingerprints.c.spec_id == state.id))
    table = table_name(state.id)
    readable = pgvector_index.may(connection, table, "SELECT")
    missing, extra, held = 0 if readable is False else int(stored or 0), 0, 0
    if readable:
        counted = (
            f"SELECT (SELECT count(*) FROM {table}),"  # noqa: S608 - a number
            f" (SELECT count(*) FROM fingerprints AS f WHERE f.spec_id = {state.id:d} AND NOT EXISTS"
            f" (SELECT FROM {table} AS v WHERE v.model_id = f.model_id)),"
            f" (SELECT count(*) FROM {table} AS v WHERE NOT EXISTS"
            f" (SELECT FROM fingerprints AS f WHERE f.spec_id = {state.id:d} AND f.model_id = v.model_id))"
        )
        held, missing, extra = connection.exec_driver_sql(counted).one()
    problem = "" if found is None else found.problem
    remedy = found.remedy if found is not None and (problem or missing or extra) else ""
    return IndexReport(int(stored or 0), int(held), int(missing), int(extra), problem, remedy)
