"""Takes over what somebody changed in Prefect: a schedule switched off or on, another cron, a paused deployment.

What Task Center last wrote to Prefect is kept. So three are compared: what it wrote, what stands there now and what
the trigger says. A schedule that is not as it was written was changed by a person and goes into the definition,
audited as ``prefect``; one that is as written, and no longer what the trigger says, is written again. (spec 4.1)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.publish import same_schedule
from deployments.spec import MANAGED_TAG, schedule_of
from taskcenter.errors import TaskCenterError
from taskcenter.models import Task, Trigger
from taskcenter.status import TaskStatus

from ..services import tasks as task_service
from ..services.center import Caller, Center
from ..services.deploy import deploy

__all__ = ["TakeOver"]

_LOG = logging.getLogger("taskcenter.scheduler")
_PREFECT = Caller("prefect", "prefect")


class TakeOver:
    """Passes over Prefect's deployments. It remembers which deployments stood otherwise in the pass before."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._otherwise: dict[str, bool] = {}

    def step(self) -> list[dict[str, Any]]:
        """One pass; gives Prefect's deployments as they stand."""
        deployments = self._center.gateway.deployments_with_flow(MANAGED_TAG)
        self._paused(deployments, self.schedules(deployments))
        return deployments

    def schedules(self, deployments: Sequence[Mapping[str, Any]]) -> dict[str, Task]:
        """Take over what became of the schedules; gives the tasks as they are then, by slug and by id."""
        published = self._center.need_schedule().published()
        tasks, changed = self._tasks(), False
        again: list[Task] = []
        for deployment in deployments:
            there = {s.get("slug"): s for s in deployment.get("schedules") or []}
            task = tasks.get(_named(deployment))
            if task is None or not any(trigger.id in published for trigger in task.triggers):
                continue
            found = {
                trigger.id: _taken(trigger, there[trigger.id], published[trigger.id])
                for trigger in task.triggers
                if trigger.id in there and trigger.id in published
            }
            changes = {key: values for key, values in found.items() if values}
            if changes:
                triggers = [{**t.model_dump(mode="python"), **changes.get(t.id, {})} for t in task.triggers]
                said = "; ".join(f"{key[:8]}: {values}" for key, values in changes.items())
                changed |= self._save(task, {"triggers": triggers}, said)
            elif any(_outdated(trigger, published.get(trigger.id), there) for trigger in task.triggers):
                again.append(task)
        if again:
            deploy(self._center, again)
        return self._tasks() if changed else tasks

    def _paused(self, deployments: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> None:
        """A deployment that is paused or resumed in Prefect is its task. Twice seen: no change of ours on its way."""
        before, self._otherwise = self._otherwise, {}
        for deployment in deployments:
            key, paused = str(deployment["id"]), bool(deployment.get("paused"))
            task = tasks.get(_named(deployment))
            if task is None or paused == (task.status is not TaskStatus.ACTIVE):
                continue
            if before.get(key) is paused:
                self._save(task, {"status": "paused" if paused else "active"}, "paused" if paused else "resumed")
            else:
                self._otherwise[key] = paused

    def _tasks(self) -> dict[str, Task]:
        """Every task by slug and by id, read at once: asking for each of a thousand would take seconds."""
        found = task_service.all_tasks(self._center)
        return {**{task.id: task for task in found}, **{task.slug: task for task in found}}

    def _save(self, task: Task, data: Mapping[str, Any], said: str) -> bool:
        try:
            task_service.save(self._center, data, _PREFECT, update=task.id)
            _LOG.info("taken over from Prefect for %s: %s", task.slug, said)
            return True
        except TaskCenterError as error:
            # What Prefect takes and we do not (an impossible cron): the definition stands, and is written there again.
            _LOG.warning("a change in Prefect of %s cannot be taken over (%s): %s", task.slug, said, error.message)
            deploy(self._center, [task])
            return False


def _named(deployment: Mapping[str, Any]) -> str:
    return str((deployment.get("parameters") or {}).get("task") or deployment["name"])


def _taken(trigger: Trigger, there: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the trigger that a person set in Prefect."""
    if same_schedule(there, written):
        return {}
    values: dict[str, Any] = {}
    if bool(there.get("active", True)) != bool(written["active"]):
        values["enabled"] = bool(there.get("active", True))
    now, then = there["schedule"], written["schedule"]
    for theirs, ours in (("cron", "cron_expression"), ("timezone", "timezone")):
        if theirs in now and theirs in then and now[theirs] != then[theirs]:
            values[ours] = now[theirs]
    if trigger.type == "interval" and now.get("interval") and float(now["interval"]) != float(then["interval"]):
        values["interval_seconds"] = float(now["interval"])
    return {name: value for name, value in values.items() if getattr(trigger, name) != value}


def _outdated(trigger: Trigger, written: Mapping[str, Any] | None, there: Mapping[str | None, Any]) -> bool:
    """Whether Prefect lacks it, or it has moved since (a one_shot that has fired, an anchor that was set)."""
    wanted = schedule_of(trigger)
    if wanted is None:
        return written is not None
    return written is None or trigger.id not in there or not same_schedule(written, wanted)
