"""What waits, in the order in which workers take it, and who may go first. (spec 5.2)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.spec import POOL
from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.scheduling.admission import start_order
from taskcenter.scheduling.state import Limits, OpenRun
from taskcenter.status import Priority
from taskcenter_adapter.mapping import priority_of

from .center import Caller, Center

__all__ = ["Waiting", "bump", "listing"]

_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class Waiting:
    """One run that waits. ``place`` is 1 for the next one; None while its time has not come."""

    run_id: str
    name: str
    task: str
    priority: Priority
    since: datetime
    place: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "runId": self.run_id,
            "name": self.name,
            "task": self.task,
            "priority": self.priority.value,
            "since": self.since.isoformat(),
            "place": self.place,
        }


def listing(center: Center, *, now: datetime | None = None) -> list[Waiting]:
    """Every run that waits for a worker, the next one first, then those of the next hour."""
    at = now or utc_now()
    found = [_open_run(queue, row, at) for queue, row in center.gateway.waiting_runs(POOL, at + _AHEAD)]
    ready = sorted((run for run in found if run[0].due_at <= at), key=lambda run: start_order(run[0], at, Limits()))
    later = sorted((run for run in found if run[0].due_at > at), key=lambda run: (run[0].due_at, run[0].id))
    places: list[tuple[int | None, tuple[OpenRun, Mapping[str, Any]]]] = [*enumerate(ready, start=1)]
    places += [(None, run) for run in later]
    return [
        Waiting(
            run_id=run.id,
            name=str(row.get("name") or ""),
            task=str((row.get("parameters") or {}).get("task") or ""),
            priority=run.priority,
            since=run.due_at,
            place=place,
        )
        for place, (run, row) in places
    ]


def _open_run(queue: str, row: Mapping[str, Any], now: datetime) -> tuple[OpenRun, Mapping[str, Any]]:
    slot = row.get("next_scheduled_start_time") or row.get("expected_start_time")
    created = _time(row.get("created")) or now
    priority = priority_of(row.get("tags") or (), queue)
    return OpenRun(str(row["id"]), "", created, slot=_time(slot), priority=priority), row


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value


def bump(center: Center, run_id: str, to: Priority, caller: Caller) -> Run:
    """Give a run that waits another priority; at the next free place it counts."""
    run = center.store.get_run(run_id)
    known = center.gateway.find_run(run.id)
    if known is None or known.get("state_type", "SCHEDULED") != "SCHEDULED":
        raise Refused(f"run {run.id[:8]} does not wait any more: only a waiting run has a place in the queue")
    tags = [tag for tag in known.get("tags") or () if not tag.startswith("priority:")]
    center.gateway.set_run_tags(run.id, [*tags, f"priority:{to.value}"])
    entry = caller.entry(
        "run_priority_changed",
        task_id=run.task_id,
        run_id=run.id,
        object=f"run {run.id}",
        before={"priority": priority_of(known.get("tags") or (), known.get("work_queue_name")).value},
        after={"priority": to.value},
    )
    center.store.record(Changes(audit=(entry,)))
    return run
