"""``python -m benchmarks.speed [--write]``."""

from __future__ import annotations

import argparse

from benchmarks.speed import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="speed of the method, as ratios")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md too")
    main(write=parser.parse_args().write)
