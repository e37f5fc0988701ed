"""Batches of runs: what was asked for, and which run is which item. (spec 1.4)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = postgresql.JSONB().with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "run_batches",
        sa.Column("id", KEY, nullable=False),
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("task_slug", KEY, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False, comment="how many of its runs are on their way at once"),
        sa.Column("stop_on_error", sa.Boolean(), nullable=False),
        sa.Column("items", JSON, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("stopped", sa.Text(), comment="why no further item starts"),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("closed_at", TIME),
        sa.Column("summary", JSON, comment="what it came to"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_run_batches_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_run_batches"),
    )
    op.create_index("ix_run_batches_created_at", "run_batches", ["created_at", "id"])
    op.create_index("ix_run_batches_task_id", "run_batches", ["task_id", "created_at", "id"])
    going = sa.text("closed_at IS NULL")
    op.create_index("ix_run_batches_open", "run_batches", ["created_at"], postgresql_where=going, sqlite_where=going)
    op.add_column("task_runs", sa.Column("batch_id", KEY, comment="the batch that it is an item of"))
    op.add_column("task_runs", sa.Column("batch_item", sa.BigInteger(), comment="which one of it, from 1"))
    op.add_column("run_requests", sa.Column("batch_id", KEY, comment="the batch that the run is an item of"))
    member = sa.text("batch_id IS NOT NULL")
    for table, columns in (("task_runs", ["batch_id", "batch_item"]), ("run_requests", ["batch_id", "status", "due"])):
        op.create_index(f"ix_{table}_batch_id", table, columns, postgresql_where=member, sqlite_where=member)
