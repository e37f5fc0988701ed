"""Task Center's tables, as SQLAlchemy Core metadata for PostgreSQL and SQLite. (spec 6.1)

The ten tables of the seed keep their names. Every row of a task goes with the task (``ON DELETE CASCADE``),
except audit entries, which have no foreign key at all: they must outlive what they tell of. A run keeps the id
of its trigger without a foreign key too, so that history still says what fired it when the trigger is gone.

Two choices make both databases answer alike: identifiers and sort keys compare by code point (``COLLATE "C"`` on
PostgreSQL, which SQLite and Python do anyway), and searches go over a case-folded column that the store fills,
because the databases disagree about what lower case is beyond ASCII.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    false,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

from .rows import json_text

__all__ = [
    "AUDIT_PURGE_SWITCH",
    "CASCADE",
    "JSON",
    "KEY",
    "JsonText",
    "UtcTime",
    "audit_head",
    "composite_edges",
    "composite_step_runs",
    "composite_steps",
    "composite_tasks",
    "metadata",
    "outbox_events",
    "task_audit_logs",
    "task_manager_settings",
    "task_revisions",
    "task_run_logs",
    "task_runs",
    "task_triggers",
    "tasks",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An instant with microseconds: ``timestamptz`` on PostgreSQL, UTC text on SQLite; always aware when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON as text on SQLite. A column typed JSON would have numeric affinity there, and round large numbers."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        return None if value is None else json_text(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any | None:
        return None if value is None else json.loads(value)


# The type objects are shared: none of them holds state.
KEY = String().with_variant(String(collation="C"), "postgresql")
JSON = JSONB(none_as_null=True).with_variant(JsonText(), "sqlite")
_counter = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts only in a column typed INTEGER
CASCADE: dict[str, Any] = {"ondelete": "CASCADE"}

tasks = Table(
    "tasks",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("slug", KEY, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("task_type", KEY, nullable=False),
    Column("status", KEY, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("owner", Text),
    Column("category", Text),
    Column("icon", Text),
    Column("danger", Text),
    Column("expensive", Boolean, nullable=False),
    Column("priority", KEY, nullable=False),
    Column("max_concurrent", BigInteger, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("termination", JSON, nullable=False),
    Column("retry_policy", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("sort_name", KEY, nullable=False, comment="the case-folded name, for order"),
    Column("search_text", KEY, nullable=False, comment="case-folded name and description, for search"),
    UniqueConstraint("slug"),
    Index("ix_tasks_sort_name", "sort_name", "id"),
    Index("ix_tasks_status", "status", "sort_name", "id"),
    Index("ix_tasks_task_type", "task_type", "sort_name", "id"),
)

task_triggers = Table(
    "task_triggers",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("position", Integer, nullable=False, comment="the place in the task's list of triggers"),
    Column("type", KEY, nullable=False),
    Column("cron_expression", Text),
    Column("interval_seconds", Float(53)),
    Column("anchor", UtcTime),
    Column("run_at", UtcTime),
    Column("timezone", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("retry_policy", JSON, nullable=False),
    Column("payload", JSON),
    Column("next_run_at", UtcTime),
    Column("last_run_at", UtcTime),
    Column("options", JSON, comment="the fields without a column of their own that differ from their defaults"),
    Index("ix_task_triggers_task_id", "task_id", "position"),
    Index("ix_task_triggers_next_run_at", "next_run_at"),
)

task_revisions = Table(
    "task_revisions",
    metadata,
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text),
    Column("reason", Text),
    Column("definition", JSON, nullable=False),
    Column("graph", JSON),
)

composite_tasks = Table(
    "composite_tasks",
    metadata,
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), primary_key=True),
    Column("settings", JSON, nullable=False, comment="the graph's own keys, all but steps and edges"),
    Column("options", JSON, nullable=False, comment="which keys the graph had, in their order"),
)

composite_steps = Table(
    "composite_steps",
    metadata,
    Column("task_id", KEY, ForeignKey("composite_tasks.task_id", **CASCADE), primary_key=True),
    Column("step_key", KEY, primary_key=True),
    Column("ordinal", Integer, nullable=False, comment="the place in the list of steps"),
    Column("position", BigInteger),
    Column("name", Text),
    Column("task_type", KEY),
    Column("referenced_task_id", KEY),
    Column("payload", JSON),
    Column("on_error", Text),
    Column("enabled", Boolean),
    Column("join", Text),
    Column("retries", BigInteger),
    Column("retry_backoff_ms", BigInteger),
    Column("timeout_seconds", Float(53)),
    Column("map_over", Text),
    Column("priority", Text),
    Column("options", JSON, nullable=False, comment="which keys the step had, and those without a column"),
    Index("ix_composite_steps_referenced_task_id", "referenced_task_id"),
)

composite_edges = Table(
    "composite_edges",
    metadata,
    Column("task_id", KEY, ForeignKey("composite_tasks.task_id", **CASCADE), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False, comment="the place in the list of edges"),
    Column("from_step_key", KEY, nullable=False),
    Column("to_step_key", KEY, nullable=False),
    Column("condition", Text),
    Column("options", JSON, nullable=False),
)

task_runs = Table(
    "task_runs",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE)),
    Column("task_slug", KEY, nullable=False),
    Column("task_type", KEY, nullable=False),
    Column("task_revision", BigInteger),
    Column("trigger_id", KEY),
    Column("origin", KEY, nullable=False),
    Column("status", KEY, nullable=False),
    Column("phase", KEY),
    Column("attempt", BigInteger, nullable=False),
    Column("total_attempts", BigInteger, nullable=False),
    Column("root_run_id", KEY, nullable=False),
    Column("resumed_from", KEY),
    Column("dry_run", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("slot", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("duration_ms", BigInteger),
    Column("message", Text),
    Column("error", Text),
    Column("result", JSON),
    Column("plan_hash", Text),
    Column("prefect_state", Text),
    Column("batch_id", KEY, comment="the batch that it is an item of"),
    Column("batch_item", BigInteger, comment="which one of it, from 1"),
    Column("followed", Boolean, nullable=False, server_default=false(), comment="it is decided what follows its end"),
)
# Each list of runs is read from one end of one index: a page costs the same whatever the history's length. The index
# of all of them stands in run_search, because it brings the names along.
Index("ix_task_runs_task_id", task_runs.c.task_id, task_runs.c.created_at, task_runs.c.id)
Index("ix_task_runs_task_status", task_runs.c.task_id, task_runs.c.status, task_runs.c.created_at, task_runs.c.id)
Index("ix_task_runs_status", task_runs.c.status, task_runs.c.created_at, task_runs.c.id)
Index("ix_task_runs_finished_at", task_runs.c.finished_at)
_of_trigger = task_runs.c.trigger_id.is_not(None)
Index(
    "ix_task_runs_trigger_id",
    task_runs.c.trigger_id,
    task_runs.c.created_at,
    task_runs.c.id,
    postgresql_where=_of_trigger,
    sqlite_where=_of_trigger,
)
# The first attempt is its own root, and found by its id.
_further = task_runs.c.root_run_id != task_runs.c.id
Index(
    "ix_task_runs_root_run_id",
    task_runs.c.root_run_id,
    task_runs.c.created_at,
    task_runs.c.id,
    postgresql_where=_further,
    sqlite_where=_further,
)
_in_batch = task_runs.c.batch_id.is_not(None)
Index(
    "ix_task_runs_batch_id",
    task_runs.c.batch_id,
    task_runs.c.batch_item,
    postgresql_where=_in_batch,
    sqlite_where=_in_batch,
)
_unfollowed = and_(task_runs.c.followed.is_(False), task_runs.c.status.in_(("success", "failed", "cancelled")))
# ``followed`` is the same in all of it, and yet SQLite takes the index only where it may look that up: else it reads
# the whole history by status.
Index(
    "ix_task_runs_unfollowed",
    task_runs.c.followed,
    task_runs.c.finished_at,
    postgresql_where=_unfollowed,
    sqlite_where=_unfollowed,
)
_open = task_runs.c.status.in_(("queued", "running"))
Index(
    "ix_task_runs_open",
    task_runs.c.created_at,
    task_runs.c.id,
    postgresql_where=_open,
    sqlite_where=_open,
)

task_run_logs = Table(
    "task_run_logs",
    metadata,
    Column("run_id", KEY, ForeignKey("task_runs.id", **CASCADE), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", UtcTime, nullable=False),
    Column("level", KEY, nullable=False),
    Column("message", Text, nullable=False),
    Column("step_key", KEY),
    Column("stream", KEY, nullable=False),
    Column("metadata", JSON),
    Index("ix_task_run_logs_time", "time"),
)
_of_step = task_run_logs.c.step_key.is_not(None)
Index(
    "ix_task_run_logs_step_key",
    task_run_logs.c.run_id,
    task_run_logs.c.step_key,
    task_run_logs.c.sequence,
    postgresql_where=_of_step,
    sqlite_where=_of_step,
)
_progress = task_run_logs.c.stream == "progress"
Index(  # with the stream, which is always the same, in it: else SQLite takes the other index of steps
    "ix_task_run_logs_progress",
    task_run_logs.c.run_id,
    task_run_logs.c.stream,
    task_run_logs.c.step_key,
    task_run_logs.c.sequence,
    postgresql_where=_progress,
    sqlite_where=_progress,
)

# Only the primary key is indexed: a step is rewritten two or three times while it runs, and an update that
# touches no index is the cheapest one PostgreSQL has.
composite_step_runs = Table(
    "composite_step_runs",
    metadata,
    Column("run_id", KEY, primary_key=True),
    Column("step_key", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("task_type", KEY, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("wave", BigInteger, nullable=False),
    Column("status", KEY, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("duration_ms", BigInteger),
    Column("execution", JSON),
    Column("error", Text),
    Column("error_type", Text),
    Column("reason", Text),
    Column("reused", Boolean, nullable=False),
    Column("prefect_task_run_id", KEY),
    ForeignKeyConstraint(["run_id"], ["task_runs.id"], **CASCADE),
)

task_manager_settings = Table(
    "task_manager_settings",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("value", JSON),
    Column("updated_at", UtcTime, nullable=False),
)

task_audit_logs = Table(
    "task_audit_logs",
    metadata,
    Column("sequence", _counter, primary_key=True, autoincrement=True),
    Column("id", KEY, nullable=False),
    Column("event_type", KEY, nullable=False),
    Column("task_id", KEY),
    Column("run_id", KEY),
    Column("actor", Text, nullable=False),
    Column("channel", KEY, nullable=False),
    Column("object", Text, nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    Column("result", KEY, nullable=False),
    Column("message", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("prev_hash", Text),
    Column("hash", Text),
    Column("address", Text),
    Column("position", BigInteger, comment="the place in the chain, given with the hash"),
    UniqueConstraint("id"),
    Index("ix_task_audit_logs_task_id", "task_id", "sequence"),
    Index("ix_task_audit_logs_run_id", "run_id", "sequence"),
    Index("ix_task_audit_logs_created_at", "created_at"),
    Index("ix_task_audit_logs_event_type", "event_type", "sequence"),
    Index("ix_task_audit_logs_position", "position", unique=True),
    sqlite_autoincrement=True,  # a sequence number is never given twice, not even after a purge
)
_unsealed = task_audit_logs.c.hash.is_(None)
Index("ix_task_audit_logs_unsealed", task_audit_logs.c.sequence, postgresql_where=_unsealed, sqlite_where=_unsealed)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("anchor", BigInteger, comment="the sequence of the newest anchor entry"),
)

outbox_events = Table(
    "outbox_events",
    metadata,
    Column("sequence", _counter, primary_key=True, autoincrement=True),
    Column("id", KEY, nullable=False),
    Column("name", KEY, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("delivered_at", UtcTime),
    UniqueConstraint("id"),
    Index("ix_outbox_events_created_at", "created_at"),
    sqlite_autoincrement=True,
)
_undelivered = outbox_events.c.delivered_at.is_(None)
Index(
    "ix_outbox_events_undelivered",
    outbox_events.c.sequence,
    postgresql_where=_undelivered,
    sqlite_where=_undelivered,
)

AUDIT_PURGE_SWITCH = "audit_purge_switch"
"""SQLite's one-row table: retention sets ``open`` to 1 and back to 0 inside its own transaction."""
