"""``python -m benchmarks.ingest``: the zoo into a new SQLite file from the command line, twice: seconds and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time

from benchmarks.zoo import zoo_folder

__all__ = ["main"]


def main() -> None:
    """Run ``archreg ingest --manifest`` on the zoo and print seconds and peak memory of each run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "registry.cli.app",
            "ingest",
            "--manifest",
            str(zoo_folder() / "manifest.jsonl"),
        ]
        for run in ("first", "second"):
            begun = time.perf_counter()
            subprocess.run([*command, "--db", f"{folder}/zoo.db", "--quiet"], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - begun
            # The largest child so far: the first run's stands in the second line too where it was the larger.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
            print(f"{run} run {seconds:5.1f} s, peak memory at most {peak:.2f} GB")


if __name__ == "__main__":
    main()
