"""The scheduler's tables: where each trigger stands, the ledger, requests for runs, holds, the lease. (spec 4.2–4.7)

They go with their task, as its history does. A trigger's rows carry no foreign key to the trigger, because saving a
task writes its triggers anew; ``schedule_write`` removes what belongs to a trigger that is gone.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text, false

from .tables import CASCADE, JSON, KEY, UtcTime, metadata

__all__ = [
    "calendars",
    "leases",
    "run_batches",
    "run_cancels",
    "run_requests",
    "slot_ledger",
    "standings",
    "trigger_firings",
    "trigger_states",
]

trigger_states = Table(
    "trigger_states",
    metadata,
    Column("trigger_id", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("since", UtcTime, nullable=False, comment="when this definition came into force"),
    Column("cursor", UtcTime, comment="every slot up to here has its verdict"),
    Column("next_slot", UtcTime),
    Column("next_known", Boolean, nullable=False),
    Column("look_at", UtcTime, comment="when something is to be decided; null: when something happens"),
    Column("refill_at", UtcTime, comment="when runs are to be made ahead again; null: none are"),
    Column("last_finished", UtcTime),
    Column("version", BigInteger, nullable=False, comment="counts the writes: who decided from an old one starts over"),
    Column("published", JSON, comment="the schedule as it was last written to Prefect"),
    Index("ix_trigger_states_look_at", "look_at"),
    Index("ix_trigger_states_refill_at", "refill_at"),
    Index("ix_trigger_states_task_id", "task_id"),
)

standings = Table(
    "standings",
    metadata,
    Column("scope", KEY, primary_key=True, comment="scheduler, task or trigger"),
    Column("key", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE)),
    Column("hold", JSON, comment="what is in force; null: it runs"),
    Column("past", JSON, nullable=False, comment="holds that ended, as long as slots may have met them"),
)

slot_ledger = Table(
    "slot_ledger",
    metadata,
    Column("trigger_id", KEY, primary_key=True),
    Column("slot", UtcTime, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("verdict", KEY, nullable=False),
    Column("reason", KEY, nullable=False),
    Column("data", JSON, nullable=False),
    Column("run_id", KEY, comment="the run, or the key of its request until it is made"),
    Column("until", UtcTime, comment="the last slot of a range"),
    Column("count", Integer, nullable=False),
    Column("decided_at", UtcTime, nullable=False),
    Index("ix_slot_ledger_task_id", "task_id", "slot"),
    Index("ix_slot_ledger_run_id", "run_id"),
    Index("ix_slot_ledger_decided_at", "decided_at"),
)

run_requests = Table(
    "run_requests",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("trigger_id", KEY),
    Column("slot", UtcTime),
    Column("status", KEY, nullable=False, comment="wanted, made, withdrawn"),
    Column("ahead", Boolean, nullable=False, comment="its slot has no verdict yet"),
    Column("due", UtcTime, nullable=False, comment="from when the run may start"),
    Column("rank", Integer, nullable=False, comment="0 high, 1 normal, 2 low"),
    Column("run_id", KEY, comment="the flow run, once it is made"),
    Column("request", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("serial", KEY, comment="task or trigger: it waits for the runs of this scope before it; null: for none"),
    Column("by_person", Boolean, nullable=False, server_default=false(), comment="no hold keeps it back"),
    Index("ix_run_requests_status", "status", "due", "rank"),
    Index("ix_run_requests_slot", "trigger_id", "slot"),
    Column("batch_id", KEY, comment="the batch that the run is an item of"),
    Index("ix_run_requests_run_id", "run_id"),
)
_in_batch = run_requests.c.batch_id.is_not(None)
Index(
    "ix_run_requests_batch_id",
    run_requests.c.batch_id,
    run_requests.c.status,
    run_requests.c.due,
    postgresql_where=_in_batch,
    sqlite_where=_in_batch,
)
_wanted = run_requests.c.status == "wanted"
Index(
    "ix_run_requests_wanted",
    run_requests.c.task_id,
    run_requests.c.created_at,
    postgresql_where=_wanted,
    sqlite_where=_wanted,
)

run_batches = Table(
    "run_batches",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("task_slug", KEY, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("parallel", Integer, nullable=False, comment="how many of its runs are on their way at once"),
    Column("stop_on_error", Boolean, nullable=False),
    Column("items", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("stopped", Text, comment="why no further item starts"),
    Column("cancelled", Boolean, nullable=False, server_default=false()),
    Column("closed_at", UtcTime),
    Column("summary", JSON, comment="what it came to"),
    Index("ix_run_batches_created_at", "created_at", "id"),
    Index("ix_run_batches_task_id", "task_id", "created_at", "id"),
)
_going = run_batches.c.closed_at.is_(None)
Index("ix_run_batches_open", run_batches.c.created_at, postgresql_where=_going, sqlite_where=_going)

run_cancels = Table(
    "run_cancels",
    metadata,
    Column("run_id", KEY, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("asked_at", UtcTime, nullable=False),
)

trigger_firings = Table(
    "trigger_firings",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("trigger_id", KEY, nullable=False),
    Column("task_id", KEY, ForeignKey("tasks.id", **CASCADE), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("payload", JSON),
    Column("upstream_run_id", KEY),
    Column("consumed", Boolean, nullable=False),
)
_waiting = trigger_firings.c.consumed.is_(False)
Index("ix_trigger_firings_waiting", trigger_firings.c.at, postgresql_where=_waiting, sqlite_where=_waiting)
Index("ix_trigger_firings_at", trigger_firings.c.at)

calendars = Table(
    "calendars",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("definition", JSON, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("holder", KEY, nullable=False),
    Column("epoch", BigInteger, nullable=False, comment="counts the holders: a former one writes nothing"),
    Column("until", UtcTime, nullable=False),
    Column("facts", JSON, comment="what the holder says of itself"),
)
