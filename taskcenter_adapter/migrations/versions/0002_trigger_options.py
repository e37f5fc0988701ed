"""A trigger's fields beyond the seed's columns, in one JSON column. (spec 4.1, 6.1)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB().with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "task_triggers",
        sa.Column("options", JSON, comment="the fields without a column of their own that differ from their defaults"),
    )
