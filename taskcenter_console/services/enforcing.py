"""``maxFailures``: a task that failed so many times in a row is paused, once, and says why. (spec 5.7)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from taskcenter import events
from taskcenter.errors import Conflict
from taskcenter.models import AuditEntry, Run, Task
from taskcenter.ports import Changes, RunFilter
from taskcenter.status import RunStatus, TaskStatus
from taskcenter_adapter.schedule_read import BY_PERSON_ONLY

from . import tasks as task_service
from .center import Caller, Center

__all__ = ["failures_in_a_row", "pause_after_failures"]

_SYSTEM = Caller("system", "system")
_LOOKED_AT = 200
"""Runs per task: more failures in a row than that cannot be asked for."""
_LATELY = 500
"""The newest failed runs name the tasks to look at: what failed before them was looked at then."""


def pause_after_failures(center: Center, now: datetime) -> list[Task]:
    """Pause the tasks that have reached their limit; gives them."""
    paused = []
    lately = center.store.list_runs(RunFilter(status=RunStatus.FAILED, limit=_LATELY)).items
    for task_id in dict.fromkeys(run.task_id for run in lately if run.task_id is not None):
        task = center.store.find_task(task_id)
        limit = task.termination.max_failures if task is not None else 0
        if task is None or not limit or task.status is not TaskStatus.ACTIVE:
            continue
        since = center.store.get_setting(_key(task))
        runs = center.store.list_runs(RunFilter(task_id=task.id, limit=_LOOKED_AT)).items
        failed = failures_in_a_row(task, runs, datetime.fromisoformat(since) if since else None)
        if len(failed) < min(limit, _LOOKED_AT):
            continue
        text = f"paused after {len(failed)} failures in a row (maxFailures {limit}); the last one: {failed[0].error}"
        try:
            task_service.save(center, {"status": "paused"}, _SYSTEM, update=task.id, expected_revision=task.revision)
        except Conflict:
            continue  # somebody has just changed it: the next look decides
        entry = AuditEntry(
            event_type="task_paused_by_rule", task_id=task.id, run_id=failed[0].id, object=f"task {task.slug}",
            message=text, metadata={"failures": len(failed), "maxFailures": limit}, created_at=now,
        )  # fmt: skip
        # when somebody lets it go on, these failures are past
        center.store.set_setting(_key(task), now.isoformat())
        center.store.record(Changes(audit=(entry,), events=(events.task_paused(task, text, now),)))
        paused.append(task)
    return paused


def _key(task: Task) -> str:
    return f"max_failures_since:{task.id}"


def failures_in_a_row(task: Task, runs: Sequence[Run], since: datetime | None) -> list[Run]:
    """The last attempts of the roots that failed since the last success, newest first.

    ``runs`` are the task's, newest first. A cancelled root does not count, an attempt that will be retried not yet.
    """
    failed: list[Run] = []
    seen: set[str] = set()
    for run in runs:
        if since is not None and run.created_at <= since:
            break
        root = run.root_run_id or run.id
        if run.dry_run or root in seen:
            continue
        seen.add(root)
        if run.status is RunStatus.SUCCESS:
            break
        if run.status is RunStatus.FAILED and run.attempt > _retries(task, run):
            failed.append(run)
    return failed


def _retries(task: Task, run: Run) -> int:
    if run.origin in BY_PERSON_ONLY and run.total_attempts <= 1:
        return 0
    trigger = next((t for t in task.triggers if t.id == run.trigger_id), None)
    return (trigger.retry_policy if trigger is not None else task.retry_policy).max_attempts
