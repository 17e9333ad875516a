"""How things stand with a spec, which every question reads first, and in one statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, literal, select

from registry.storage import schema
from registry.storage.calibrations import SAME
from registry.storage.derived import FACTS, Facts
from registry.types.calibrations import Calibration

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select, TextClause

__all__ = ["SpecState", "Standing", "standing", "state_of"]

specs, calibrations = schema.specs, schema.calibrations


class SpecState(NamedTuple):
    """The row of a spec, as far as it tells whether what is remembered is current."""

    id: int
    created: datetime
    length: int
    stamp: int
    removed: int
    indexed: int | None


class Standing(NamedTuple):
    """The state of a spec, None where it is not stored; the calibration by a distance; what there is of an index."""

    state: SpecState | None
    calibration: Calibration | None
    facts: Facts | None


_STATE: Final = tuple(specs.c[name] for name in SpecState._fields)
_OF_SPEC: Final = specs.c.hash == bindparam("spec")
_CALIBRATION: Final = (*SAME, "quantiles", "created")


def _standing(*more: TextClause) -> Select[Any]:
    """One row, whatever is stored; made once, since SQLAlchemy takes as long to make it as the database to answer."""
    held = [calibrations.c[name].label(f"calibration_{name}") for name in _CALIBRATION]
    calibrated = and_(calibrations.c.spec_hash == bindparam("spec"), calibrations.c.metric == bindparam("metric"))
    row = select(literal(1).label("one")).subquery()
    return select(*_STATE, *held, *more).select_from(
        row.outerjoin(specs, _OF_SPEC).outerjoin(calibrations, calibrated),
    )


_STATEMENTS: Final = {"sqlite": _standing(), "postgresql": _standing(*FACTS)}
_STATE_ALONE: Final = select(*_STATE).where(_OF_SPEC)


def state_of(connection: Connection, spec_hash: str) -> SpecState | None:
    """Return the spec's state, None where no such spec is stored; one row by its key."""
    row = connection.execute(_STATE_ALONE, {"spec": spec_hash}).first()
    return None if row is None else SpecState(*row)


def standing(connection: Connection, spec_hash: str, metric: str) -> Standing:
    """Return how things stand with a spec and distance."""
    given = {"spec": spec_hash, "metric": metric}
    row = connection.execute(_STATEMENTS[connection.dialect.name], given).one()
    return Standing(
        state=None if row.id is None else SpecState(*row[: len(_STATE)]),
        calibration=None if row.calibration_created is None else _calibration(row, spec_hash, metric),
        facts=Facts(*row[-len(Facts._fields) :]) if connection.dialect.name == "postgresql" else None,
    )


def _calibration(row: Row[Any], spec_hash: str, metric: str) -> Calibration:
    quantiles = json.loads(row.calibration_quantiles)
    return Calibration(
        spec_hash=spec_hash,
        metric=metric,
        quantiles=tuple((fraction, distance) for fraction, distance in quantiles),
        created=row.calibration_created.isoformat(timespec="seconds"),
        **{name: getattr(row, f"calibration_{name}") for name in SAME},
    )
