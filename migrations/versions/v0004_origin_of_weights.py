"""Where a model's weights were read from, how they are stored, and what could not be read of them.

An index finds the models of older matrix rules.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("precision", "format", "location", "entry"):
        op.add_column("models", sa.Column(column, sa.Text(), server_default="", nullable=False))
    for table, column in (("models", "unread"), ("models", "nonfinite"), ("layers", "period")):
        op.add_column(table, sa.Column(column, sa.BigInteger(), server_default="0", nullable=False))
    op.create_index(op.f("ix_models_matrix_rule"), "models", ["matrix_rule"])
    op.add_column("models", sa.Column("notes", sa.Text(), server_default="[]", nullable=False))
