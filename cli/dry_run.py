"""Output of ``ingest --dry-run``: the plan and its expected cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.cli import json_output, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Estimate, Ingested, LeftOut, Plan

__all__ = ["left_out_files", "show_plan"]

REASONS = 6  # reasons told apart in a sentence


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
    tables.hint(*left_out_files(refs.left_out))


def left_out_files(left_out: Sequence[LeftOut]) -> list[str]:
    """A sentence on files that no model is read from, with the reasons: the most frequent, and the first names."""
    if not left_out:
        return []
    told = [_reason(each) for each in left_out[:REASONS]]
    if len(left_out) > REASONS:
        told.append(f"{tables.whole(sum(each.files for each in left_out[REASONS:]))} others")
    return [f"{tables.counted(sum(each.files for each in left_out), 'file')} left out: {', '.join(told)}."]


def _reason(each: LeftOut) -> str:
    shown = each.names[:1] if each.files > 1 else each.names
    more = ", ..." if each.files > len(shown) else ""
    return f"{tables.whole(each.files)} {each.reason} ({', '.join(shown)}{more})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
