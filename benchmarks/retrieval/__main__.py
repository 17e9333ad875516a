"""``python -m benchmarks.retrieval [MANIFEST] [--write]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.retrieval.run import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description="family retrieval")
    parser.add_argument(
        "manifest",
        nargs="?",
        type=Path,
        help="JSONL or CSV that names families (default: the zoo's; without the zoo, published:)",
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md too")
    options = parser.parse_args()
    main(options.manifest, write=options.write)
