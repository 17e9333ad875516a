"""Stamps of vectors, intervals of calibrations, stored classes, and the journal of ingests.

Stamps on vectors show caches when they are out of date. Calibrations get intervals. Partitions are stored with their
classes. Runs and their items are recorded.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _stamps()
    _methods()
    _calibrations()
    _classes()
    _runs()


def _stamps() -> None:
    for table, column in (("specs", "stamp"), ("specs", "removed"), ("fingerprints", "stamp")):
        op.add_column(table, sa.Column(column, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("specs", sa.Column("indexed", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_fingerprints_spec_id_stamp"), "fingerprints", ["spec_id", "stamp"])


def _methods() -> None:
    op.add_column("layers", sa.Column("method", sa.Text(), server_default="", nullable=False))
    some = sa.text("method <> ''")
    op.create_index("ix_layers_approximate", "layers", ["model_id"], sqlite_where=some, postgresql_where=some)


def _calibrations() -> None:
    for column in ("accuracy_low", "accuracy_high"):
        op.add_column("calibrations", sa.Column(column, sa.Double(), nullable=True))
    for column in ("models", "families"):
        op.add_column("calibrations", sa.Column(column, sa.Integer(), nullable=True))


def _classes() -> None:
    op.create_table(
        "partitions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("spec_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.Column("models", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["specs.id"], name=op.f("fk_partitions_spec_id_specs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partitions")),
        sa.UniqueConstraint(
            "spec_id",
            "metric",
            "rule",
            "accuracy",
            "scope",
            name=op.f("uq_partitions_spec_id_metric_rule_accuracy_scope"),
        ),
    )
    op.create_index(op.f("ix_partitions_spec_id"), "partitions", ["spec_id"])
    op.create_table(
        "classes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("partition_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("medoid_id", sa.Integer(), nullable=True),
        sa.Column("diameter", sa.Double(), nullable=False),
        sa.Column("bounded", sa.Boolean(), nullable=False),
        sa.Column("tail_class", sa.Text(), nullable=False),
        sa.Column("training_class", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition_id"], ["partitions.id"], name=op.f("fk_classes_partition_id_partitions"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["medoid_id"], ["models.id"], name=op.f("fk_classes_medoid_id_models"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_classes")),
        sa.UniqueConstraint("partition_id", "identity", name=op.f("uq_classes_partition_id_identity")),
    )
    op.create_index(op.f("ix_classes_partition_id_number"), "classes", ["partition_id", "number"], unique=True)
    op.create_index(op.f("ix_classes_identity"), "classes", ["identity"])
    op.create_index(op.f("ix_classes_medoid_id"), "classes", ["medoid_id"])
    op.create_table(
        "members",
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["classes.id"], name=op.f("fk_members_class_id_classes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_members_model_id_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("class_id", "model_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_model_id"), "members", ["model_id"])


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tool_version", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_runs_plan"), "runs", ["plan"])
    op.create_table(
        "items",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_items_run_id_runs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_items_model_id_models"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("pk_items")),
    )
    op.create_index(op.f("ix_items_model_id"), "items", ["model_id"])
