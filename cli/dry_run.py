"""Output of ``ingest --dry-run``: the plan and its expected cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.cli import json_output, tables
from registry.cli.ingest_report import left_out_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Estimate, Ingested, Plan

__all__ = ["show_plan"]


def show_plan(refs: Plan, failures: Sequence[Ingested], estimate: Estimate, *, as_json: bool = False) -> None:
    """Print what would be read and downloaded, with sizes, expected time and memory."""
    known = [ref.bytes for ref in refs if ref.bytes is not None]
    missing = [ref.bytes or 0 for ref in refs if not ref.cached]
    if as_json:
        models = [
            {
                "name": ref.name,
                "source": ref.source,
                "target": ref.target,
                "bytes": ref.bytes,
                "cached": ref.cached,
                "estimate": expected,
            }
            for ref, expected in zip(refs, estimate.models, strict=True)
        ]
        totals = {
            "bytes": sum(known),
            "download_bytes": sum(missing),
            "unknown_sizes": len(refs) - len(known),
            "estimated_seconds": estimate.seconds,
            "estimated_memory": estimate.memory,
            "workers": estimate.workers,
        }
        json_output.write({"models": models, "failures": failures, **totals, "left_out": refs.left_out})
        return
    rows = [(r.name, f"{r.source}:{r.target}", tables.size(r.bytes), "" if r.cached else "download") for r in refs]
    tables.table(("name", "reference", ">size", "to do"), rows)
    unknown = f" and {len(refs) - len(known)} of unknown size" if len(known) < len(refs) else ""
    processes = f"{estimate.workers} worker processes" if estimate.workers > 1 else "one process"
    tables.say(
        f"To read: {tables.counted(len(refs), 'model')}, {tables.size(sum(known))}{unknown}.",
        f"To download: {tables.counted(len(missing), 'model')}, {tables.size(sum(missing))}.",
        f"Estimate without downloads: {_duration(estimate.seconds)} and {tables.size(estimate.memory)} of memory "
        f"in {processes}.",
    )
    if refs.left_out:
        tables.table((">files left out", "reason", "such as", "next"), left_out_rows(refs.left_out))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
