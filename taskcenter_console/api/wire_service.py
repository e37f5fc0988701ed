"""Health, task types, audit and events on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taskcenter.models import AuditRecord, Model, OutboxEvent, Utc

from .wire_composites import BrokenFile, Json

__all__ = [
    "AuditList",
    "AuditQuery",
    "AuditReport",
    "EventList",
    "EventQuery",
    "HealthView",
    "Part",
    "PrefectPart",
    "TaskTypeList",
    "TaskTypeRow",
    "TaskTypeView",
    "VerifyQuery",
]


class TaskTypeRow(Model):
    key: str
    title: str
    category: str
    icon: str
    tags: list[str]
    danger: str | None
    expensive: bool
    max_concurrent: int
    has_preview: bool


class TaskTypeList(Model):
    items: list[TaskTypeRow]
    broken: list[BrokenFile] = Field(description="Types that could not be loaded, and why.")


class TaskTypeView(TaskTypeRow):
    payload_schema: Json = Field(description="The JSON Schema of the payload.")


class Part(Model):
    ok: bool
    message: str | None = None


class PrefectPart(Part):
    url: str | None = None
    version: str | None = None


class HealthView(Model):
    status: Literal["ok", "degraded"]
    version: str
    uptime_seconds: float
    store: Part
    prefect: PrefectPart


class AuditQuery(Model):
    """Which entries."""

    task: str | None = Field(None, max_length=200, description="Slug or id; for a deleted task its id.")
    run: str | None = Field(None, max_length=200)
    event_type: str | None = Field(None, max_length=100)
    actor: str | None = Field(None, max_length=200)
    channel: Literal["ui", "api", "cli", "prefect", "system"] | None = None
    result: Literal["ok", "refused", "failed"] | None = None
    since: Utc | None = None
    until: Utc | None = None
    before: int | None = Field(None, ge=0, le=2**62, description="Only a smaller `sequence`: the next page.")
    limit: int = Field(100, ge=1, le=500)


class AuditList(Model):
    items: list[AuditRecord] = Field(description="Newest first; the next page is `before` the last one's `sequence`.")


class VerifyQuery(Model):
    expect: list[Annotated[str, Field(max_length=90)]] = Field(
        default_factory=list, max_length=100, description="POSITION:HASH of a head that was noted. Repeatable."
    )


class AuditHead(Model):
    position: int
    hash: str


class AuditFinding(Model):
    kind: Literal["changed", "missing", "inserted", "order", "head", "anchor", "damaged"]
    position: int | None
    message: str


class AuditReport(Model):
    ok: bool
    entries: int
    unsealed: int = Field(description="Entries that have no place in the chain yet.")
    purged: int = Field(description="Entries that retention took, as the anchor says.")
    head: AuditHead
    findings: list[AuditFinding]


class EventQuery(Model):
    """How many."""

    limit: int = Field(100, ge=1, le=500)


class EventList(Model):
    items: list[OutboxEvent] = Field(description="In the order they were written.")
