"""``python -m benchmarks.relations.stored_bytes [--db FILE] [--write]``: bytes of sketches and of figures of weights.

By model and by layer, of a registry in an SQLite file; without ``--db`` of the published models that ship.
"""

from __future__ import annotations

import argparse
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.speed.harness import rewrite
from registry.equivalence.sketches import buckets_for
from registry.shipped import shipped_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Stored", "main", "stored", "table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MANY = 128
"""Layers up to which a model's sketches have a bounded size."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of a model with so many layers: its sketches, and of its figures those of layers and the others."""

    layers: int
    sketches: int
    figures: int
    statistics: int


def stored(file: Path) -> list[Stored]:
    """The models of a registry that have sketches and figures of weights."""
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT models.layers, length(sketches.data), length(weight_figures.layers), "
            "length(CAST(weight_figures.statistics AS BLOB)) FROM models "
            "JOIN sketches ON sketches.model_id = models.id JOIN weight_figures ON weight_figures.model_id = models.id"
        ).fetchall()
    return [Stored(*row) for row in rows]


def table(models: Sequence[Stored]) -> list[str]:
    """A row for each kind of bytes; a mean by layer is that of all layers, and *more* is what one more layer takes."""
    sizes = {
        "sketches": [each.sketches for each in models],
        "figures of weights": [each.figures + each.statistics for each in models],
    }
    sizes["both"] = [sum(both) for both in zip(*sizes.values(), strict=True)]
    [figures] = {each.figures / each.layers for each in models}  # as many for each layer
    more = {"sketches": 2.0 * buckets_for(MANY + 1), "figures of weights": figures}
    more["both"] = sum(more.values())
    layers = sum(each.layers for each in models)
    most = max(each.layers for each in models)
    lines = [
        f"{len(models)} models of {min(each.layers for each in models)} to {most} layers, {layers:,} in all.",
        "",
        f"| bytes of | a model, median | mean | largest | a layer, mean | a layer more, beyond {MANY} |",
        "| --- " * 6 + "|",
    ]
    for name, values in sizes.items():
        figured = (np.median(values), np.mean(values), max(values), sum(values) / layers, more[name])
        lines.append(f"| {name} | {' | '.join(f'{value:,.0f}' for value in figured)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Read sizes and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relations.stored_bytes", description=__doc__)
    parser.add_argument("--db", type=Path, help="an SQLite file (default: the published models)")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    lines = table(stored(options.db or shipped_file("published")))
    print("\n".join(lines))
    if options.write:
        rewrite(PAGE, "stored-bytes", ["\n".join(lines)])


if __name__ == "__main__":
    main()
