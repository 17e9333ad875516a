"""``python -m benchmarks.advice [--folder F] [--write]``: what a swap of models costs, on networks with known scores.

Trains small networks of nine families on four data sets, keeps their weights and predictions in the folder, ingests
them, and compares the registry's answers with the scores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.advice.answers import answers
from benchmarks.advice.correlations import correlations
from benchmarks.advice.coverage import coverages
from benchmarks.advice.recipes import RECIPES
from benchmarks.advice.report import markdown
from benchmarks.advice.scored import ingest, scored
from benchmarks.advice.training import read_trained, train_missing
from benchmarks.speed.harness import rewrite
from registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
FOLDER = Path(tempfile.gettempdir()) / "archreg-advice"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train missing networks, ask, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advice", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"folder of the networks (default {FOLDER})")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    begun = time.process_time()
    networks = read_trained(train_missing(options.folder, RECIPES, _tell), RECIPES)
    trained = time.process_time()
    with tempfile.TemporaryDirectory() as folder, Registry(f"sqlite:///{folder}/models.db") as reg:
        ingest(reg, networks)
        galleries = scored(reg, networks)
        _tell(f"{len(networks)} networks are stored and compared")
        found = answers(reg, galleries, networks)
    _tell(f"{len(found)} questions are asked")
    held = [each for gallery in galleries for each in coverages(gallery, [a for a in found if a.task == gallery.task])]
    _tell("intervals are learned")
    text = markdown(galleries, correlations(galleries), found, held)
    done = time.process_time()
    _tell(f"{trained - begun:.0f} s of CPU to train, {done - trained:.0f} s to measure")
    if options.write:
        rewrite(PAGE, "advice", [text])
    print(text)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
