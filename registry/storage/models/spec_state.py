"""State of a spec, which each search reads first in one statement."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, select

from registry.storage.engine import schema
from registry.storage.engine.compiled_statements import Compiled
from registry.storage.equivalence.stored_calibrations import SAME
from registry.storage.index.pgvector_index import INDEX_FACTS, IndexFacts
from registry.storage.models.records import SpecState
from registry.types.calibrations import Calibration

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, TextClause

__all__ = ["SpecFacts", "all_states", "spec_facts", "state_of"]

specs, calibrations = schema.specs, schema.calibrations


class SpecFacts(NamedTuple):
    """State of a spec (None if not stored), its calibration for a distance, and facts on its index."""

    state: SpecState | None
    calibration: Calibration | None
    facts: IndexFacts | None


_STATE: Final = tuple(specs.c[name] for name in SpecState._fields)
_OF_SPEC: Final = specs.c.hash == bindparam("spec")
_CALIBRATION: Final = tuple(calibrations.c[name] for name in (*SAME, "quantiles", "created"))
_CALIBRATED: Final = and_(
    calibrations.c.spec_hash == bindparam("spec"), calibrations.c.distance == bindparam("distance")
)


def _statement(*more: TextClause) -> Compiled:
    """Statement with one row if the spec is stored."""
    columns: Select[Any] = select(*_STATE, *_CALIBRATION, *more)
    return Compiled(columns.select_from(specs.outerjoin(calibrations, _CALIBRATED)).where(_OF_SPEC))


_STATEMENTS: Final = {"sqlite": _statement(), "postgresql": _statement(*INDEX_FACTS)}
_STATE_ALONE: Final = Compiled(select(*_STATE).where(_OF_SPEC))
_ALL_STATES: Final = Compiled(select(*_STATE).order_by(specs.c.id))
_CALIBRATION_ALONE: Final = Compiled(select(*_CALIBRATION).where(_CALIBRATED))


def state_of(connection: Connection, spec_hash: str) -> SpecState | None:
    """Return the state of a spec, None if it is not stored; one row by key."""
    row = _STATE_ALONE.first(connection, {"spec": spec_hash})
    return None if row is None else SpecState(*row)


def all_states(connection: Connection) -> tuple[SpecState, ...]:
    """Return the states of all stored specs, by id."""
    return tuple(SpecState(*row) for row in _ALL_STATES.rows(connection, {}))


def spec_facts(connection: Connection, spec_hash: str, distance: str) -> SpecFacts:
    """Return state, calibration and index facts of a spec and distance."""
    given = {"spec": spec_hash, "distance": distance}
    row = _STATEMENTS[connection.dialect.name].first(connection, given)
    if row is None:
        alone = _CALIBRATION_ALONE.first(connection, given)
        return SpecFacts(None, None if alone is None else _calibration(spec_hash, distance, alone), None)
    known, end = row[len(_STATE) :], len(_CALIBRATION)
    return SpecFacts(
        state=SpecState(*row[: len(_STATE)]),
        calibration=None if known[end - 1] is None else _calibration(spec_hash, distance, known[:end]),
        facts=IndexFacts(*known[end:]) if known[end:] else None,
    )


@lru_cache(maxsize=64)
def _calibration(spec_hash: str, distance: str, row: tuple[Any, ...]) -> Calibration:
    """Calibration of a `_CALIBRATION` row; cached, because parsing the quantiles is slow."""
    *same, quantiles, created = row
    return Calibration(
        spec_hash=spec_hash,
        distance=distance,
        quantiles=tuple((fraction, distance) for fraction, distance in json.loads(quantiles)),
        created=created.isoformat(timespec="seconds"),
        **dict(zip(SAME, same, strict=True)),
    )
