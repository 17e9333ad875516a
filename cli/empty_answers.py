"""Explanations of empty answers: the effect of each constraint, and unknown filter values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.cli import tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.types import Removal

__all__ = ["show_removals", "unmatched_texts"]


def show_removals(removals: Sequence[Removal], unit: str = "model") -> None:
    """Print how many models, or what is counted, each constraint removes, and how many pass without it."""
    columns = ("constraint", ">removes", ">unknown", ">pass without it")
    tables.table(columns, map(_row, removals))
    for removal in removals:
        if removal.near:
            tables.say(_unmatched(removal.constraint, removal.near))
    helping = [
        f"Without '{x.constraint}', {tables.counted(x.without, unit)} would pass." for x in removals if x.without
    ]
    if len(removals) > 1 or helping:
        tables.say(*helping or [f"No {unit} passes without any single constraint: drop more than one."])


def unmatched_texts(filters: Mapping[str, Any], unmatched: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each filter value that no model has, with similar known values."""
    return [_unmatched(f"{field} {filters[field]}", near) for field, near in unmatched.items()]


def _unmatched(constraint: str, near: Sequence[str]) -> str:
    return f"No model has {constraint}." + (f" Similar: {', '.join(near)}." if near else "")


def _row(removal: Removal) -> tuple[str, ...]:
    unknown = tables.whole(removal.unknown) if removal.unknown else ""
    return (removal.constraint, tables.whole(removal.removes), unknown, tables.whole(removal.without))
