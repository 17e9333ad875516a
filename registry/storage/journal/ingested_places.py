"""Where the journal says that stored models were ingested from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from registry.storage.engine.schema import items, runs
from registry.types.runs import DONE

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["read_ingested"]


def read_ingested(connection: Connection) -> list[tuple[int, str, str]]:
    """Return, for each finished item whose model is still stored, its id, the time of its run, and its reference.

    By run and position; the time, ISO 8601 in UTC, is the end of the run, or its last sign of life. The reference is
    the JSON text of the journal. One query, O(n) in the items.
    """
    time = func.coalesce(runs.c.finished, runs.c.heartbeat)
    statement = (
        select(items.c.model_id, time, items.c.reference)
        .join(runs, runs.c.id == items.c.run_id)
        .where(items.c.model_id.is_not(None), items.c.state.in_(DONE))
        .order_by(items.c.run_id, items.c.position)
    )
    return [
        (model, when.isoformat(timespec="seconds"), reference)
        for model, when, reference in connection.execute(statement)
    ]
