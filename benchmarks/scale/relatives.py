"""``python -m benchmarks.scale.relatives [--write] [--sizes N,N]``: the cost of `related` by size of registry.

Models are those of the zoo, whose sketches are made anew: three in ten descend from the zoo's model, with a
correlation of 0.2 to 1 in each layer, the others are strangers of the same shapes. Each registry is asked in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import insert, select

from benchmarks.scale.filling import Real, fill, insert_rows, perturbed, real_models
from benchmarks.scale.server import postgres
from benchmarks.speed.harness import load_note, machine_load, rewrite
from registry import Registry
from registry.storage import Store
from registry.storage.engine import schema
from registry.storage.models.vectors import read_sketches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "relatives"
SIZES = (1_000, 10_000, 100_000)
ROUNDS = 40
BLOCK = 2_000
RELATED = 0.3
"""Fraction of the models that descend from the zoo's."""


def draw(real: NDArray[np.float16], count: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Sketches (count, layers, buckets) of descendants and strangers of a model whose sketches are given."""
    own = real.astype(np.float32)
    made = rng.standard_normal((count, *own.shape), dtype=np.float32) / np.float32(np.sqrt(own.shape[1]))
    way = np.where(rng.random(count) < RELATED, rng.uniform(0.2, 1.0, count), 0.0).astype(np.float32)[:, None, None]
    made = way * own + np.sqrt(1 - way**2) * made
    return np.asarray(made * own.any(axis=1)[None, :, None], np.float16)


def add_sketches(url: str, zoo: str, real: Real, count: int) -> None:
    """Give the models of a filled registry the layers of the zoo's models, and sketches made of theirs."""
    source = perturbed(real.vectors, count)[0]
    with Store.open(zoo, mode="read") as store:
        drawn = {at: store.read(read_sketches, real.models[at].id) for at in np.unique(source).tolist()}
        layers = {at: store.read(_layers, real.models[at].id) for at in drawn}
    with Store.open(url, mode="write") as store:
        store.write(_add, source, layers, drawn)


def _layers(connection: Connection, model_id: int) -> list[dict[str, Any]]:
    found = connection.execute(select(schema.layers).where(schema.layers.c.model_id == model_id))
    return [dict(row) for row in found.mappings()]


def _add(connection: Connection, source: NDArray[np.intp], layers: dict[int, Any], drawn: dict[int, Any]) -> None:
    columns = [f'"{column.name}"' for column in schema.layers.columns if column.name != "model_id"]
    for at, rows in layers.items():
        models = np.flatnonzero(source == at) + 1
        connection.execute(insert(schema.layers), [{**row, "model_id": int(models[0])} for row in rows])
        others = ",".join(map(str, models[1:].tolist()))
        if others:  # all in one statement: millions of rows
            told = ", ".join(columns)
            copied = f"SELECT * FROM layers WHERE model_id = {models[0]}"  # noqa: S608 - a number
            chosen = f"SELECT m.id, {told} FROM models m CROSS JOIN ({copied}) l WHERE m.id IN ({others})"  # noqa: S608
            connection.exec_driver_sql(f"INSERT INTO layers (model_id, {told}) {chosen}")
        its = drawn[at]
        for start in range(0, len(models), BLOCK):
            some = models[start : start + BLOCK]
            values = draw(its.values, len(some), np.random.default_rng([at, start]))
            rows = [
                {"model_id": int(model), "version": its.version, "buckets": values.shape[2], "data": each.tobytes()}
                for model, each in zip(some, values, strict=True)
            ]
            insert_rows(connection, schema.sketches, rows)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE")


def ask(url: str) -> dict[str, Any]:
    """Seconds of the first question and of later ones, each model asked about twice; memory at the end."""
    found: dict[str, Any] = {"first": 0.0}
    found |= {kind: [] for kind in ("again", "warm", "cpu", "exactly", "found", "compared")}
    with Registry(url) as reg:
        count = len(reg)
        names = [f"m{number}" for number in np.random.default_rng(1).integers(count, size=ROUNDS)]
        begun = time.perf_counter()
        reg.related(names[0])
        found["first"] = time.perf_counter() - begun
        for kind in ("again", "warm"):  # the first time, topologies are read and aligned
            for name in names:
                begun, worked = time.perf_counter(), time.process_time()
                told = reg.related(name)
                found[kind].append(time.perf_counter() - begun)
                found["cpu"].append(time.process_time() - worked)
                found["exactly"].append(told.exactly)
                found["compared"].append(told.compared)
                found["found"].append(told.found)
                assert not told.cut
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS")]
    found["memory"] = int(line.split()[1]) * 1024
    return found


def row(title: str, size: int, found: dict[str, Any]) -> str:
    """Table row of one registry."""
    warm, again = (np.quantile(1e3 * np.array(found[kind]), [0.5, 0.95]) for kind in ("warm", "again"))
    compared, exactly, related = (np.mean(found[kind]) for kind in ("compared", "exactly", "found"))
    cpu = 1e3 * np.median(found["cpu"][ROUNDS:])
    return (
        f"| {title} | {size:,} | {compared:,.0f} | {exactly:,.0f} | {related:,.0f} | {found['first']:.2f} "
        f"| {again[0]:.3g} ({again[1]:.3g}) | {warm[0]:.3g} ({warm[1]:.3g}) | {cpu:.3g} | {found['memory'] / 1e6:.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each size on both databases and print the table row by row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.relatives", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of models")
    parser.add_argument("--one", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(ask(options.one)))
        return
    note = load_note(machine_load(), os.cpu_count() or 1)
    lines = [
        "| models of | models | compared | exactly | related | first, s | next, ms | warm, ms | of CPU | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print(note, *lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        zoo = "published:"
        every = real_models(zoo)
        at = [model.name for model in every.models].index("resnet-cifar/akamaster-resnet20")
        one = Real(every.models[at : at + 1], np.repeat(every.vectors[at : at + 1], 2, axis=0)[:1], every.figures[at:])
        for size in map(int, options.sizes.split(",")):
            for title, real in (("the zoo", every), ("one topology", one)):
                path = Path(folder) / f"{size}-{title.replace(' ', '-')}.db"
                lines.append(row(f"{title}, SQLite", size, _measured(str(path), zoo, real, size)))
                path.unlink()
                print(lines[-1], flush=True)
                with postgres() as pattern:
                    url = pattern.format("postgres")
                    lines.append(row(f"{title}, Postgres", size, _measured(url, zoo, real, size)))
                print(lines[-1], flush=True)
    if options.write:
        rewrite(PAGE, MARKER, [note, "\n".join(lines)])


def _measured(url: str, zoo: str, real: Real, size: int) -> dict[str, Any]:
    fill(url, real, size)
    add_sketches(url, zoo, real, size)
    words = [sys.executable, "-m", "benchmarks.scale.relatives", "--one", url]
    return dict(json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout))


if __name__ == "__main__":
    main()
