"""The audit's chain: a place and the hashes for each entry, and where the chain ends. (spec 6.4)

An entry may be sealed once (position, prev_hash and hash go from null to their values); everything else about it
stays as it was written.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEPT = (
    *("sequence", "id", "event_type", "task_id", "run_id", "actor", "channel", "address", "object", "before", "after"),
    *("result", "message", "metadata", "created_at"),
)
POSTGRESQL_LOCK = """
    CREATE OR REPLACE FUNCTION taskcenter_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('taskcenter.purge', true) = 'on' THEN
            RETURN OLD;
        END IF;
        IF TG_OP = 'UPDATE' AND OLD.hash IS NULL AND OLD.position IS NULL AND NEW.hash IS NOT NULL
            AND to_jsonb(OLD) - '{position,prev_hash,hash}'::text[]
              = to_jsonb(NEW) - '{position,prev_hash,hash}'::text[] THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'audit entries are never changed or removed';
    END $$
"""


def sqlite_lock() -> str:
    old, new = (", ".join(f'{row}."{name}"' for name in KEPT) for row in ("OLD", "NEW"))
    return f"""
        CREATE TRIGGER task_audit_logs_no_update BEFORE UPDATE ON task_audit_logs
        WHEN OLD.hash IS NOT NULL OR OLD.position IS NOT NULL OR NEW.hash IS NULL OR ({old}) IS NOT ({new})
        BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or removed'); END
    """


def upgrade() -> None:
    op.add_column("task_audit_logs", sa.Column("address", sa.Text()))
    op.add_column(
        "task_audit_logs",
        sa.Column("position", sa.BigInteger(), comment="the place in the chain, given with the hash"),
    )
    op.create_index("ix_task_audit_logs_event_type", "task_audit_logs", ["event_type", "sequence"])
    op.create_index("ix_task_audit_logs_position", "task_audit_logs", ["position"], unique=True)
    unsealed = sa.text("hash IS NULL")
    op.create_index(
        "ix_task_audit_logs_unsealed", "task_audit_logs", ["sequence"], postgresql_where=unsealed, sqlite_where=unsealed
    )
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("anchor", sa.BigInteger(), comment="the sequence of the newest anchor entry"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.bulk_insert(head, [{"id": 1, "position": 0, "hash": "0" * 64}])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL_LOCK)
    else:
        op.execute("DROP TRIGGER task_audit_logs_no_update")
        op.execute(sqlite_lock())
