"""Versions of a task: which there are, what differs between two, and going back to one. (spec 1.1)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskcenter.errors import NotFound, Refused
from taskcenter.models import Task
from taskcenter.revision_diff import Difference, differences

from . import tasks
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
    task = tasks.get(center, name)
    new = task.revision if new is None else new
    old = max(new - 1, 1) if old is None else old
    return old, new, _differences(_pick(center, task, old), _pick(center, task, new))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return differences(first["definition"], second["definition"], first["graph"], second["graph"])


def rollback(center: Center, name: str, revision: int, caller: Caller, *, reason: str = "") -> Task:
    """Make the definition of ``revision`` the newest: as a revision of its own, checked as any other change.

    Raises NotFound, Refused when it is what the task is now, ValidationFailed when it is not valid any more.
    """
    task = tasks.get(center, name)
    row = _pick(center, task, revision)
    if not _differences(_pick(center, task, task.revision), row):
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


def _pick(center: Center, task: Task, revision: int) -> Mapping[str, Any]:
    found = center.store.find_revision(task.id, revision) if 1 <= revision <= task.revision else None
    if found is None:
        raise NotFound(f"{task.slug} has no revision {revision}; there is 1 to {task.revision}")
    return found
