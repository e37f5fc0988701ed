"""An index of the lines that say how far a run has come: the newest is found whatever was printed since. (spec 5.6)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    progress = sa.text("stream = 'progress'")
    op.create_index(
        "ix_task_run_logs_progress",
        "task_run_logs",
        ["run_id", "stream", "step_key", "sequence"],
        postgresql_where=progress,
        sqlite_where=progress,
    )
