"""Indexes without the rows that nobody looks up by them: most runs have no trigger and one attempt, most lines no step.

What is in no index is written once less when it comes, and taken out once less when it goes. (spec 6.1, 6.5)
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_task_runs_trigger_id", "task_runs", ["trigger_id", "created_at", "id"], "trigger_id IS NOT NULL"),
    ("ix_task_runs_root_run_id", "task_runs", ["root_run_id", "created_at", "id"], "root_run_id != id"),
    ("ix_task_run_logs_step_key", "task_run_logs", ["run_id", "step_key", "sequence"], "step_key IS NOT NULL"),
)


def upgrade() -> None:
    for name, table, columns, rows in INDEXES:
        op.drop_index(name, table)
        where = sa.text(rows)
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
