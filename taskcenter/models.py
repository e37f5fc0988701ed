"""The definitions and records that every room speaks of, as frozen pydantic models.

JSON is camelCase, Python snake_case; both spellings are accepted on input, unknown fields are refused
with their path. Times are aware and in UTC. (spec 1.1, 4.1, 5.1, 6.1)
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from .status import Origin, Priority, RunPhase, RunStatus, StepStatus, TaskStatus

__all__ = [
    "AfterCondition",
    "AuditEntry",
    "AuditRecord",
    "CalendarRule",
    "CatchUp",
    "LogLine",
    "MisfireCause",
    "MisfirePolicy",
    "Model",
    "OutboxEvent",
    "OverlapPolicy",
    "OverlapScope",
    "ResourceLimits",
    "RetryPolicy",
    "Run",
    "SchemaSnapshot",
    "StepRun",
    "Task",
    "Termination",
    "Trigger",
    "TriggerType",
    "Utc",
    "new_id",
    "slugify",
]


def new_id() -> str:
    return str(uuid.uuid4())


def slugify(name: str) -> str:
    """``Orders report!`` → ``orders-report``. Empty when nothing usable is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")[:100]


def _to_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _blank_to_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _clean_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(t.strip().lower() for t in tags if t.strip()))


def _clean_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise ValueError("the name is blank")
    return name


