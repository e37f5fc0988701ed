"""Writes tasks to Prefect as deployments, and remembers their schedules as written. (spec 0.4, 4.1)"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.publish import Change, publish
from deployments.spec import schedule_of
from taskcenter.models import Task

from .center import Center

__all__ = ["deploy", "note_published"]


def deploy(center: Center, tasks: Sequence[Task], *, everything: bool = False) -> list[Change]:
    """Difference, then change. ``everything``: ``tasks`` are all there are, so that other deployments go away."""
    changes = publish(center.gateway, tasks, everything=everything)
    note_published(center, tasks)
    return changes


def note_published(center: Center, tasks: Sequence[Task]) -> None:
    """Whoever finds another schedule in Prefect later knows that a person changed it there."""
    schedule = center.schedule
    if schedule is not None:
        schedule.set_published({trigger.id: schedule_of(trigger) for task in tasks for trigger in task.triggers})
