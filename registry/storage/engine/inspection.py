"""What `archreg db check` looks for in the rows themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from registry.storage.engine.schema import fingerprints, layers, models, specs, spectra

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["contradictions", "damage"]

FLOAT_BYTES = 4


def damage(connection: Connection) -> list[str]:
    """Return what SQLite's own checks find; Postgres enforces keys always and checks pages by its own tools."""
    if connection.dialect.name != "sqlite":
        return []
    found = [f"file: {text}" for (text,) in connection.exec_driver_sql("PRAGMA integrity_check") if text != "ok"]
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        found.append(f"row {row} of {table} refers to a row of {parent} that is not there")
    return found


def contradictions(connection: Connection) -> list[str]:
    """Return models whose layers, spectra or vectors do not fit together, a line for each."""
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
    found = [f"model {id_} says {said} layers and has {has}" for id_, said, has in connection.execute(incomplete)]
    blob = func.length(spectra.c.data)
    torn = (
        select(spectra.c.model_id)
        .join(listed, listed.c.model_id == spectra.c.model_id)
        .where(blob != FLOAT_BYTES * listed.c.numbers)
        .order_by(spectra.c.model_id)
    )
    found += [f"the spectra of model {id_} are not as long as its layers say" for (id_,) in connection.execute(torn)]
    bent = (
        select(fingerprints.c.model_id, specs.c.name)
        .join(specs, specs.c.id == fingerprints.c.spec_id)
        .where(func.length(fingerprints.c.vector) != FLOAT_BYTES * specs.c.length)
        .order_by(fingerprints.c.model_id)
    )
    found += [f"the {name} vector of model {id_} has a wrong length" for id_, name in connection.execute(bent)]
    return found
