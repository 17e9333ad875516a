"""Command ``distances``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from registry.cli import array_files, json_output, tables, verdict_text
from registry.cli.empty_answers import unmatched_texts
from registry.cli.options import AsJson, Database, filters, measure, open_registry, with_options

__all__ = ["distances"]


@with_options(measure=measure, filters=filters)
def distances(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.npz", help="Output file.")],
    db: Database = None,
    as_json: AsJson = False,
    *,
    measure: dict[str, Any],
    filters: dict[str, Any],
) -> None:
    """Write all pairwise distances to a NumPy file with the arrays names and distances."""
    import numpy as np

    array_files.check_output(output)
    with open_registry(db) as registry:
        names, matrix = registry.distances(**measure, **filters)
        unmatched = {} if names else registry.unmatched(**filters)
        old = {model.id for model in registry.older().models}
        older = len(old.intersection(model.id for model in registry.models(**filters))) if old else 0
    array_files.write_arrays(output, names=np.array(names, dtype=np.str_), distances=matrix)
    if as_json:
        json_output.write(
            {"file": str(output), "models": len(names), "older": older, **measure, **json_output.unmatched(unmatched)}
        )
    else:
        tables.say(f"Wrote the distances between {tables.counted(len(names), 'model')} to {output}.")
        tables.say(*verdict_text.older(older))
        tables.say(*unmatched_texts(filters, unmatched))
