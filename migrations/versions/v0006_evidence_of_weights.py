"""Sketches and figures of a model's weights, which its spectra do not hold.

Models that are stored have neither until their weights are read again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sketches",
        *_key("sketches"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("buckets", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "weight_figures",
        *_key("weight_figures"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("layers", sa.LargeBinary(), nullable=False),
        sa.Column("statistics", sa.Text(), nullable=False),
    )


def _key(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=f"fk_{table}_model_id_models", ondelete="CASCADE"),
    )
