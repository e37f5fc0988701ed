"""Names of the events in the outbox and the builders of their payloads, camelCase as the seeds write them. (spec 6.7)

Every event is documented as a table in ``docs/events.md``; a test compares the two.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .batches import Batch, batch_status
from .models import OutboxEvent, Run, Task

__all__ = [
    "EVENTS",
    "batch_finished",
    "history_purged",
    "run_finished",
    "run_overdue",
    "run_started",
    "task_changed",
    "task_paused",
]

EVENTS: dict[str, tuple[str, ...]] = {
    "task_run_started": ("runId", "taskId", "origin", "attempt", "totalAttempts", "startedAt", "triggerId"),
    "task_run_finished": (
        "runId", "taskId", "origin", "status", "attempt", "finishedAt", "durationMs", "error", "triggerId",
    ),
    "task_run_overdue": ("runId", "taskId", "origin", "startedAt", "limitSeconds"),
    "task_history_purged": (
        "schedulerId", "retentionDays", "cutoffAt", "deletedRunLogs", "deletedRuns", "deletedAuditLogs",
        "deletedStepRuns", "deletedLedgerRows", "deletedRunRequests", "deletedFirings", "deletedEvents",
        "deletedPrefectRuns", "deletedFiles", "triggeredAt",
    ),
    "task_paused_by_rule": ("taskId", "slug", "reason"),
    "task_batch_finished": ("batchId", "taskId", "slug", "status", "items", "counts", "stopped", "finishedAt"),
    "task:created": ("taskId", "slug", "revision"),
    "task:updated": ("taskId", "slug", "revision"),
    "task:deleted": ("taskId", "slug", "revision"),
}  # fmt: skip


def _iso(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def _event(name: str, now: datetime, **payload: Any) -> OutboxEvent:
    return OutboxEvent(name=name, payload=payload, created_at=now)


def _once(name: str, run: Run, now: datetime, **payload: Any) -> OutboxEvent:
    """An event that a run has one time, whoever tells of it and how often: its id follows from the run's."""
    key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"taskcenter {name} {run.id}"))
    return OutboxEvent(id=key, name=name, payload=payload, created_at=now)


def run_started(run: Run, now: datetime) -> OutboxEvent:
    """A run that begins again under the same id has told of its beginning."""
    return _once(
        "task_run_started",
        run,
        now,
        runId=run.id,
        taskId=run.task_id,
        origin=run.origin.value,
        attempt=run.attempt,
        totalAttempts=run.total_attempts,
        startedAt=_iso(run.started_at),
        triggerId=run.trigger_id,
    )


def run_finished(run: Run, now: datetime) -> OutboxEvent:
    return _once(
        "task_run_finished",
        run,
        now,
        runId=run.id,
        taskId=run.task_id,
        origin=run.origin.value,
        status=run.status.value,
        attempt=run.attempt,
        finishedAt=_iso(run.finished_at),
        durationMs=run.duration_ms,
        error=run.error,
        triggerId=run.trigger_id,
    )


def run_overdue(run: Run, limit: float, now: datetime) -> OutboxEvent:
    """It runs longer than it should, and is let go on."""
    return _event(
        "task_run_overdue",
        now,
        runId=run.id,
        taskId=run.task_id,
        origin=run.origin.value,
        startedAt=_iso(run.started_at),
        limitSeconds=limit,
    )


def task_paused(task: Task, reason: str, now: datetime) -> OutboxEvent:
    """By a rule and not by a person."""
    return _event("task_paused_by_rule", now, taskId=task.id, slug=task.slug, reason=reason)


def batch_finished(batch: Batch, now: datetime) -> OutboxEvent:
    """Every item of it is over."""
    counts = (batch.summary or {}).get("counts") or {}
    return _event(
        "task_batch_finished",
        now,
        batchId=batch.id,
        taskId=batch.task_id,
        slug=batch.task_slug,
        status=batch_status(batch, counts).value,
        items=len(batch.items),
        counts=counts,
        stopped=batch.stopped,
        finishedAt=_iso(batch.closed_at),
    )


def history_purged(scheduler: str, counts: Mapping[str, Any], triggered_at: datetime, now: datetime) -> OutboxEvent:
    """``counts``: the days, the cutoff and every counter of the purge."""
    known = {name: counts[name] for name in EVENTS["task_history_purged"] if name in counts}
    return _event("task_history_purged", now, schedulerId=scheduler, **known, triggeredAt=_iso(triggered_at))


def task_changed(verb: str, task: Task, now: datetime) -> OutboxEvent:
    """``verb`` is created, updated or deleted."""
    return _event(f"task:{verb}", now, taskId=task.id, slug=task.slug, revision=task.revision)
