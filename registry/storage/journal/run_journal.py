"""Journal of ingests: runs and items. The outcome of an item is written in one transaction with its model.

A run is known by the hash of its plan. A second start goes on with the newest run of that plan, unless that one is at
work: then it becomes a run beside it, and each takes over what the other has finished.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, insert, select, text, update

from registry.errors import UsageError
from registry.storage.engine.schema import items, names, runs
from registry.storage.journal.run_history import is_alive, unknown
from registry.storage.models.stored_cards import utc_now
from registry.types.runs import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "Begun",
    "Entry",
    "NewRun",
    "adopt_items",
    "beat_run",
    "begin_run",
    "finished_elsewhere",
    "end_run",
    "forget_runs",
    "record_entries",
]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A new run: hash of the plan, command, options as JSON, and items (reference, name, cost)."""

    plan: str
    command: str
    options: str
    tool_version: str
    items: Sequence[tuple[str, str, float]]


@dataclass(frozen=True, slots=True)
class Begun:
    """A started run: ``done`` holds the states of finished items by position; ``beside``: another run is active."""

    id: int
    done: dict[int, str]
    beside: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """Outcome of an item. ``state`` is empty if storing its model decides it."""

    run_id: int
    position: int
    seconds: float
    state: str = ""
    message: str = ""
    remedy: str = ""


def begin_run(connection: Connection, new: NewRun) -> Begun:
    """Start a run, or continue the one with the same plan; O(n) rows.

    An item counts as finished while its reference is the same (a changed file has another) and its name still belongs
    to the model that it led to.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:plan))"), {"plan": new.plan})
    found = connection.execute(select(runs).where(runs.c.plan == new.plan).order_by(runs.c.id.desc()).limit(1)).first()
    beside = found is not None and _is_anothers(found)
    kept = {} if found is None else _finished(connection, found.id)
    if found is None or beside:
        run_id = _insert(connection, new)
        done = {position: row for position, row in kept.items() if _same(row.reference, new.items[position][0])}
        _copy(connection, run_id, done.values())
    else:
        run_id = found.id
        now = utc_now()
        values = {
            "state": "running",
            "worker": _worker(),
            "heartbeat": now,
            "finished": None,
            "tool_version": new.tool_version,
        }
        connection.execute(update(runs).where(runs.c.id == run_id).values(values))
        done = _renewed(connection, run_id, new, kept)
    return Begun(run_id, {position: row.state for position, row in done.items()}, beside)


def _insert(connection: Connection, new: NewRun) -> int:
    now = utc_now()
    values = {
        "plan": new.plan,
        "command": _plain(new.command),
        "options": new.options,
        "state": "running",
        "tool_version": new.tool_version,
        "worker": _worker(),
        "started": now,
        "heartbeat": now,
    }
    made = connection.execute(insert(runs).values(values)).inserted_primary_key
    run_id = int(made[0]) if made is not None else 0
    rows = [
        {"run_id": run_id, "position": position, **_waiting(reference, cost), "name": _plain(name)}
        for position, (reference, name, cost) in enumerate(new.items)
    ]
    if rows:
        connection.execute(insert(items), rows)
    return run_id


def _waiting(reference: str, cost: float) -> dict[str, Any]:
    return {"reference": reference, "cost": cost, "state": "waiting", "attempts": 0, "error": "", "remedy": ""}


def _finished(connection: Connection, run_id: int) -> dict[int, Row[*tuple[Any, ...]]]:
    statement = (
        select(items.c.position, items.c.reference, items.c.state, items.c.seconds, items.c.model_id)
        .join(names, and_(names.c.name == items.c.name, names.c.model_id == items.c.model_id))
        .where(items.c.run_id == run_id, items.c.state.in_(DONE))
    )
    return {row.position: row for row in connection.execute(statement)}


def _renewed(
    connection: Connection, run_id: int, new: NewRun, kept: dict[int, Row[*tuple[Any, ...]]]
) -> dict[int, Row[*tuple[Any, ...]]]:
    """Reset items that are no longer finished to waiting, and return the finished ones."""
    again, done = [], {}
    states = connection.execute(select(items.c.position, items.c.reference, items.c.state).filter_by(run_id=run_id))
    for position, reference, state in states.all():
        same = _same(reference, new.items[position][0])
        if position in kept and same:
            done[position] = kept[position]
        elif state in DONE or not same:
            again.append({"at": position, "now": new.items[position][0]})
    if again:
        statement = update(items).where(items.c.run_id == run_id, items.c.position == bindparam("at"))
        connection.execute(statement.values(reference=bindparam("now"), state="waiting", model_id=None), again)
    return done


def _same(old: str, new: str) -> bool:
    """Whether two references name the same content; the field ``cached`` is ignored."""
    return old == new or json.loads(old) | {"cached": True} == json.loads(new) | {"cached": True}


def _copy(connection: Connection, run_id: int, rows: Iterable[Row[*tuple[Any, ...]]]) -> None:
    values = [
        {"at": row.position, "state": row.state, "seconds": row.seconds, "model_id": row.model_id} for row in rows
    ]
    if values:
        connection.execute(update(items).where(items.c.run_id == run_id, items.c.position == bindparam("at")), values)


def record_entries(connection: Connection, given: Sequence[tuple[Entry, int | None]]) -> None:
    """Write outcomes of items with their models, and the heartbeats of their runs."""
    rows = [
        {
            "run": entry.run_id,
            "at": entry.position,
            "state": entry.state,
            "error": _plain(entry.message) if entry.state == "failed" else "",
            "remedy": _plain(entry.remedy) if entry.state == "failed" else "",
            "seconds": entry.seconds,
            "model_id": model_id,
        }
        for entry, model_id in given
    ]
    where = (items.c.run_id == bindparam("run"), items.c.position == bindparam("at"))
    connection.execute(update(items).where(*where).values(attempts=items.c.attempts + 1), rows)
    for run_id in {entry.run_id for entry, _ in given}:
        beat_run(connection, run_id)


def beat_run(connection: Connection, run_id: int) -> None:
    """Write a heartbeat of the run."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(heartbeat=utc_now()))


