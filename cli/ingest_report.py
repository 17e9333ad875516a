"""Report at the end of an ingest: what was read, what was left out and why, and what failed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from registry.cli import json_output, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.types import Ingested, LeftOut

__all__ = ["left_out_rows", "show_outcomes"]

NOTES = 10  # notes shown at most
FAILURES = 20  # failures shown at most; each was reported when it happened


def show_outcomes(outcomes: Sequence[Ingested], left_out: Sequence[LeftOut] = (), *, as_json: bool) -> None:
    """Print how many models were added, named, known or failed, what was noted, and a table of what was not read."""
    counts = Counter(outcome.status for outcome in outcomes)
    words = {
        "added": "added",
        "renewed": "measured anew",
        "named": "given another name",
        "known": "already stored",
        "failed": "failed",
    }
    if as_json:
        json_output.write({"models": outcomes, **{status: counts[status] for status in words}, "left_out": left_out})
        return
    told = ", ".join(f"{counts[status]} {text}" for status, text in words.items() if counts[status])
    tables.say(f"Models: {told}." if told else "No models to read.")
    _show_notes(outcomes)
    if left_out or (counts["failed"] and len(outcomes) > 1):
        rows = [("read", tables.whole(sum(counts[status] for status in words if status != "failed")), "", "", "")]
        rows += [("left out", *row) for row in left_out_rows(left_out)]
        rows += _failed([outcome for outcome in outcomes if outcome.status == "failed"])
        tables.table(("", ">files", "reason", "such as", "next"), rows)


def left_out_rows(left_out: Sequence[LeftOut]) -> Iterator[tuple[str, str, str, str]]:
    """Number, reason, first names and remedy of the files that no model is read from."""
    for each in left_out:
        shown = each.names[:1] if each.files > 1 else each.names
        yield tables.whole(each.files), each.reason, ", ".join(shown), each.remedy


def _failed(failures: Sequence[Ingested]) -> list[tuple[str, str, str, str, str]]:
    """Models that failed, those of one reason together; the path is not told twice."""
    groups: dict[tuple[str, str], list[Ingested]] = {}
    for failure in failures:
        reason = failure.message.removeprefix(failure.reference).lstrip(": ,") or failure.message
        groups.setdefault((reason, failure.remedy), []).append(failure)
    shown = list(groups.items())[:FAILURES]
    rows = [
        ("failed", tables.whole(len(group)), reason, group[0].name or group[0].reference, remedy)
        for (reason, remedy), group in shown
    ]
    rest = len(failures) - sum(len(group) for _, group in shown)
    if rest:
        rows.append(("failed", tables.whole(rest), "others: archreg runs failures", "", ""))
    return rows


def _show_notes(outcomes: Sequence[Ingested]) -> None:
    """What was noted of each model, the models of one note together."""
    noted: dict[str, list[str]] = {}
    for outcome in outcomes:
        for note in outcome.notes:
            noted.setdefault(note, []).append(outcome.name)
    for note, names in list(noted.items())[:NOTES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        tables.hint(f"{names[0]}{more}: {note}.")
    if len(noted) > NOTES:
        tables.hint(f"{tables.counted(len(noted) - NOTES, 'more note')}: archreg show NAME lists those of a model.")
