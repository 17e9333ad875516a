"""Checks of stored rows for `archreg db check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from registry.storage.engine.schema import fingerprints, layers, models, specs, spectra

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["contradictions", "damage"]

FLOAT_BYTES = 4


def damage(connection: Connection) -> list[str]:
    """Return the problems that SQLite's checks find. Postgres enforces keys and has its own tools for pages."""
    if connection.dialect.name != "sqlite":
        return []
    found = [f"file: {text}" for (text,) in connection.exec_driver_sql("PRAGMA integrity_check") if text != "ok"]
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        found.append(f"row {row} of {table} refers to a missing row of {parent}")
    return found


def contradictions(connection: Connection) -> list[str]:
    """Return a line for each model with inconsistent layers, spectra or vectors."""
    listed = (
        select(
            layers.c.model_id,
            func.count().label("rows"),
            func.max(layers.c.position).label("last"),
            func.sum(layers.c.count).label("numbers"),
        )
        .group_by(layers.c.model_id)
        .subquery()
    )
    rows = func.coalesce(listed.c.rows, 0)
    incomplete = (
        select(models.c.id, models.c.layers, rows)
        .outerjoin(listed, listed.c.model_id == models.c.id)
        .where((models.c.layers != rows) | (rows == 0) | (listed.c.last != rows - 1))
        .order_by(models.c.id)
    )
    found = [f"model {id_} declares {said} layers and has {has}" for id_, said, has in connection.execute(incomplete)]
    blob = func.length(spectra.c.data)
    torn = (
        select(spectra.c.model_id)
        .join(listed, listed.c.model_id == spectra.c.model_id)
        .where(blob != FLOAT_BYTES * listed.c.numbers)
        .order_by(spectra.c.model_id)
    )
    found += [
        f"the spectra of model {id_} do not have the length that its layers declare"
        for (id_,) in connection.execute(torn)
    ]
    bent = (
        select(fingerprints.c.model_id, specs.c.name)
        .join(specs, specs.c.id == fingerprints.c.spec_id)
        .where(func.length(fingerprints.c.vector) != FLOAT_BYTES * specs.c.length)
        .order_by(fingerprints.c.model_id)
    )
    found += [f"the {name} vector of model {id_} has a wrong length" for id_, name in connection.execute(bent)]
    return found
