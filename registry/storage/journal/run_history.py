"""Queries on the journal: runs, their state and their items."""

from __future__ import annotations

import json
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, func, select

from registry.errors import UsageError
from registry.storage.engine.schema import items, runs
from registry.storage.models.stored_cards import utc_now
from registry.types.runs import DONE, Run, RunItem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, RowMapping

__all__ = ["STALE", "is_alive", "list_runs", "list_items", "read_plan", "unknown"]

STALE: Final = timedelta(seconds=60)
"""A run whose heart has not beaten for so long is nobody's."""


def list_runs(connection: Connection, *, run_id: int | None = None, limit: int | None = None) -> list[Run]:
    """Return at most ``limit`` runs, the newest first, or the one with that id; O(n) in their items.

    Raises
    ------
    UsageError
        There is no run of that id.
    """
    done = func.sum(case((items.c.state.in_(DONE), 1), else_=0))
    failed = func.sum(case((items.c.state == "failed", 1), else_=0))
    counted = select(items.c.run_id, func.count().label("items"), done.label("done"), failed.label("failed")).group_by(
        items.c.run_id
    )
    if run_id is not None:
        counted = counted.where(items.c.run_id == run_id)
    elif limit is not None:
        counted = counted.where(items.c.run_id.in_(select(runs.c.id).order_by(runs.c.id.desc()).limit(limit)))
    count = counted.subquery()
    statement = select(runs, count).outerjoin(count, count.c.run_id == runs.c.id).order_by(runs.c.id.desc())
    statement = statement.limit(limit)
    if run_id is not None:
        statement = statement.where(runs.c.id == run_id)
    found = [_run(row) for row in connection.execute(statement).mappings()]
    if run_id is not None and not found:
        raise unknown(run_id)
    return found


def read_run(connection: Connection, run_id: int) -> Run:
    """Return one run. Raises `UsageError` if there is none with that id."""
    return list_runs(connection, run_id=run_id)[0]


def _run(row: RowMapping) -> Run:
    dead = row["state"] == "running" and not is_alive(row["heartbeat"], row["worker"])
    return Run(
        id=row["id"],
        state="died" if dead else row["state"],
        command=row["command"],
        plan=row["plan"],
        worker=row["worker"],
        tool_version=row["tool_version"],
        started=_iso(row["started"]),
        heartbeat=_iso(row["heartbeat"]),
        finished=None if row["finished"] is None else _iso(row["finished"]),
        **{name: int(row[name] or 0) for name in ("items", "done", "failed")},
    )


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def read_plan(connection: Connection, run_id: int) -> tuple[str, str, list[str]]:
    """Return the command, the options and the item references of a run.

    Raises
    ------
    UsageError
        There is no run of that id.
    """
    row = connection.execute(select(runs.c.command, runs.c.options).where(runs.c.id == run_id)).first()
    if row is None:
        raise unknown(run_id)
    found = connection.scalars(select(items.c.reference).where(items.c.run_id == run_id).order_by(items.c.position))
    return row.command, row.options, list(found)


def unknown(run_id: int) -> UsageError:
    """The error for an unknown run id."""
    return UsageError(f"there is no run {run_id}", "archreg runs list shows those there are")


def list_items(connection: Connection, run_id: int, states: Sequence[str] = ()) -> list[RunItem]:
    """Return the items of a run by position, all or those in some states."""
    statement = select(items).where(items.c.run_id == run_id).order_by(items.c.position)
    if states:
        statement = statement.where(items.c.state.in_(states))
    return [_item(row) for row in connection.execute(statement).mappings()]


def _item(row: RowMapping) -> RunItem:
    return RunItem(
        position=row["position"],
        reference=str(json.loads(row["reference"])["target"]),
        name=row["name"],
        state=row["state"],
        attempts=row["attempts"],
        seconds=row["seconds"],
        message=row["error"],
        remedy=row["remedy"],
    )


def is_alive(heartbeat: datetime, worker: str) -> bool:
    """Whether a run is active, by its heartbeat and, on this host, by its process."""
    host, _, process = worker.rpartition(":")
    if host == socket.gethostname() and process.isdigit() and not _exists(int(process)):
        return False
    return utc_now() - heartbeat < STALE


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
