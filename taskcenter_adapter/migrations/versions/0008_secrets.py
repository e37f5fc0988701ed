"""The store of secrets, one encrypted row per version; who made a revision, and why. (spec 1.1, 8.3)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", KEY, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("key_id", KEY, nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_secrets"),
    )
    op.add_column("task_revisions", sa.Column("created_by", sa.Text()))
    op.add_column("task_revisions", sa.Column("reason", sa.Text()))


def downgrade() -> None:
    with op.batch_alter_table("task_revisions") as batch:
        batch.drop_column("reason")
        batch.drop_column("created_by")
    op.drop_table("secrets")
