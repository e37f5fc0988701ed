"""Versions of a task: which there are, what differs between two, and going back to one. (spec 1.1)"""

from __future__ import annotations

from typing import Any

from taskcenter.errors import NotFound, Refused
from taskcenter.models import Task
from taskcenter.revision_diff import Difference, differences

from . import history, tasks
from .center import Caller, Center

__all__ = ["diff", "rollback"]

_OWN = ("id", "revision", "createdAt", "updatedAt")
_OF_TIME = ("taskId", "nextRunAt", "lastRunAt", "revision")


def diff(
    center: Center, name: str, old: int | None = None, new: int | None = None
) -> tuple[int, int, list[Difference]]:
    """The two revisions and what differs from the first to the second; by default the last change.

    ``new``: default the newest; ``old``: default the one before ``new``. Raises NotFound.
    """
    rows = {row["revision"]: row for row in history.revisions(center, name)}
    new = max(rows) if new is None else new
    old = max((number for number in rows if number < new), default=new) if old is None else old
    first, second = _pick(rows, old, name), _pick(rows, new, name)
    return old, new, differences(first["definition"], second["definition"], first["graph"], second["graph"])


def rollback(center: Center, name: str, revision: int, caller: Caller, *, reason: str = "") -> Task:
    """Make the definition of ``revision`` the newest: as a revision of its own, checked as any other change.

    Raises NotFound, Refused when it is what the task is now, ValidationFailed when it is not valid any more.
    """
    task = tasks.get(center, name)
    row = _pick({row["revision"]: row for row in history.revisions(center, task.id)}, revision, task.slug)
    if not diff(center, task.id, task.revision, revision)[2]:
        raise Refused(f"{task.slug} is as it was in revision {revision}: nothing to roll back")
    data = {key: value for key, value in row["definition"].items() if key not in _OWN}
    data["triggers"] = [{k: v for k, v in t.items() if k not in _OF_TIME} for t in data.get("triggers", ())]
    if row["graph"] is not None:
        data["graph"] = row["graph"]
    why = f": {' '.join(reason.split())}" if reason.strip() else ""
    return tasks.save(
        center,
        data,
        caller,
        update=task.id,
        expected_revision=task.revision,
        event_type="task_rolled_back",
        message=f"{task.deployment_name} was rolled back to revision {revision}{why}",
    )


def _pick(rows: dict[int, dict[str, Any]], revision: int, name: str) -> dict[str, Any]:
    if revision not in rows:
        known = f"{min(rows)} to {max(rows)}" if rows else "none"
        raise NotFound(f"{name} has no revision {revision}; there is {known}")
    return rows[revision]
