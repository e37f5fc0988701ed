"""What every store answers alike: the checks before a save and the words of a refusal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from taskcenter.errors import Conflict, NotFound, Problem, Refused, ValidationFailed
from taskcenter.models import Task

__all__ = [
    "PREFIX_LENGTH",
    "TASK_ORDERS",
    "check_revision",
    "log_limit",
    "missing_parent",
    "next_version",
    "no_run",
    "no_task",
    "order_of",
    "several_runs",
    "slug_taken",
    "trigger_taken",
]

PREFIX_LENGTH = 4
_LOG_PAGE = 2_000

TASK_ORDERS: dict[str, tuple[tuple[str, bool], ...]] = {
    "name": (("sort_name", False),),
    "status": (("status", False), ("sort_name", False)),
    "created_at": (("created_at", True),),
    "updated_at": (("updated_at", True),),
}
"""Columns of each order of a task list, with True for falling ones (the newest first); the id decides last."""


def order_of(sort_by: str) -> tuple[tuple[str, bool], ...]:
    if sort_by not in TASK_ORDERS:
        known = ", ".join(TASK_ORDERS)
        raise ValidationFailed(
            "The task list's filter", [Problem("unknown_order", "sortBy", f"{sort_by!r} is none of: {known}")]
        )
    return TASK_ORDERS[sort_by]


def log_limit(limit: int) -> int:
    """How many log lines one page holds at most (spec 6.3)."""
    return min(max(limit, 0), _LOG_PAGE)


def check_revision(task: Task, stored: int | None, expected: int | None) -> None:
    """Raises Conflict unless the stored revision (None: no such task) is the expected one (None: any, 0: none)."""
    if expected is None or expected == (stored or 0):
        return
    if stored is None:
        raise Conflict(f"The task {task.slug} was deleted in between: nothing was saved.", task_id=task.id)
    if expected == 0:
        raise Conflict(f"The task {task.slug} exists already: nothing was saved.", task_id=task.id, revision=stored)
    raise Conflict(
        f"The task {task.slug} was changed in between (revision {stored}, not {expected}): load it again and repeat "
        "your change.",
        task_id=task.id,
        revision=stored,
    )


def next_version(task: Task, stored: Mapping[str, Any] | None, now: datetime) -> Task:
    """The task as this save leaves it: the next revision, its first creation time, triggers that know their task."""
    ids = [trigger.id for trigger in task.triggers]
    if len(set(ids)) < len(ids):
        raise Conflict(f"The task {task.slug} names a trigger id twice: nothing was saved.", task_id=task.id)
    return task.model_copy(
        update={
            "revision": stored["revision"] + 1 if stored else 1,
            "created_at": stored["created_at"] if stored else task.created_at or now,
            "updated_at": now,
            "triggers": tuple(trigger.model_copy(update={"task_id": task.id}) for trigger in task.triggers),
        }
    )


def slug_taken(task: Task, owner: str) -> Conflict:
    return Conflict(
        f"The slug {task.slug} belongs to another task already: give this one a slug of its own.",
        slug=task.slug,
        task_id=owner,
    )


def trigger_taken(task: Task) -> Conflict:
    return Conflict(
        f"A trigger of the task {task.slug} has an id that belongs to another task's trigger: leave the id out.",
        task_id=task.id,
    )


def no_task(id_or_slug: str) -> NotFound:
    return NotFound(f"There is no task {id_or_slug!r}: `taskcenter list` shows them all.", task=id_or_slug)


def no_run(run_id: str) -> NotFound:
    hint = f" (the beginning of an id needs {PREFIX_LENGTH} characters)" if len(run_id) < PREFIX_LENGTH else ""
    return NotFound(f"There is no run {run_id!r}{hint}.", run=run_id)


def several_runs(prefix: str, found: Sequence[str]) -> Refused:
    return Refused(
        f"More than one run begins with {prefix!r} ({', '.join(found)}, …): give more of the id.", run=prefix
    )


def missing_parent(tasks: Collection[str], runs: Collection[str]) -> NotFound:
    """A report whose run or task is not there (any more): nothing of its batch was stored."""
    named = [f"task {key}" for key in sorted(tasks)] + [f"run {key}" for key in sorted(runs)]
    what = ", ".join(named) or "a task or a run of this report"
    return NotFound(
        f"Nothing was recorded: not there, or deleted in between: {what}.", tasks=sorted(tasks), runs=sorted(runs)
    )
