"""What the header of a model's weights says, by which it is known before they are read.

Models of which the header alone was read have a ``content_hash`` that begins with ``header:``.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("header_hash", sa.Text(), server_default="", nullable=False))
