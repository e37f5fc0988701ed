"""Short ways to make what a store keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from taskcenter.models import AuditEntry, LogLine, OutboxEvent, Run, StepRun, Task

NOON = datetime(2026, 11, 20, 12, 0, 0, 654321, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_task(slug: str = "orders", **fields: Any) -> Task:
    return Task(**{"id": f"id-of-{slug}", "slug": slug, "name": slug.title(), "task_type": "python", **fields})


def a_run(run_id: str = "run-1", **fields: Any) -> Run:
    return Run(**{"id": run_id, "task_slug": "orders", "task_type": "python", "created_at": NOON, **fields})


def a_step(key: str = "a", run_id: str = "run-1", **fields: Any) -> StepRun:
    return StepRun(run_id=run_id, step_key=key, **fields)


def a_line(sequence: int, run_id: str = "run-1", **fields: Any) -> LogLine:
    return LogLine(**{"run_id": run_id, "sequence": sequence, "time": NOON, "message": f"line {sequence}", **fields})


def an_entry(event_type: str = "task_saved", **fields: Any) -> AuditEntry:
    return AuditEntry(**{"event_type": event_type, "created_at": NOON, **fields})


def an_event(name: str = "task:updated", **fields: Any) -> OutboxEvent:
    return OutboxEvent(**{"name": name, "payload": {}, "created_at": NOON, **fields})
