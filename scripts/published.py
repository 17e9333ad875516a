"""Build the published registry, which ships as ``published:``, from the zoo.

python scripts/published.py [-o FILE]

Some ten seconds. Every model of the zoo's manifest is measured in this process: names, cards, metrics, layers, spectra,
fingerprints of all shipped specs, conjugacy figures, sketches and figures of the weights; no weights, no journal and
no calibration. What differs from build to build or from machine to machine is left out or set: times, and the places
that the files were read from, with the hashes that these are part of. Two builds on one machine are equal byte for
byte; on another machine, eigenvalues and what follows from them agree to rounding.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from contextlib import closing
from importlib import import_module
from pathlib import Path

from threadpoolctl import threadpool_limits

from registry import Registry
from registry.atomic_files import whole_file
from registry.shipped import FOLDER, SHIPPED, checksum_file, checksum_of

__all__ = ["LARGEST", "build"]

LARGEST = 6_000_000
"""Bytes that the file may have."""
STORED = "2026-12-01 00:00:00.000000"  # when models, names and specs are said to be stored: a build has no time
PAGE = 1024  # bytes: 6 % smaller than with SQLite's 4,096, as most tables are small; no question takes longer


def build(zoo: Path, target: Path) -> int:
    """Write the registry of the zoo's models to ``target``, and its checksum beside it; return the number of models.

    Raises ``SystemExit`` where a model cannot be read or the file is too large; what is there stays.
    """
    with tempfile.TemporaryDirectory() as name, threadpool_limits(limits=1):
        folder = Path(name)
        with Registry(folder / "ingested.db") as reg:
            # One by one, in the manifest's order: ids follow the order in which models are stored.
            plan = reg.plan(manifest=zoo / "manifest.jsonl")
            results = [result for ref in plan for result in reg.ingest_all([ref], executor="inprocess")]
            if left := [result for result in results if result.status != "added"]:
                raise SystemExit(f"{left[0].name}: {left[0].status} {left[0].message}")
            exported = reg.export(folder / "exported.db")
        if exported.failed or exported.added != len(results):
            raise SystemExit(f"{exported.added} of {len(results)} models were exported")
        with closing(sqlite3.connect(folder / "exported.db", isolation_level=None)) as connection:
            settle(connection)
        size = (folder / "exported.db").stat().st_size
        if size > LARGEST:
            raise SystemExit(f"the file would have {size:,} bytes, more than {LARGEST:,}")
        with whole_file(target) as partial:
            partial.write_bytes((folder / "exported.db").read_bytes())
        checksum_file(target).write_text(f"{checksum_of(target)}\n", encoding="ascii")
    return exported.added


def settle(connection: sqlite3.Connection) -> None:
    """Take out times and places, and pack the file: one without a log, which opens immutable."""
    connection.execute("UPDATE models SET created = ?, location = '', header_hash = ''", [STORED])
    connection.execute("UPDATE names SET created = ?", [STORED])
    connection.execute("UPDATE specs SET created = ?", [STORED])
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute(f"PRAGMA page_size={PAGE}")
    connection.execute("VACUUM")


def main(arguments: list[str]) -> int:
    """Build the file and print its size."""
    parser = argparse.ArgumentParser(description="Build the published registry from the zoo.")
    parser.add_argument("-o", type=Path, default=FOLDER / SHIPPED["published"], metavar="FILE", dest="target")
    target = parser.parse_args(arguments).target
    sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is there, not the checkout
    zoo: Path = import_module("benchmarks.zoo").zoo_folder()
    models = build(zoo, target)
    print(f"{target}: {models} models, {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
