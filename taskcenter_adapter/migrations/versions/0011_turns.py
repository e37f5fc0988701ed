"""Requests say whose turn they wait for and whether a person asked, so that those that may go are found by SQL.

Used firings are found by their age, and on SQLite the partial indexes of the tick are ones that it uses.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
BY_PERSON = "('manual', 'manual_retry', 'resume', 'backfill', 'prefect')"


def upgrade() -> None:
    serial = "task or trigger: it waits for the runs of this scope before it; null: for none"
    op.add_column("run_requests", sa.Column("serial", KEY, comment=serial))
    op.add_column(
        "run_requests",
        sa.Column(
            "by_person", sa.Boolean(), server_default=sa.false(), nullable=False, comment="no hold keeps it back"
        ),
    )
    postgres = op.get_bind().dialect.name == "postgresql"
    serial, origin = (f"request ->> '{name}'" if postgres else f"json_extract(request, '$.{name}')"
                      for name in ("serial", "origin"))  # fmt: skip
    op.execute(f"UPDATE run_requests SET serial = nullif({serial}, ''), by_person = ({origin}) IN {BY_PERSON}")
    wanted = sa.text("status = 'wanted'")
    op.create_index(
        "ix_run_requests_wanted",
        "run_requests",
        ["task_id", "created_at"],
        postgresql_where=wanted,
        sqlite_where=wanted,
    )
    # SQLite compares the texts of conditions: with "IS false" it never took these indexes for our "IS 0".
    false = "false" if postgres else "0"
    ended = sa.text(f"followed IS {false} AND status IN ('success', 'failed', 'cancelled')")
    waiting = sa.text(f"consumed IS {false}")
    for name, table, columns, where in (
        ("ix_task_runs_unfollowed", "task_runs", ["followed", "finished_at"], ended),
        ("ix_trigger_firings_waiting", "trigger_firings", ["at"], waiting),
    ):
        op.drop_index(name, table)
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
    op.create_index("ix_trigger_firings_at", "trigger_firings", ["at"])
