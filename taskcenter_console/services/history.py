"""What is remembered beside the audit: revisions of a task, events. Read only. (spec 1.1, 6.7)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskcenter.models import OutboxEvent

from . import tasks
from .center import Center

__all__ = ["events", "revisions"]


def revisions(center: Center, name: str) -> list[dict[str, Any]]:
    """Every saved version of a task, newest first."""
    return [
        {
            "revision": row["revision"],
            "createdAt": row["created_at"],
            "createdBy": row["created_by"],
            "reason": row["reason"],
            "definition": row["definition"],
            "graph": row["graph"],
        }
        for row in center.store.list_revisions(tasks.get(center, name).id)
    ]


def events(center: Center, *, limit: int = 100) -> Sequence[OutboxEvent]:
    """The events that are kept, in the order they were written."""
    return center.store.list_events(limit=limit)
