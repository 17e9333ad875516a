"""``python -m benchmarks.scale [--write] [--sizes N,N,...]``."""

from __future__ import annotations

import argparse

from benchmarks.scale.run import SIZES, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="cost of look-ups as n grows")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md too")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of models")
    given = parser.parse_args()
    main([int(size) for size in given.sizes.split(",")], write=given.write)
