"""What a task is as a Prefect deployment: pure, no Prefect needed. (spec 0.4, 4.1)

A task is the deployment ``<task type>/<slug>``: its flow is named after the task type, its parameters name the
task, and each cron, interval and one-shot trigger is one schedule whose slug is the trigger's id.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from taskcenter.models import Task, Trigger
from taskcenter.scheduling.cron import cron_of
from taskcenter.status import TaskStatus
from taskcenter_adapter.mapping import MANAGED

__all__ = ["MANAGED_TAG", "PARAMETERS", "POOL", "deployment_of", "entrypoint_of", "schedule_of"]

POOL: Final = "taskcenter"
MANAGED_TAG: Final = MANAGED

PARAMETERS: Final[dict[str, Any]] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "task": {"title": "task", "type": "string", "description": "Slug or id of the task.", "position": 0},
        "payload": {
            "title": "payload",
            "anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}],
            "default": None,
            "description": "Fields of the payload (inputs, for a composite) that this run overrides.",
            "position": 1,
        },
        "dry_run": {
            "title": "dry_run",
            "type": "boolean",
            "default": False,
            "description": "Give the plan and execute nothing.",
            "position": 2,
        },
        "options": {
            "title": "options",
            "anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}],
            "default": None,
            "description": "Per-run choices: skip, hold, fail, only, from, downstream_of, set, resume, plan_hash.",
            "position": 3,
        },
        "trigger_id": {
            "title": "trigger_id",
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
            "description": "The trigger that fired, when one did.",
            "position": 4,
        },
    },
    "required": ["task"],
    "definitions": {},
}
"""The parameters of every flow in ``flows/``; a test holds them against the functions themselves."""


def entrypoint_of(task_type: str) -> str:
    """The importable flow of a task type. Types that are not built in share the door ``run_task``."""
    return "flows.composite.composite" if task_type == "composite" else f"flows.run_task.{task_type}"


def schedule_of(trigger: Trigger) -> dict[str, Any] | None:
    """One Prefect schedule, as its API takes it; None for what Prefect has no schedule for.

    That is every trigger that does not fire by cron, interval or at one time, and crons that Prefect's own reader does
    not take (``15W``, ``LW``, ``5L``): Task Center's scheduler fires them all the same.
    """
    match trigger.type:
        case "cron":
            # Vixie: both must match when one of day and weekday begins with a star; croniter has a switch for it
            cron = cron_of(trigger)
            _, _, _, day, _, weekday = cron.texts
            if "w" in day or "l" in weekday:
                return None
            either = not cron.both_days
            text = trigger.cron_expression
            if trigger.cron_seconds == "first":  # Prefect reads the seconds last
                seconds, *others = str(text).split()
                text = " ".join([*others, seconds])
            schedule: dict[str, Any] = {"cron": text, "timezone": trigger.timezone, "day_or": either}
        case "interval" if trigger.counts_from == "schedule":
            anchor = trigger.anchor
            schedule = {"interval": trigger.interval_seconds, "timezone": trigger.timezone}
            if anchor is not None:
                schedule["anchor_date"] = anchor.astimezone(UTC).isoformat()
        case "one_shot":
            assert trigger.run_at is not None  # checked when the trigger was written
            start = trigger.run_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
            schedule = {"rrule": f"DTSTART:{start}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
        case _:
            return None
    return {
        "slug": trigger.id,
        "active": trigger.enabled,
        "schedule": schedule,
        "parameters": {"trigger_id": trigger.id, **({"payload": trigger.payload} if trigger.payload else {})},
    }


def deployment_of(task: Task) -> dict[str, Any]:
    """The wanted deployment of ``task``: everything but the ids that only the server knows.

    Its payload and environment stay in our own tables: the run reads them when it starts.
    """
    return {
        "flow": task.task_type,
        "name": task.slug,
        "description": task.description,
        "entrypoint": entrypoint_of(task.task_type),
        "parameters": {"task": task.slug},
        "parameter_openapi_schema": PARAMETERS,
        "enforce_parameter_schema": True,
        "tags": sorted({MANAGED_TAG, *task.tags}),
        "work_pool_name": POOL,
        "work_queue_name": task.priority.value,
        "paused": task.status is not TaskStatus.ACTIVE,
        "concurrency_limit": task.max_concurrent or None,
        "job_variables": {},
        "schedules": [made for trigger in task.triggers if (made := schedule_of(trigger)) is not None],
    }
