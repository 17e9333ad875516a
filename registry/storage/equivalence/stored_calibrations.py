"""Stored calibrations, and the labels of models."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, insert, select

from registry.storage.engine.schema import architectures, calibrations, fingerprints, models, specs
from registry.storage.models.records import Label
from registry.storage.models.stored_cards import utc_now

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from registry.types.calibrations import Calibration

__all__ = ["SAME", "drop_calibration", "read_labels", "put_calibration"]

SAME = ("rate", "tolerance", "source", "tolerance_low", "tolerance_high", "models", "families")
"""Of a calibration, what is a column of its own name beside the key."""


def put_calibration(connection: Connection, given: Calibration) -> None:
    """Store a calibration; it replaces the one of its spec and distance. Its time is now, unless given."""
    drop_calibration(connection, given.spec_hash, given.distance)
    values = {
        "spec_hash": given.spec_hash,
        "distance": given.distance,
        "quantiles": json.dumps(given.quantiles, allow_nan=False),
        "created": datetime.fromisoformat(given.created) if given.created else utc_now(),
        **{name: getattr(given, name) for name in SAME},
    }
    connection.execute(insert(calibrations).values(values))


def drop_calibration(connection: Connection, spec_hash: str, distance: str) -> bool:
    """Delete the calibration of a spec and distance; return whether there was one."""
    return bool(connection.execute(delete(calibrations).filter_by(spec_hash=spec_hash, distance=distance)).rowcount)


def read_labels(connection: Connection, spec_hash: str) -> list[Label]:
    """Return the labels of the models with a fingerprint of the spec, by id."""
    measured = exists().where(
        fingerprints.c.model_id == models.c.id, fingerprints.c.spec_id == specs.c.id, specs.c.hash == spec_hash
    )
    columns = (models.c.id, architectures.c.family, architectures.c.name, models.c.dataset, models.c.training)
    statement = select(*columns, models.c.seed).select_from(models).join(architectures)
    return [Label(*row) for row in connection.execute(statement.where(measured).order_by(models.c.id))]