Utc = Annotated[datetime, AfterValidator(_to_utc)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_to_none)]
Tags = Annotated[tuple[str, ...], AfterValidator(_clean_tags)]
Name = Annotated[str, AfterValidator(_clean_name), Field(max_length=200)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?$", max_length=100)]


class Model(BaseModel):
    """Frozen, camelCase on the wire, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with camelCase keys."""
        return self.model_dump(mode="json", by_alias=True)


class RetryPolicy(Model):
    """Extra tries after the first (spec 4.8). Delays are milliseconds."""

    max_attempts: int = Field(0, ge=0, le=100)
    backoff_ms: int = Field(0, ge=0, le=86_400_000)
    strategy: Literal["linear", "exponential", "fixed"] = "linear"
    max_backoff_ms: int | None = Field(None, ge=0)


class ResourceLimits(Model):
    """How much one run may use, with all processes that it starts; absent: no limit. See ``resource_limits``."""

    cpu_seconds: float | None = Field(None, gt=0, le=31_536_000)
    memory_mb: int | None = Field(None, ge=16, le=16_777_216)
    open_files: int | None = Field(None, ge=16, le=1_048_576)
    """Of each process that it starts."""
    log_bytes: int | None = Field(None, ge=1)
    """What the processes that it starts may print."""


class Termination(Model):
    """When a run is stopped and a task paused by rule (spec 5.7). Seconds."""

    max_runtime: float | None = Field(None, gt=0)
    max_failures: int = Field(0, ge=0)
    kill_on_timeout: bool = True
    limits: ResourceLimits = ResourceLimits()


TriggerType = Literal["cron", "interval", "one_shot", "planned", "ad_hoc", "after", "startup"]
MisfirePolicy = Literal["fire_now", "skip", "reschedule", "fire_all"]
MisfireCause = Literal["service_down", "scheduler_paused", "trigger_paused", "task_paused", "overlap", "capacity"]
OverlapPolicy = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow"]
OverlapScope = Literal["trigger", "task"]
CalendarRule = Literal["skip", "next_working_day", "previous_working_day"]
AfterCondition = Literal["success", "failed", "done"]


class CatchUp(Model):
    """How much a ``fire_all`` makes up for: at most ``max`` slots, none older than ``window`` seconds (spec 4.5)."""

    max: int = Field(100, ge=1, le=10_000)
    window: float | None = Field(None, gt=0)


class Trigger(Model):
    """When a task should fire (spec 4.1). ``cron``, ``interval`` and ``one_shot`` are Prefect schedules too.

    Which fields belong to which type is checked in ``scheduling.check``.
    """

    id: str = Field(default_factory=new_id)
    task_id: str = ""
    type: TriggerType
    cron_expression: OptionalText = None
    cron_seconds: Literal["first", "last"] | None = None
    """Of a cron with six fields: where its seconds stand."""
    interval_seconds: float | None = None
    anchor: Utc | None = None
    run_at: Utc | None = None
    timezone: str = "UTC"
    enabled: bool = True
    retry_policy: RetryPolicy = RetryPolicy()
    payload: dict[str, Any] | None = None
    next_run_at: Utc | None = None
    last_run_at: Utc | None = None
    counts_from: Literal["schedule", "completion"] = Field("schedule", alias="from")
    """Of an interval: a fixed rate from the anchor, or so long after the end of the run before (``from`` in JSON)."""
    plan: tuple[Utc, ...] = ()
    """Of a planned trigger: its times, each once."""
    token_hash: OptionalText = None
    """Of an ad_hoc trigger: the hash of the token that fires it."""
    task_ids: tuple[str, ...] = ()
    """Of an after trigger: the tasks whose runs it waits for."""
    condition: AfterCondition = "success"
    """Of an after trigger: how their runs must end."""
    misfire_policy: MisfirePolicy = "fire_now"
    misfire_by_cause: dict[MisfireCause, MisfirePolicy] = Field(default_factory=dict)
    """A policy of its own for a cause; for a cause that is absent ``misfire_policy`` holds."""
    misfire_grace_seconds: int = Field(60, ge=0, le=31_536_000)
    catch_up: CatchUp = CatchUp()
    overlap: OverlapPolicy = "skip"
    overlap_scope: OverlapScope = "trigger"
    calendar: OptionalText = None
    calendar_rule: CalendarRule = "skip"
    jitter_seconds: float = Field(0.0, ge=0, le=86_400)
    start_at: Utc | None = None
    end_at: Utc | None = None
    priority: Priority | None = None
    """Of its runs; the task's when absent."""
    paused_until: Utc | None = None
    paused_reason: OptionalText = None
    """Given without ``paused_until``: paused until a person resumes it."""
    revision: int = 1


class Task(Model):
    """A named, saved unit of work: a task type, a payload, and how it is run (spec 1.1).

    ``slug`` is unique and is the Prefect deployment's name; it is made from the name when absent.
    """

    id: str = Field(default_factory=new_id)
    slug: Slug = ""
    name: Name
    description: OptionalText = None
    task_type: Annotated[str, Field(min_length=1, max_length=100)]
    status: TaskStatus = TaskStatus.ACTIVE
    payload: dict[str, Any] = Field(default_factory=dict)
    tags: Tags = ()
    owner: OptionalText = None
    category: OptionalText = None
    icon: OptionalText = None
    danger: OptionalText = None
    expensive: bool = False
    priority: Priority = Priority.NORMAL
    max_concurrent: int = Field(0, ge=0)
    environment: dict[str, str] = Field(default_factory=dict)
    termination: Termination = Termination()
    retry_policy: RetryPolicy = RetryPolicy()
    triggers: tuple[Trigger, ...] = ()
    revision: int = 1
    created_at: Utc | None = None
    updated_at: Utc | None = None

    @model_validator(mode="before")
    @classmethod
    def _slug_from_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("slug") and isinstance(data.get("name"), str):
            made = slugify(data["name"])
            if not made and data["name"].strip():
                raise ValueError("the name holds no letter or digit a-z, 0-9: give a slug of your own")
            data = {**data, "slug": made} if made else data
        return data

    @property
    def deployment_name(self) -> str:
        """``sql_script/orders-report``: what ``prefect deployment run`` takes."""
        return f"{self.task_type}/{self.slug}"


class Run(Model):
    """One attempt at executing a task. ``id`` is the id of Prefect's flow run."""

    id: str
    task_id: str | None = None
    task_slug: str
    task_type: str
    task_revision: int | None = None
    trigger_id: str | None = None
    origin: Origin = Origin.MANUAL
    status: RunStatus = RunStatus.QUEUED
    phase: RunPhase | None = None
    attempt: int = 1
    total_attempts: int = 1
    root_run_id: str = ""
    resumed_from: str | None = None
    dry_run: bool = False
    name: str = ""
    slot: Utc | None = None
    created_at: Utc
    started_at: Utc | None = None
    finished_at: Utc | None = None
    duration_ms: int | None = None
    message: str | None = None
    error: str | None = None
    result: Any = None
    plan_hash: str | None = None
    prefect_state: str | None = None
    batch_id: str | None = None
    """The batch that it is an item of, and which one, from 1."""
    batch_item: int | None = None


class StepRun(Model):
    """One step of one composite run: exactly one row per (run, step key)."""

    run_id: str
    step_key: str
    name: str = ""
    task_type: str = ""
    position: int = 0
    wave: int = 0
    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    started_at: Utc | None = None
    finished_at: Utc | None = None
    duration_ms: int | None = None
    execution: Any = None
    error: str | None = None
    error_type: str | None = None
    reason: str | None = None
    reused: bool = False
    prefect_task_run_id: str | None = None


class LogLine(Model):
    """One line of a run's log. ``sequence`` orders the lines of one run."""

    run_id: str
    sequence: int
    time: Utc
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str
    step_key: str | None = None
    stream: str = "log"
    metadata: dict[str, Any] | None = None


class AuditEntry(Model):
    """Who did what to what, when and from where (spec 6.4). Rows are only ever added."""

    id: str = Field(default_factory=new_id)
    event_type: str
    task_id: str | None = None
    run_id: str | None = None
    actor: str = "system"
    channel: Literal["ui", "api", "cli", "prefect", "system"] = "system"
    address: str | None = None
    """Where the request came from: an IP address, or the machine of a command line."""
    object: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    result: Literal["ok", "refused", "failed"] = "ok"
    message: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: Utc


class AuditRecord(AuditEntry):
    """An entry as it stands in the audit. Without a hash the sequencer has not reached it yet."""

    sequence: int
    position: int | None = None
    prev_hash: str | None = None
    hash: str | None = None


class OutboxEvent(Model):
    """An event that stands in the same transaction as the change it tells of (spec 6.7)."""

    id: str = Field(default_factory=new_id)
    name: str
    payload: dict[str, Any]
    created_at: Utc
    delivered_at: Utc | None = None


class SchemaSnapshot(Model):
    """The structure of one database, kept once per hash; ``captured_at`` is when it was last seen. (spec 2.3)"""

    id: str = Field(default_factory=new_id)
    connection: str
    database: str = ""
    dialect: str = ""
    schema_hash: str
    structure: dict[str, Any]
    first_captured_at: Utc
    captured_at: Utc
    run_id: str | None = None
    """The run that saw it last."""
