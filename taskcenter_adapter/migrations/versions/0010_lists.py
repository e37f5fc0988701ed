"""Indexes for long lists of runs: parts of names, and the ledger by age. (spec 6.1)

Parts of names are found through trigrams: an FTS5 table on SQLite, which triggers keep in step with the runs, and an
index of the extension pg_trgm on PostgreSQL. The index of all runs by time holds the names too, so that the newest
thousand are looked through without reading their rows.
"""

from __future__ import annotations

from alembic import op

from taskcenter_adapter.run_search import POSTGRESQL_SEARCH, SQLITE_SEARCH

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_slot_ledger_decided_at", "slot_ledger", ["decided_at"])
    op.drop_index("ix_task_runs_created_at", "task_runs")
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL_SEARCH if postgres else SQLITE_SEARCH:
        op.execute(statement)
    if not postgres:
        op.execute("INSERT INTO task_runs_search (task_runs_search) VALUES ('rebuild')")
