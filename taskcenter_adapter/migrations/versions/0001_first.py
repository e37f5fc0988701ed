"""The first tables: the seed's ten, the revisions of tasks and the outbox of events. (spec 6.1)

What is written here is history and stays as it is; ``tables.py`` is how the tables are today, and a test holds the
sum of all versions against it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = postgresql.JSONB().with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Audit entries are only ever added. Retention may delete them, in a transaction that says so
# (taskcenter_adapter.database.audit_deletes); nothing may change one.
POSTGRESQL_LOCK = (
    """
    CREATE FUNCTION taskcenter_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('taskcenter.purge', true) = 'on' THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'audit entries are never changed or removed';
    END $$
    """,
    """
    CREATE TRIGGER task_audit_logs_stay BEFORE UPDATE OR DELETE ON task_audit_logs
    FOR EACH ROW EXECUTE FUNCTION taskcenter_audit_stays()
    """,
    """
    CREATE TRIGGER task_audit_logs_stay_all BEFORE TRUNCATE ON task_audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION taskcenter_audit_stays()
    """,
)
SQLITE_LOCK = (
    "CREATE TABLE audit_purge_switch (id INTEGER PRIMARY KEY CHECK (id = 1), open INTEGER NOT NULL)",
    "INSERT INTO audit_purge_switch (id, open) VALUES (1, 0)",
    """
    CREATE TRIGGER task_audit_logs_no_update BEFORE UPDATE ON task_audit_logs
    BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or removed'); END
    """,
    """
    CREATE TRIGGER task_audit_logs_no_delete BEFORE DELETE ON task_audit_logs
    WHEN NOT EXISTS (SELECT 1 FROM audit_purge_switch WHERE open = 1)
    BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or removed'); END
    """,
    # INSERT OR REPLACE removes the old row without asking the trigger above.
    """
    CREATE TRIGGER task_audit_logs_no_replace BEFORE INSERT ON task_audit_logs
    WHEN EXISTS (SELECT 1 FROM task_audit_logs WHERE id = NEW.id OR sequence = NEW.sequence)
    BEGIN SELECT RAISE(IGNORE); END
    """,
)


def upgrade() -> None:
    op.create_table(
        "outbox_events",
        sa.Column("sequence", COUNTER, autoincrement=True, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("delivered_at", TIME),
        sa.PrimaryKeyConstraint("sequence", name="pk_outbox_events"),
        sa.UniqueConstraint("id", name="uq_outbox_events_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_events_created_at", "outbox_events", ["created_at"])
    op.create_index(
        "ix_outbox_events_undelivered",
        "outbox_events",
        ["sequence"],
        postgresql_where=sa.text("delivered_at IS NULL"),
        sqlite_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "task_audit_logs",
        sa.Column("sequence", COUNTER, autoincrement=True, nullable=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("event_type", KEY, nullable=False),
        sa.Column("task_id", KEY),
        sa.Column("run_id", KEY),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("channel", KEY, nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("before", JSON),
        sa.Column("after", JSON),
        sa.Column("result", KEY, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("prev_hash", sa.Text()),
        sa.Column("hash", sa.Text()),
        sa.PrimaryKeyConstraint("sequence", name="pk_task_audit_logs"),
        sa.UniqueConstraint("id", name="uq_task_audit_logs_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_audit_logs_created_at", "task_audit_logs", ["created_at"])
    op.create_index("ix_task_audit_logs_run_id", "task_audit_logs", ["run_id", "sequence"])
    op.create_index("ix_task_audit_logs_task_id", "task_audit_logs", ["task_id", "sequence"])
    op.create_table(
        "task_manager_settings",
        sa.Column("key", KEY, nullable=False),
        sa.Column("value", JSON),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_task_manager_settings"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", KEY, nullable=False),
        sa.Column("slug", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("task_type", KEY, nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("category", sa.Text()),
        sa.Column("icon", sa.Text()),
        sa.Column("danger", sa.Text()),
        sa.Column("expensive", sa.Boolean(), nullable=False),
        sa.Column("priority", KEY, nullable=False),
        sa.Column("max_concurrent", sa.BigInteger(), nullable=False),
        sa.Column("environment", JSON, nullable=False),
        sa.Column("termination", JSON, nullable=False),
        sa.Column("retry_policy", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("sort_name", KEY, nullable=False, comment="the case-folded name, for order"),
        sa.Column("search_text", KEY, nullable=False, comment="case-folded name and description, for search"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("slug", name="uq_tasks_slug"),
    )
    op.create_index("ix_tasks_sort_name", "tasks", ["sort_name", "id"])
    op.create_index("ix_tasks_status", "tasks", ["status", "sort_name", "id"])
    op.create_index("ix_tasks_task_type", "tasks", ["task_type", "sort_name", "id"])
    op.create_table(
        "composite_tasks",
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("settings", JSON, nullable=False, comment="the graph's own keys, all but steps and edges"),
        sa.Column("options", JSON, nullable=False, comment="which keys the graph had, in their order"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_composite_tasks_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", name="pk_composite_tasks"),
    )
    op.create_table(
        "task_revisions",
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("definition", JSON, nullable=False),
        sa.Column("graph", JSON),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_revisions_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "revision", name="pk_task_revisions"),
    )
    op.create_table(
        "task_runs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("task_id", KEY),
        sa.Column("task_slug", KEY, nullable=False),
        sa.Column("task_type", KEY, nullable=False),
        sa.Column("task_revision", sa.BigInteger()),
        sa.Column("trigger_id", KEY),
        sa.Column("origin", KEY, nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("phase", KEY),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("total_attempts", sa.BigInteger(), nullable=False),
        sa.Column("root_run_id", KEY, nullable=False),
        sa.Column("resumed_from", KEY),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slot", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("duration_ms", sa.BigInteger()),
        sa.Column("message", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("result", JSON),
        sa.Column("plan_hash", sa.Text()),
        sa.Column("prefect_state", sa.Text()),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_runs_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_task_runs"),
    )
    op.create_index("ix_task_runs_created_at", "task_runs", ["created_at", "id"])
    op.create_index("ix_task_runs_finished_at", "task_runs", ["finished_at"])
    op.create_index(
        "ix_task_runs_open",
        "task_runs",
        ["created_at", "id"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
        sqlite_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_task_runs_root_run_id", "task_runs", ["root_run_id", "created_at", "id"])
    op.create_index("ix_task_runs_status", "task_runs", ["status", "created_at", "id"])
    op.create_index("ix_task_runs_task_id", "task_runs", ["task_id", "created_at", "id"])
    op.create_index("ix_task_runs_task_status", "task_runs", ["task_id", "status", "created_at", "id"])
    op.create_index("ix_task_runs_trigger_id", "task_runs", ["trigger_id", "created_at", "id"])
    op.create_table(
        "task_triggers",
        sa.Column("id", KEY, nullable=False),
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="the place in the task's list of triggers"),
        sa.Column("type", KEY, nullable=False),
        sa.Column("cron_expression", sa.Text()),
        sa.Column("interval_seconds", sa.Float(precision=53)),
        sa.Column("anchor", TIME),
        sa.Column("run_at", TIME),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("retry_policy", JSON, nullable=False),
        sa.Column("payload", JSON),
        sa.Column("next_run_at", TIME),
        sa.Column("last_run_at", TIME),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_triggers_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_task_triggers"),
    )
    op.create_index("ix_task_triggers_next_run_at", "task_triggers", ["next_run_at"])
    op.create_index("ix_task_triggers_task_id", "task_triggers", ["task_id", "position"])
    op.create_table(
        "composite_edges",
        sa.Column("task_id", KEY, nullable=False),
        sa.Column(
            "ordinal", sa.Integer(), autoincrement=False, nullable=False, comment="the place in the list of edges"
        ),
        sa.Column("from_step_key", KEY, nullable=False),
        sa.Column("to_step_key", KEY, nullable=False),
        sa.Column("condition", sa.Text()),
        sa.Column("options", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["composite_tasks.task_id"], name="fk_composite_edges_task_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_id", "ordinal", name="pk_composite_edges"),
    )
    op.create_table(
        "composite_step_runs",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("step_key", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task_type", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.BigInteger(), nullable=False),
        sa.Column("status", KEY, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("duration_ms", sa.BigInteger()),
        sa.Column("execution", JSON),
        sa.Column("error", sa.Text()),
        sa.Column("error_type", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("prefect_task_run_id", KEY),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name="fk_composite_step_runs_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step_key", name="pk_composite_step_runs"),
    )
    op.create_table(
        "composite_steps",
        sa.Column("task_id", KEY, nullable=False),
        sa.Column("step_key", KEY, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="the place in the list of steps"),
        sa.Column("position", sa.BigInteger()),
        sa.Column("name", sa.Text()),
        sa.Column("task_type", KEY),
        sa.Column("referenced_task_id", KEY),
        sa.Column("payload", JSON),
        sa.Column("on_error", sa.Text()),
        sa.Column("enabled", sa.Boolean()),
        sa.Column("join", sa.Text()),
        sa.Column("retries", sa.BigInteger()),
        sa.Column("retry_backoff_ms", sa.BigInteger()),
        sa.Column("timeout_seconds", sa.Float(precision=53)),
        sa.Column("map_over", sa.Text()),
        sa.Column("priority", sa.Text()),
        sa.Column("options", JSON, nullable=False, comment="which keys the step had, and those without a column"),
        sa.ForeignKeyConstraint(
            ["task_id"], ["composite_tasks.task_id"], name="fk_composite_steps_task_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_id", "step_key", name="pk_composite_steps"),
    )
    op.create_index("ix_composite_steps_referenced_task_id", "composite_steps", ["referenced_task_id"])
    op.create_table(
        "task_run_logs",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("level", KEY, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("step_key", KEY),
        sa.Column("stream", KEY, nullable=False),
        sa.Column("metadata", JSON),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name="fk_task_run_logs_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "sequence", name="pk_task_run_logs"),
    )
    op.create_index("ix_task_run_logs_step_key", "task_run_logs", ["run_id", "step_key", "sequence"])
    op.create_index("ix_task_run_logs_time", "task_run_logs", ["time"])
    for statement in POSTGRESQL_LOCK if op.get_bind().dialect.name == "postgresql" else SQLITE_LOCK:
        op.execute(statement)
