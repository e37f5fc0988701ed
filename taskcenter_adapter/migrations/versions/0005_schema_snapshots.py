"""Structures of the users' databases as they were seen. (spec 2.3)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = postgresql.JSONB().with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schema_snapshots",
        sa.Column("id", KEY, nullable=False),
        sa.Column("connection", KEY, nullable=False),
        sa.Column("database", KEY, nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("schema_hash", KEY, nullable=False),
        sa.Column("structure", JSON, nullable=False),
        sa.Column("first_captured_at", TIME, nullable=False),
        sa.Column("captured_at", TIME, nullable=False),
        sa.Column("run_id", KEY),
        sa.PrimaryKeyConstraint("id", name="pk_schema_snapshots"),
        sa.UniqueConstraint("connection", "database", "schema_hash", name="uq_schema_snapshots_connection"),
    )
    op.create_index("ix_schema_snapshots_connection", "schema_snapshots", ["connection", "captured_at"])
    op.create_index("ix_schema_snapshots_captured_at", "schema_snapshots", ["captured_at"])


def downgrade() -> None:
    op.drop_table("schema_snapshots")
