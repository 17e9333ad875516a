"""Output of ``ingest --dry-run``: the plan and its expected cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.cli import json_output, tables
from registry.cli.ingest_report import left_out_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Estimate, Ingested, Plan

__all__ = ["show_plan"]


def show_plan(
    refs: Plan,
    failures: Sequence[Ingested],
    estimate: Estimate,
    *,
    headers_only: bool = False,
    as_json: bool = False,
) -> None:
    """Print what would be read and downloaded, with sizes, expected time and memory."""
    headers = [model.header_bytes for model in estimate.models if model.header_bytes is not None]
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
            **({"header_bytes": sum(headers), "unknown_headers": len(refs) - len(headers)} if headers_only else {}),
        }
        json_output.write({"models": models, "failures": failures, **totals, "left_out": refs.left_out})
        return
    rows = [
        (
            ref.name,
            f"{ref.source}:{ref.target}",
            tables.size(ref.bytes),
            tables.size(expected.header_bytes) if headers_only else "",
            "" if ref.cached or headers_only else "download",
        )
        for ref, expected in zip(refs, estimate.models, strict=True)
    ]
    tables.table(("name", "reference", ">size", ">header", "to do"), rows)
    unknown = f" and {len(refs) - len(known)} of unknown size" if len(known) < len(refs) else ""
    processes = f"{estimate.workers} worker processes" if estimate.workers > 1 else "one process"
    to_read: tuple[str, ...] = (
        f"To read: {tables.counted(len(refs), 'model')}, {tables.size(sum(known))}{unknown}.",
        f"To download: {tables.counted(len(missing), 'model')}, {tables.size(sum(missing))}.",
    )
    if headers_only:
        rest = f" and {len(refs) - len(headers)} of unknown size" if len(headers) < len(refs) else ""
        to_read = (
            f"To read: the headers of {tables.counted(len(refs), 'model')}, {tables.size(sum(headers))}{rest}; no "
            f"weights, which are {tables.size(sum(known))}{unknown}.",
            "A GGUF file keeps its tokenizer in its header: 5.5 MB for 150,000 entries.",
        )[: 2 if any(ref.source == "gguf" for ref in refs) else 1]
    tables.say(
        *to_read,
        f"Estimate without downloads: {_duration(estimate.seconds)} and {tables.size(estimate.memory)} of memory "
        f"in {processes}.",
    )
    if refs.left_out:
        tables.table((">files left out", "reason", "such as", "next"), left_out_rows(refs.left_out))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
