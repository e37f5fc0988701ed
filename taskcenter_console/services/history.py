"""What is remembered: revisions of a task, audit entries, events. Read only. (spec 6.4, 6.7)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskcenter.errors import NotFound
from taskcenter.models import AuditEntry, OutboxEvent

from . import tasks
from .center import Center

__all__ = ["audit", "events", "revisions"]


def revisions(center: Center, name: str) -> list[dict[str, Any]]:
    """Every saved version of a task, newest first."""
    return [
        {
            "revision": row["revision"],
            "createdAt": row["created_at"],
            "definition": row["definition"],
            "graph": row["graph"],
        }
        for row in center.store.list_revisions(tasks.get(center, name).id)
    ]


def audit(center: Center, *, task: str | None = None, run: str | None = None, limit: int = 100) -> Sequence[AuditEntry]:
    """Newest first; of a task (also of a deleted one, by its id) or of a run."""
    task_id = run_id = None
    if task is not None:
        found = center.store.find_task(task)
        task_id = found.id if found else task
    if run is not None:
        try:
            run_id = center.store.get_run(run).id
        except NotFound:  # the entries of a run outlive it
            run_id = run
    return center.store.list_audit(task_id=task_id, run_id=run_id, limit=limit)


def events(center: Center, *, limit: int = 100) -> Sequence[OutboxEvent]:
    """The events that are kept, in the order they were written."""
    return center.store.list_events(limit=limit)
