"""``python -m benchmarks.training [--folder F] [--json] [--write]``: networks of one topology.

Trains small networks on scikit-learn's digits, keeps them in the folder, and compares each with networks of its shapes
and another training: other seeds, its own initialisation, and shuffled, pruned, quantised and fine-tuned copies. Every
verdict is that of the registry at its default tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.spectral_specs import SPECTRAL
from benchmarks.training.epochs import epochs_apart
from benchmarks.training.families import RECIPES
from benchmarks.training.measure import measure
from benchmarks.training.networks import accuracy_of, train_all
from benchmarks.training.report import markdown, write_between
from benchmarks.training.scores import of_fingerprint, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
FOLDER = Path(tempfile.gettempdir()) / "archreg-training"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train missing networks, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"folder of the networks (default {FOLDER})")
    parser.add_argument("--json", action="store_true", help="every pair and every figure as one JSON document")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    begun = time.process_time()
    folder = train_all(options.folder, RECIPES, lambda name: print(f"training {name}", file=sys.stderr))
    trained = time.process_time()
    pairs = measure(folder, RECIPES)
    accuracies = [accuracy_of(folder / recipe.name / "trained.safetensors") for recipe in RECIPES]
    epochs = epochs_apart()
    done = time.process_time()
    print(f"{trained - begun:.0f} s of CPU to train, {done - trained:.0f} s to measure", file=sys.stderr)
    text = markdown(pairs, epochs, accuracies)
    if options.write:
        write_between(PAGE, text)
    if options.json:
        figures = {name: [asdict(row) for row in rows(of_fingerprint(pairs, name))] for name in SPECTRAL}
        document = {"rows": figures, "epochs": list(map(asdict, epochs)), "pairs": list(map(asdict, pairs))}
        print(json.dumps(document, indent=1))
    else:
        print(text)


if __name__ == "__main__":
    main()
