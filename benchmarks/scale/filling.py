"""Registries of many models made of the zoo's, written directly into the tables without reading weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import insert, select

from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.engine import schema
from registry.storage.models.packing import conjugacy_row, spec_row
from registry.storage.models.stored_cards import utc_now
from registry.storage.models.summaries import read_summaries
from registry.storage.models.vectors import read_conjugacy, read_fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection, Table

    from registry.types import Conjugacy, ModelSummary

__all__ = ["Real", "fill", "insert_rows", "perturbed", "real_models"]

BLOCK = 2_000
RARE = 0.01  # fraction of the models with the tag of the filtered search
TAG = ("stage", "rare")


class Real:
    """The zoo's models: summaries, vectors (m, d) and conjugacy."""

    def __init__(self, models: list[ModelSummary], vectors: NDArray[np.float32], figures: list[Conjugacy]) -> None:
        self.models, self.vectors, self.figures = models, vectors, figures


def real_models(url: str) -> Real:
    """The models of a registry under the ``layered`` spec."""
    with Store.open(url, mode="read") as store:
        ids, vectors = store.read(read_fingerprints, LAYERED.hash)
        models = {model.id: model for model in store.read(read_summaries)}
        figures = store.read(read_conjugacy, ids.tolist())
    return Real([models[i] for i in ids.tolist()], vectors, [figures[i] for i in ids.tolist()])


def perturbed(real: NDArray[np.float32], count: int, seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Vectors (count, d) made of real ones (m, d), and the index of the real vector each is made of.

    A vector is moved up to three tenths of the way towards another one; then each number changes by a twentieth of its
    standard deviation over the real vectors. Each row depends only on the seed and its index.
    """
    spread = real.std(axis=0)
    source = np.empty(count, np.intp)
    made = np.empty((count, real.shape[1]), np.float32)
    for start in range(0, count, BLOCK):
        rng = np.random.default_rng([seed, start])
        rows = slice(start, min(start + BLOCK, count))
        source[rows], other = rng.integers(len(real), size=(2, BLOCK))[:, : rows.stop - start]
        way = rng.uniform(0.0, 0.3, (BLOCK, 1))[: rows.stop - start]
        noise = rng.standard_normal((BLOCK, real.shape[1]))[: rows.stop - start]
        made[rows] = real[source[rows]] + way * (real[other] - real[source[rows]]) + 0.05 * spread * noise
    return source, made


def fill(url: str, real: Real, count: int, seed: int = 0) -> None:
    """Create a registry at ``url`` with models ``m0`` and so on, one in a hundred of them tagged."""
    source, vectors = perturbed(real.vectors, count, seed)
    Store.open(url, mode="create").close()
    with Store.open(url, mode="write") as store:
        store.write(lambda connection: _fill(connection, real, source, vectors))


def _fill(connection: Connection, real: Real, source: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
    now = utc_now()
    rng = np.random.default_rng(len(source))
    kinds = sorted({(model.architecture, model.family, model.topology) for model in real.models})
    connection.execute(insert(schema.architectures), [{"name": a, "family": f, "topology": t} for a, f, t in kinds])
    made = schema.architectures.c
    known = {(a, f, t): i for i, a, f, t in connection.execute(select(made.id, made.name, made.family, made.topology))}
    connection.execute(insert(schema.specs).values({**spec_row(LAYERED), "created": now, "stamp": 1}))
    [spec_id] = connection.scalars(select(schema.specs.c.id))
    for start in range(0, len(source), BLOCK):
        numbers = range(start, min(start + BLOCK, len(source)))
        of = [real.models[i] for i in source[start : numbers.stop]]
        sizes = rng.lognormal(0.0, 0.5, len(numbers))
        models = [
            {
                "id": n + 1, "content_hash": hashlib.sha256(f"{n}".encode()).hexdigest(), "topology": m.topology,
                "architecture_id": known[m.architecture, m.family, m.topology], "parameters": int(m.parameters * size),
                "bytes": int(m.bytes * size), "layers": m.layers, "task": m.task, "dataset": m.dataset,
                "licence": m.licence, "source": m.source, "revision": "", "recipe": "", "training": "",
                "tool_version": "", "matrix_rule": m.matrix_rule, "created": now,
            }
            for n, m, size in zip(numbers, of, sizes, strict=True)
        ]  # fmt: skip
        insert_rows(connection, schema.models, models)
        insert_rows(connection, schema.names, [{"name": f"m{n}", "model_id": n + 1, "created": now} for n in numbers])
        figures = [conjugacy_row(n + 1, real.figures[i], 2) for n, i in zip(numbers, source[numbers], strict=True)]
        insert_rows(connection, schema.conjugacy, figures)
        rare = [{"model_id": n + 1, "key": TAG[0], "value": TAG[1]} for n in numbers if n % round(1 / RARE) == 0]
        insert_rows(connection, schema.tags, rare)
        rows = [
            {"spec_id": spec_id, "model_id": n + 1, "vector": vector.astype("<f4").tobytes(), "stamp": 1}
            for n, vector in zip(numbers, vectors[start : numbers.stop], strict=True)
        ]
        insert_rows(connection, schema.fingerprints, rows)
    if connection.dialect.name == "postgresql":
        for table in ("models", "names"):
            last = f"(SELECT max(id) FROM {table})"  # noqa: S608 - constants
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")
        connection.exec_driver_sql("ANALYZE")


def insert_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, on Postgres by COPY."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(insert(table), rows)
        return
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table.name} ({', '.join(rows[0])}) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(list(row.values()))
