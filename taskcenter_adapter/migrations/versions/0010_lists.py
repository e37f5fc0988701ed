"""Indexes for long lists of runs: parts of names, and the ledger by age. (spec 6.1)

Parts of names are found through trigrams: an FTS5 table on SQLite, which triggers keep in step with the runs, and an
index of the extension pg_trgm on PostgreSQL. The index of all runs by time holds the names too, so that the newest
thousand are looked through without reading their rows.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DELETE = (
    "INSERT INTO task_runs_search (task_runs_search, rowid, names)"
    " VALUES ('delete', old.rowid, old.task_slug || ' ' || old.name);"
)
INSERT = "INSERT INTO task_runs_search (rowid, names) VALUES (new.rowid, new.task_slug || ' ' || new.name);"
SQLITE_SEARCH = (
    "CREATE INDEX ix_task_runs_created_at ON task_runs (created_at, id, task_slug, name)",
    "CREATE VIEW task_runs_names AS SELECT rowid AS run, task_slug || ' ' || name AS names FROM task_runs",
    "CREATE VIRTUAL TABLE task_runs_search USING fts5(names, content='task_runs_names', content_rowid='run',"
    " tokenize='trigram', columnsize=0)",
    f"CREATE TRIGGER task_runs_search_insert AFTER INSERT ON task_runs BEGIN {INSERT} END",
    f"CREATE TRIGGER task_runs_search_delete AFTER DELETE ON task_runs BEGIN {DELETE} END",
    f"""CREATE TRIGGER task_runs_search_update AFTER UPDATE OF task_slug, name ON task_runs
    WHEN old.task_slug IS NOT new.task_slug OR old.name IS NOT new.name BEGIN {DELETE} {INSERT} END""",
)
POSTGRESQL_SEARCH = (
    "CREATE INDEX ix_task_runs_created_at ON task_runs (created_at, id) INCLUDE (task_slug, name)",
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "CREATE INDEX ix_task_runs_search ON task_runs USING gin"
    " (lower((task_slug || ' ' || name) COLLATE \"C\") gin_trgm_ops)",
)


def upgrade() -> None:
    op.create_index("ix_slot_ledger_decided_at", "slot_ledger", ["decided_at"])
    op.drop_index("ix_task_runs_created_at", "task_runs")
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL_SEARCH if postgres else SQLITE_SEARCH:
        op.execute(statement)
    if not postgres:
        op.execute("INSERT INTO task_runs_search (task_runs_search) VALUES ('rebuild')")
