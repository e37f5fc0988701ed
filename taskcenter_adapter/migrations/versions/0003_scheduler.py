"""The scheduler's tables: where each trigger stands, the ledger, requests for runs, holds, the lease. (spec 4.2–4.7)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = postgresql.JSONB().with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)


def _task(nullable: bool = False) -> sa.Column[str]:
    return sa.Column("task_id", KEY, nullable=nullable)


def _of_task(table: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_task_id"
    return sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "trigger_states",
        sa.Column("trigger_id", KEY, nullable=False),
        _task(),
        sa.Column("since", TIME, nullable=False, comment="when this definition came into force"),
        sa.Column("cursor", TIME, comment="every slot up to here has its verdict"),
        sa.Column("next_slot", TIME),
        sa.Column("next_known", sa.Boolean(), nullable=False),
        sa.Column("look_at", TIME, comment="when something is to be decided; null: when something happens"),
        sa.Column("refill_at", TIME, comment="when runs are to be made ahead again; null: none are"),
        sa.Column("last_finished", TIME),
        sa.Column(
            "version",
            sa.BigInteger(),
            nullable=False,
            comment="counts the writes: who decided from an old one starts over",
        ),
        sa.Column("published", JSON, comment="the schedule as it was last written to Prefect"),
        _of_task("trigger_states"),
        sa.PrimaryKeyConstraint("trigger_id", name="pk_trigger_states"),
    )
    for column in ("look_at", "refill_at", "task_id"):
        op.create_index(f"ix_trigger_states_{column}", "trigger_states", [column])
    op.create_table(
        "standings",
        sa.Column("scope", KEY, nullable=False, comment="scheduler, task or trigger"),
        sa.Column("key", KEY, nullable=False),
        _task(nullable=True),
        sa.Column("hold", JSON, comment="what is in force; null: it runs"),
        sa.Column("past", JSON, nullable=False, comment="holds that ended, as long as slots may have met them"),
        _of_task("standings"),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_standings"),
    )
    op.create_table(
        "slot_ledger",
        sa.Column("trigger_id", KEY, nullable=False),
        sa.Column("slot", TIME, nullable=False),
        _task(),
        sa.Column("verdict", KEY, nullable=False),
        sa.Column("reason", KEY, nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("run_id", KEY, comment="the run, or the key of its request until it is made"),
        sa.Column("until", TIME, comment="the last slot of a range"),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        _of_task("slot_ledger"),
        sa.PrimaryKeyConstraint("trigger_id", "slot", name="pk_slot_ledger"),
    )
    op.create_index("ix_slot_ledger_task_id", "slot_ledger", ["task_id", "slot"])
    op.create_index("ix_slot_ledger_run_id", "slot_ledger", ["run_id"])
    op.create_table(
        "run_requests",
        sa.Column("key", KEY, nullable=False),
        _task(),
        sa.Column("trigger_id", KEY),
        sa.Column("slot", TIME),
        sa.Column("status", KEY, nullable=False, comment="wanted, made, withdrawn"),
        sa.Column("ahead", sa.Boolean(), nullable=False, comment="its slot has no verdict yet"),
        sa.Column("due", TIME, nullable=False, comment="from when the run may start"),
        sa.Column("rank", sa.Integer(), nullable=False, comment="0 high, 1 normal, 2 low"),
        sa.Column("run_id", KEY, comment="the flow run, once it is made"),
        sa.Column("request", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _of_task("run_requests"),
        sa.PrimaryKeyConstraint("key", name="pk_run_requests"),
    )
    op.create_index("ix_run_requests_status", "run_requests", ["status", "due", "rank"])
    op.create_index("ix_run_requests_slot", "run_requests", ["trigger_id", "slot"])
    op.create_index("ix_run_requests_run_id", "run_requests", ["run_id"])
    op.create_table(
        "run_cancels",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_cancels"),
    )
    op.create_table(
        "trigger_firings",
        sa.Column("id", KEY, nullable=False),
        sa.Column("trigger_id", KEY, nullable=False),
        _task(),
        sa.Column("at", TIME, nullable=False),
        sa.Column("payload", JSON),
        sa.Column("upstream_run_id", KEY),
        sa.Column("consumed", sa.Boolean(), nullable=False),
        _of_task("trigger_firings"),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_firings"),
    )
    waiting = sa.text("consumed IS false")
    op.create_index(
        "ix_trigger_firings_waiting", "trigger_firings", ["at"], postgresql_where=waiting, sqlite_where=waiting
    )
    op.create_table(
        "calendars",
        sa.Column("name", KEY, nullable=False),
        sa.Column("definition", JSON, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_calendars"),
    )
    op.create_table(
        "leases",
        sa.Column("name", KEY, nullable=False),
        sa.Column("holder", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, comment="counts the holders: a former one writes nothing"),
        sa.Column("until", TIME, nullable=False),
        sa.Column("facts", JSON, comment="what the holder says of itself"),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.add_column(
        "task_runs",
        sa.Column(
            "followed",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="it is decided what follows its end",
        ),
    )
    # What ended before the scheduler was there has been followed by what was there then.
    op.execute(sa.text("UPDATE task_runs SET followed = true WHERE status IN ('success', 'failed', 'cancelled')"))
    ended = sa.text("followed IS false AND status IN ('success', 'failed', 'cancelled')")
    op.create_index("ix_task_runs_unfollowed", "task_runs", ["finished_at"], postgresql_where=ended, sqlite_where=ended)
