"""Health, task types, audit and events on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taskcenter.models import AuditEntry, Model, OutboxEvent

from .wire_composites import BrokenFile, Json

__all__ = [
    "AuditList",
    "AuditQuery",
    "EventList",
    "EventQuery",
    "HealthView",
    "Part",
    "PrefectPart",
    "TaskTypeList",
    "TaskTypeRow",
    "TaskTypeView",
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
    limit: int = Field(100, ge=1, le=500)


class AuditList(Model):
    items: list[AuditEntry] = Field(description="Newest first.")


class EventQuery(Model):
    """How many."""

    limit: int = Field(100, ge=1, le=500)


class EventList(Model):
    items: list[OutboxEvent] = Field(description="In the order they were written.")
