"""Columns named ``tolerance`` and ``distance``.

Before, they were named ``accuracy`` and ``metric``, which are words for published scores of models.
"""

from __future__ import annotations

from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None

COLUMNS = {
    "calibrations": {
        "metric": "distance",
        "accuracy": "tolerance",
        "accuracy_low": "tolerance_low",
        "accuracy_high": "tolerance_high",
    },
    "partitions": {"metric": "distance", "accuracy": "tolerance"},
}
UNIQUE = {
    "calibrations": ("uq_calibrations_spec_hash_metric", ["spec_hash", "distance"]),
    "partitions": (
        "uq_partitions_spec_id_metric_rule_accuracy_scope",
        ["spec_id", "distance", "rule", "tolerance", "scope"],
    ),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for old, new in columns.items():
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for table, (old, of) in UNIQUE.items():
        new = "_".join(["uq", table, *of])
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")
            continue
        with op.batch_alter_table(table) as batch:  # SQLite has no statement for it: the table is copied
            batch.drop_constraint(op.f(old), type_="unique")
            batch.create_unique_constraint(op.f(new), of)
