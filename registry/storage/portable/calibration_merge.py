"""Import of calibrations."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from registry.errors import StorageError
from registry.storage.engine.dialects import insert_rows
from registry.storage.engine.schema import calibrations
from registry.storage.equivalence.stored_calibrations import drop_calibration
from registry.storage.portable.row_validation import rows_of
from registry.types.outcomes import Ingested

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

__all__ = ["calibrations_of", "merge_calibrations"]

MAX_CALIBRATIONS = 10_000
MAX_TEXT = 1_000


def calibrations_of(cells: Iterable[Sequence[Any]]) -> tuple[list[dict[str, Any]], list[Ingested]]:
    """Return the valid rows of ``calibrations``, without ids, and failures for the others."""
    found: list[dict[str, Any]] = []
    failed: list[Ingested] = []
    for number, each in enumerate(cells):
        try:
            if number >= MAX_CALIBRATIONS:
                raise StorageError(f"there are more than {MAX_CALIBRATIONS:,} calibrations")
            found.append(_checked(*rows_of(calibrations, [each])))
        except StorageError as error:
            name = f"calibration {number + 1}"
            failed.append(Ingested(name, name, "failed", 0.0, error.message, error.remedy or ""))
            if number >= MAX_CALIBRATIONS:
                break
    return found, failed


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    try:
        quantiles = [(float(fraction), float(distance)) for fraction, distance in json.loads(row["quantiles"])]
    except (TypeError, ValueError, RecursionError) as error:
        raise StorageError("its quantiles cannot be read") from error
    numbers = [number for pair in quantiles for number in pair]
    ascending = all(a <= b and c <= d for (a, c), (b, d) in pairwise(quantiles))
    if not quantiles or not ascending or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise StorageError("its quantiles do not ascend")
    if not 0 < row["rate"] < 1 or row["tolerance"] < 0:
        raise StorageError(f"its rate is {row['rate']} and its tolerance {row['tolerance']}")
    if not all(len(row[text]) <= MAX_TEXT and "\0" not in row[text] for text in ("spec_hash", "distance", "source")):
        raise StorageError("a text of it is too long or no text")
    return {name: value for name, value in row.items() if name != "id"}


def merge_calibrations(connection: Connection, given: Sequence[dict[str, Any]], *, replace: bool) -> int:
    """Store calibrations unless their spec and distance has one, or ``replace`` it; return their number."""
    keys = select(calibrations.c.spec_hash, calibrations.c.distance)
    held = set() if replace else {(spec_hash, distance) for spec_hash, distance in connection.execute(keys)}
    rows = list({key: row for row in given if (key := (row["spec_hash"], row["distance"])) not in held}.values())
    for row in rows:
        drop_calibration(connection, row["spec_hash"], row["distance"])
    insert_rows(connection, calibrations, rows)
    return len(rows)