def end_run(connection: Connection, run_id: int, state: str) -> None:
    """Write the final state of the run: ``done``, ``interrupted`` or ``stopped``."""
    now = utc_now()
    connection.execute(update(runs).where(runs.c.id == run_id).values(state=state, heartbeat=now, finished=now))


def forget_runs(connection: Connection, *, run_id: int | None = None, before: datetime | None = None) -> int:
    """Delete one run, or all with a last heartbeat before ``before``; return their number. O(n) in items.

    Runs at work stay: a plan of theirs could not be gone on with.

    Raises
    ------
    UsageError
        There is no run of that id, or it is at work.
    """
    wanted = [runs.c.id == run_id] if before is None else [runs.c.heartbeat < before]
    states = select(runs.c.id, runs.c.heartbeat, runs.c.worker).where(*wanted)
    if before is None and connection.execute(states).first() is None:
        raise unknown(int(run_id or 0))
    at_work = [row.id for row in connection.execute(states.where(runs.c.state == "running")) if _beats(row)]
    if before is None and at_work:
        raise UsageError(f"run {run_id} is at work", "stop it first: archreg runs show tells its process")
    return connection.execute(delete(runs).where(*wanted, runs.c.id.not_in(at_work))).rowcount


def _beats(run: Row[*tuple[Any, ...]]) -> bool:
    return is_alive(run.heartbeat, run.worker)


def finished_elsewhere(connection: Connection, run_id: int) -> dict[int, int]:
    """Return waiting items that other runs of the plan have finished: the model id by position."""
    theirs = items.alias()
    plan = select(runs.c.plan).where(runs.c.id == run_id).scalar_subquery()
    others = select(runs.c.id).where(runs.c.plan == plan, runs.c.id != run_id)
    statement = (
        select(items.c.position, theirs.c.model_id)
        .join(theirs, and_(theirs.c.position == items.c.position, theirs.c.reference == items.c.reference))
        .where(items.c.run_id == run_id, items.c.state == "waiting")
        .where(theirs.c.run_id.in_(others), theirs.c.state.in_(DONE), theirs.c.model_id.is_not(None))
    )
    return {row.position: row.model_id for row in connection.execute(statement)}


def adopt_items(connection: Connection, run_id: int, found: Mapping[int, int]) -> None:
    """Mark the items found by `finished_elsewhere` as ``known``."""
    statement = update(items).where(items.c.run_id == run_id, items.c.position == bindparam("at"))
    rows = [{"at": position, "model": model_id} for position, model_id in found.items()]
    connection.execute(statement.values(state="known", model_id=bindparam("model")), rows)


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_anothers(run: Row[*tuple[Any, ...]]) -> bool:
    return run.state == "running" and run.worker != _worker() and _beats(run)


def _plain(words: str) -> str:
    """``words`` with lone surrogates and NUL escaped."""
    return words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
