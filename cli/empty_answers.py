"""Why nothing is left, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.cli import tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.types import Removal

__all__ = ["show_removals", "unmatched_texts"]


def show_removals(removals: Sequence[Removal]) -> None:
    """What each constraint removed, and which one, dropped, would leave something."""
    columns = ("constraint", ">fail it", ">unknown", ">left without it")
    tables.table(columns, map(_row, removals))
    for removal in removals:
        if removal.near:
            tables.say(_unmatched(removal.constraint, removal.near))
    helping = [f"without '{x.constraint}' {tables.whole(x.without)} would pass" for x in removals if x.without]
    if len(removals) > 1 or helping:
        tables.say("; ".join(helping) or "no single constraint is to blame: more than one has to go")


def unmatched_texts(filters: Mapping[str, Any], unmatched: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each text among the filters that no model has, with those that may have been meant."""
    return [_unmatched(f"{field} {filters[field]}", near) for field, near in unmatched.items()]


def _unmatched(constraint: str, near: Sequence[str]) -> str:
    return f"no model has {constraint}" + (f"; near: {', '.join(near)}" if near else "")


def _row(removal: Removal) -> tuple[str, ...]:
    unknown = tables.whole(removal.unknown) if removal.unknown else ""
    return (removal.constraint, tables.whole(removal.removes), unknown, tables.whole(removal.without))
